"""``python -m tests.fuzz.run [INPUTS] [SEED]``: that many changed inputs over all targets; exits 1 when one escapes.

A failure prints its target and its input in hex. Memory is bounded, too: a process that holds 64 MiB more than after
its first thousand inputs, at the end of whatever chunk, is a failure.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, attempt

NIGHTLY: Final = 10_000_000
_CHUNK: Final = 20_000
_MAX_FAILURES: Final = 20
_WARM: Final = 1_000
_MAX_GROWTH_KIB: Final = 64 * 1024


class Failure(NamedTuple):
    """An input, and what escaped."""

    target: str
    payload: bytes
    error: str


class Found(NamedTuple):
    """How many inputs there were, how many of them passed, and what escaped."""

    inputs: int
    passed: int
    failures: list[Failure]
    growth_kib: int = 0


class _Memory:
    """How far this process grew since its first thousand inputs, over all of its chunks."""

    def __init__(self) -> None:
        self.inputs = 0
        self.warm_kib = 0

    def note(self, inputs: int) -> int:
        """Take note of more inputs; return by how many KiB the process grew."""
        self.inputs += inputs
        if not self.warm_kib and self.inputs >= _WARM:
            self.warm_kib = _resident_kib()
        return _resident_kib() - self.warm_kib if self.warm_kib else 0


_memory: Final = _Memory()


def run(inputs: int, seed: int) -> Found:
    """Give at least *inputs* to the targets in turn; the same seed gives the same inputs."""
    random, passed, failures = Random(seed), 0, []
    rounds = -(-inputs // len(TARGETS))
    grown_kib = 0
    for _ in range(rounds):
        for name, target in TARGETS.items():
            payload = mutated(random, target.seeds)
            try:
                passed += attempt(name, payload)
            except Exception as error:  # noqa: BLE001 - what escapes is what is looked for
                failures.append(Failure(name, payload, repr(error)))
        grown_kib = _memory.note(len(TARGETS))
    if grown_kib > _MAX_GROWTH_KIB:
        failures.append(Failure("memory", b"", f"grew by {grown_kib // 1024} MiB"))
    return Found(rounds * len(TARGETS), passed, failures[-_MAX_FAILURES:], grown_kib)


def _resident_kib() -> int:
    """Return what this process holds now; where the system does not say, the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def main(inputs: int = NIGHTLY, seed: int | None = None) -> int:
    """Run on all processors, and return the exit code."""
    first = int.from_bytes(os.urandom(4), "big") if seed is None else seed
    chunks = -(-inputs // _CHUNK)
    size = min(inputs, _CHUNK)
    began_s = time.monotonic()
    print(f"{inputs} inputs over {len(TARGETS)} targets, from seed {first}")
    done, passed, grown_kib, failures = 0, 0, 0, []
    with ProcessPoolExecutor() as pool:
        for found in pool.map(run, [size] * chunks, range(first, first + chunks)):
            done, passed = done + found.inputs, passed + found.passed
            grown_kib = max(grown_kib, found.growth_kib)
            failures += found.failures
            if len(failures) >= _MAX_FAILURES:
                break
        pool.shutdown(cancel_futures=True)
    took_s = time.monotonic() - began_s
    print(f"{done} inputs in {took_s:.0f} s, {done / took_s:.0f} a second; {passed} passed, {len(failures)} escaped")
    print(f"the process that grew most took {grown_kib / 1024:.1f} MiB more than after its first {_WARM} inputs")
    for failure in failures[:_MAX_FAILURES]:
        print(f"{failure.target}: {failure.error}\n  {failure.payload.hex()}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
