"""Constructing: what does ``Settings()`` cost with a replica of 50 keys, against ``BaseSettings()`` on its sources?

``python -m benchmarks.constructing [--full]``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from benchmarks.harness import Answer, Goal, check, cpu, directory, excess, main, ratio, rounds, take_turns
from benchmarks.stage import Stage, model, replica_of

KEYS = 50
OURS, PLAIN = "Settings(), a replica of 50 keys", "BaseSettings(), the same sources"
OURS_ENV, PLAIN_ENV = "Settings(), environment only", "BaseSettings(), environment only"
DYNACONF = "Dynaconf, the same .env"


def measure(full: bool) -> Answer:
    """Construct in turn, the environment and a .env of 20 lines above the fleet's 50 keys."""
    answer = Answer(
        "constructing",
        "Constructing settings",
        "50 fields, 5 variables, a .env of 20 lines; every signature of the replica is checked each time",
    )
    with directory() as there:
        stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", KEYS)
        replica_of(stage, "a")
        os.environ.update(stage.fleet.environment("a"))
        os.environ.update({f"BENCH_K{n:05d}": "7" for n in range(5)})
        dotenv = there / ".env"
        dotenv.write_text("".join(f"BENCH_K{n:05d}=8\n" for n in range(5, 25)))
        cases = _cases(dotenv)
        samples = take_turns({name: _ms(case) for name, case in cases.items()}, rounds(full, 10, 60))
    for name in cases:
        role = "ours" if name in (OURS, OURS_ENV) else "floor" if name in (PLAIN, PLAIN_ENV) else "peer"
        answer.add(name, "ms", samples[name], role)
    if DYNACONF not in cases:
        answer.add_missing(DYNACONF, "dynaconf is not installed")
    allowed = excess(samples, OURS, PLAIN) - 0.15 * sorted(samples[PLAIN])[len(samples[PLAIN]) // 2]
    answer.goals.append(
        Goal(
            "construct",
            "Settings() minus 1.15 x BaseSettings(), the same sources",
            allowed,
            2.0,
            unit="ms",
            note=f"It is {ratio(samples, OURS, PLAIN):.2f} x; what is on top is 50 signatures, which one index vouches"
            " for, SQLite, and the fold.",
        )
    )
    return answer


def _cases(dotenv: Path) -> dict[str, Callable[[], object]]:
    ours = model(KEYS)
    config = SettingsConfigDict(env_prefix="BENCH_")
    fields = {f"k{n:05d}": (int, Field(default=-1, ge=-1, le=10**9)) for n in range(KEYS)}
    plain = create_model("Plain", __base__=BaseSettings, **fields)  # type: ignore[call-overload]
    plain.model_config = {**plain.model_config, **config}
    made = ours(_env_file=dotenv)
    check((made.k00000, made.k00007, made.k00030) == (7, 8, 30), "the values are not those of the three sources")
    cases: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain(_env_file=dotenv),
        OURS: lambda: ours(_env_file=dotenv),
        PLAIN_ENV: plain,
        OURS_ENV: ours,
    }
    try:
        from dynaconf import Dynaconf
    except ImportError:
        return cases
    return {**cases, DYNACONF: lambda: _dynaconf(Dynaconf, dotenv)}


def _dynaconf(kind: type, dotenv: Path) -> None:
    made = kind(envvar_prefix="BENCH", load_dotenv=True, dotenv_path=str(dotenv))
    check(made.K00000 == 7, "Dynaconf does not see the environment")


def _ms(case: Callable[[], object]) -> Callable[[], float]:
    return lambda: cpu(case, 3) * 1e3


if __name__ == "__main__":
    sys.exit(main(measure))
