"""Reading: what does ``live.current.x`` cost?

Ours against a frozen pydantic model (the floor: what every reader of pydantic pays), and against what people read
settings from otherwise. ``python -m benchmarks.reading [--full]``
"""

from __future__ import annotations

import os
import sys
import threading
import time
import timeit
from types import SimpleNamespace
from typing import Any

from pydantic import ConfigDict, create_model

import tars_settings
from benchmarks.harness import Answer, Goal, check, directory, main, ratio, rounds, take_turns
from benchmarks.stage import Stage, model, mosquitto

LOOPS = 50_000
OURS, FLOOR = "live.current.x", "frozen_model.x"


def measure(full: bool) -> Answer:
    """Read one attribute in all the ways there are, many times, in turn."""
    answer = Answer("reading", "Reading a value", "timeit, one attribute of a model with 30 fields")
    with directory() as there, mosquitto(there) as broker:
        stage = Stage(there / "fleet", broker.url, 30)
        stage.put_on(broker.port)
        with tars_settings.join(model(30), **stage.fleet.given("a")) as live:
            check(live.wait_until_ready(20), "the worker is not ready")
            cases = {name: _timer(statement, scope) for name, statement, scope in _cases(live)}
            samples = take_turns(cases, rounds(full, 15, 60))
            locks = _locks_taken(live)
    for name in cases:
        answer.add(name, "ns", samples[name], "ours" if name == OURS else "floor" if name == FLOOR else "peer")
    answer.goals.append(
        Goal("read", "live.current.x against frozen_model.x", ratio(samples, OURS, FLOOR), 1.1, note=NOTE)
    )
    answer.goals.append(Goal("read", "locks taken by 1,000 reads", locks, 0, unit="locks"))
    return answer


NOTE = (
    "The second attribute is all that there is to pay. A class with __getattr__ cost 2.0 x: the trap for forked"
    " children now lives in a class of its own, which a live object gets only after a fork."
)


def _cases(live: Any) -> list[tuple[str, str, dict[str, Any]]]:
    frozen = create_model("Frozen", __config__=ConfigDict(frozen=True), **{f"k{n:05d}": (int, n) for n in range(30)})()
    cases: list[tuple[str, str, dict[str, Any]]] = [
        (FLOOR, "o.k00007", {"o": frozen}),
        (OURS, "o.current.k00007", {"o": live}),
        ("plain object", "o.k00007", {"o": SimpleNamespace(k00007=1)}),
        ("os.environ[...]", "o['PATH']", {"o": os.environ}),
        ("a lock and an attribute", "with lock: o.k00007", {"o": frozen, "lock": threading.Lock()}),
    ]
    try:
        from dynaconf import Dynaconf
    except ImportError:
        return cases
    return [*cases, ("Dynaconf", "o.K00007", {"o": Dynaconf(K00007=1)})]


def _timer(statement: str, scope: dict[str, Any]) -> Any:
    # On a shared core a loop is interrupted now and then: the best of a few short ones was not.
    timer = timeit.Timer(statement, globals=scope, timer=time.thread_time)
    return lambda: min(timer.repeat(5, LOOPS)) / LOOPS * 1e9


def _locks_taken(live: Any) -> float:
    """Return how many functions, of Python or C, a reader calls: none, so none that could take a lock."""
    called = []
    sys.setprofile(lambda _frame, event, what: called.append((event, what)))
    for _ in range(1000):
        live.current.k00007  # noqa: B018
    sys.setprofile(None)
    return float(len([one for one in called if one[1] is not sys.setprofile]))


if __name__ == "__main__":
    sys.exit(main(measure))
