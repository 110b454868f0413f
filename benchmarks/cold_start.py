"""Cold start offline: from nothing to validated settings of 50 keys, without a network.

``python -m benchmarks.cold_start [--full]``
"""

from __future__ import annotations

import os
import sys

from benchmarks.harness import Answer, Goal, check, children_cpu, directory, excess, main, python, rounds, take_turns
from benchmarks.stage import Stage, replica_of

FIELDS = "\n".join(f"    k{n:05d}: int = Field(default=-1, ge=-1)" for n in range(50))
PLAIN_CODE = f"""
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
class Bench(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="BENCH_")
{FIELDS}
print(Bench().k00007)
"""
OURS_CODE = f"""
from pydantic import Field
from tars_settings import Settings, SettingsConfigDict
class Bench(Settings):
    model_config = SettingsConfigDict(env_prefix="BENCH_", service="stt-worker")
{FIELDS}
print(Bench().k00007)
"""
CHECKS_CODE = PLAIN_CODE + "import nacl.bindings, sqlite3, msgspec\n"
OURS, PLAIN = "Settings() from a replica of 50 keys", "BaseSettings()"
EMPTY, CHECKS = "Settings(), no replica", "BaseSettings(), and PyNaCl, sqlite3, msgspec imported"


def measure(full: bool) -> Answer:
    """Start processes in turn; each figure is the processor time of the whole process."""
    answer = Answer("cold_start", "Cold start offline", "a fresh process each, processor time from start to exit")
    with directory() as there:
        stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", 50)
        replica_of(stage, "a")
        plain = {**os.environ, **stage.fleet.environment("none")}
        ours = {**os.environ, **stage.fleet.environment("a")}
        check(python(OURS_CODE, ours).strip() == "7", "the value is not the fleet's")
        check(python(OURS_CODE, plain).strip() == "-1", "there is a value without a replica")
        cases = {
            PLAIN: lambda: _ms(PLAIN_CODE, plain),
            OURS: lambda: _ms(OURS_CODE, ours),
            EMPTY: lambda: _ms(OURS_CODE, plain),
            CHECKS: lambda: _ms(CHECKS_CODE, plain),
        }
        samples = take_turns(cases, rounds(full, 10, 60))
    for name in cases:
        answer.add(name, "ms", samples[name], "ours" if name in (OURS, EMPTY) else "floor")
    needed = excess(samples, CHECKS, PLAIN)
    over = excess(samples, OURS, PLAIN)
    note = (
        f"Importing PyNaCl, sqlite3 and msgspec, without which nothing is checked, costs {needed:.1f} ms of it. By"
        " callgrind it is 153 million instructions beside the 800 of BaseSettings(), and it was 199: a start imports"
        " no heads, questions, floors, seals nor what errors need, and decoders are made without compiling annotations"
        " anew. Of what is left 32 are those imports, 32 the 52 signatures, 7 the end of the process; 2.5 ms make the"
        " settings class of our own variables, and most of the rest are some thirty modules that are all used. Building"
        " that class later, without its check for empty values or without postponed annotations gave 2 million at most."
    )
    answer.goals.append(Goal("cold start offline, 50 keys", f"{OURS} minus {PLAIN}", over, 10.0, unit="ms", note=note))
    return answer


def _ms(code: str, environment: dict[str, str]) -> float:
    return children_cpu(lambda: python(code, environment)) * 1e3


if __name__ == "__main__":
    sys.exit(main(measure))
