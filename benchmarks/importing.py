"""Importing: what does ``import tars_settings`` cost a process, and what does it leave unimported?

``python -m benchmarks.importing [--full]``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from benchmarks.harness import Answer, Goal, children_cpu, excess, main, python, rounds, take_turns

LATE = ("paho", "nacl", "diskcache", "sqlite3", "typer", "rich", "asyncio")
PLAIN, OURS, CLASS, PLAIN_CLASS = (
    "import pydantic_settings",
    "import tars_settings",
    "from tars_settings import Settings",
    "from pydantic_settings import BaseSettings",
)


def measure(full: bool) -> Answer:
    """Start fresh interpreters in turn; each figure is the processor time of the whole process."""
    answer = Answer("importing", "Importing", "a fresh interpreter each, processor time of the whole process")
    lines = {"python -c pass": "pass", **{line: line for line in (PLAIN, OURS, PLAIN_CLASS, CLASS)}}
    lines |= {f"import {name}": f"import {name}" for name in ("paho.mqtt.client", "nacl.bindings", "diskcache")}
    samples = take_turns({name: _started(code) for name, code in lines.items()}, rounds(full, 8, 40))
    for name in lines:
        answer.add(name, "ms", samples[name], "ours" if "tars" in name else "floor")
    answer.goals += [
        Goal("import", f"{OURS} minus {PLAIN}", excess(samples, OURS, PLAIN), 10.0, unit="ms"),
        Goal(
            "import",
            f"{CLASS} minus {PLAIN_CLASS}",
            excess(samples, CLASS, PLAIN_CLASS),
            10.0,
            unit="ms",
            note=CLASS_NOTE,
        ),
        Goal(
            "import",
            "libraries that importing the class brings along, of those that it should not",
            float(len(_imported(CLASS))),
            0,
            unit="of " + str(len(LATE)),
            note=", ".join(sorted(_imported(CLASS))),
        ),
    ]
    return answer


CLASS_NOTE = (
    "Declaring a class brings pydantic-settings and three modules of ours, 1.6 ms by -X importtime. What reads the"
    " fleet's values, msgspec with it, comes with the first object: the cold start pays for that. It was 21 ms, of 55"
    " modules of ours and msgspec."
)


def _started(code: str) -> Callable[[], float]:
    return lambda: children_cpu(lambda: python(code, os.environ)) * 1e3


def _imported(code: str) -> set[str]:
    """Return what *code* imports beyond what pydantic-settings does."""
    brought = set(python(f"{code}; import sys; print(*sys.modules)").split())
    plain = set(python(f"{PLAIN_CLASS}; import sys; print(*sys.modules)").split())
    return {name for name in LATE if name in brought and name not in plain}


if __name__ == "__main__":
    sys.exit(main(measure))
