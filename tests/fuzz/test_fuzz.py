"""Only errors of our own escape, whatever the bytes; the good examples pass, or nothing would be tested."""

from __future__ import annotations

import mmap
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tars_settings.errors import TarsSettingsError
from tests.fuzz.mutate import mutated
from tests.fuzz.run import _Memory, run
from tests.fuzz.targets import TARGETS, Target, attempt

PAYLOADS = st.one_of(st.binary(max_size=400), st.randoms(use_true_random=False))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(source=PAYLOADS)
def test_only_our_own_errors_escape(name: str, source: bytes | Random) -> None:
    attempt(name, source if isinstance(source, bytes) else mutated(source, TARGETS[name].seeds))


@pytest.mark.parametrize("name", TARGETS)
def test_good_examples_pass(name: str) -> None:
    assert any(attempt(name, seed) for seed in TARGETS[name].seeds)


def test_a_target_that_hoards_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: what keeps much of each input is a failure, though nothing escapes."""
    hoard: list[mmap.mmap] = []

    def hoarding(payload: bytes) -> None:
        hoard.append(mmap.mmap(-1, 2**21))
        hoard[-1].write(b"x" * 2**21)

    monkeypatch.setitem(TARGETS, "envelope", Target([b"x"], hoarding))
    memory = _Memory()
    monkeypatch.setattr("tests.fuzz.run._memory", memory)
    found = run(60 * len(TARGETS) + 1_000, seed=1)
    assert len(hoard) > 60
    assert [failure.target for failure in found.failures] == ["memory"]
    assert found.growth_kib > 64 * 1024


def test_a_run_counts_and_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another error in one target is reported with the input that made it."""
    clean = run(2_000, seed=1)
    assert clean.inputs >= 2_000
    assert clean.failures == []
    assert 0 < clean.passed < clean.inputs

    def broken(payload: bytes) -> None:
        if b"9" in payload:
            raise KeyError("ours is another tree")
        raise TarsSettingsError("no")

    monkeypatch.setitem(TARGETS, "envelope", Target(TARGETS["envelope"].seeds, broken))
    found = run(2_000, seed=1).failures
    assert found
    assert {failure.target for failure in found} == {"envelope"}
    assert all(b"9" in failure.payload for failure in found)
