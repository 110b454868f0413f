"""A change that undoes itself, in workers: the real agent and replica, a broker in memory, and a clock that jumps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import Field

import tars_settings
from tars_settings import Settings
from tars_settings.adapters.clock import SystemClock
from tars_settings.agent import assemble, follower, trials
from tars_settings.core.delta import Assignment, Trial
from tars_settings.core.trial import CHECKPOINTS, TrialMark
from tars_settings.errors import NothingOnTrialError, RefusedError, UsageError
from tars_settings.join import Live
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import usable_lkgs
from tars_settings.sources.trials import TrialStore
from tests.brokers import eventually
from tests.fleets import ALICE, delta
from tests.join.conftest import InMemory, Stt

Started = Callable[..., Live[Any]]


class Audio(Settings, service="audio"):
    gain: float = Field(default=1, le=10)


class Time(SystemClock):
    """The machine's clock, moved by tests: how far it went on, and how wrong the time of day is."""

    passed_s = 0.0
    wrong_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + Time.passed_s

    def wall(self) -> datetime:
        return super().wall() + timedelta(seconds=Time.passed_s + Time.wrong_s)


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "SystemClock", Time)
    monkeypatch.setattr(Time, "passed_s", 0.0)
    monkeypatch.setattr(Time, "wrong_s", 0.0)


def passes(seconds: float, *lives: Live[Any]) -> None:
    """Let time pass, and have it noticed."""
    Time.passed_s += seconds
    for live in lives:
        live._agent.call(lambda: None)


def has(live: Live[Any], value: str) -> None:
    eventually(lambda: live.current.model == value, what=f"{live!r} has {value}")


def left_s(live: Live[Any]) -> list[int]:
    return [one.left_s for one in live.status.trials]


def try_out(memory: InMemory, value: str = "new", within_s: float = 600) -> Any:
    receipt = memory.writer.push(Stt, {"model": value}, revert_after_s=within_s)
    assert receipt.wait(10).stage == "retained"
    return receipt


def test_nobody_confirms_and_every_worker_goes_back_by_itself(memory: InMemory, started: Started) -> None:
    one, two = started(Stt, "pi-1"), started(Stt, "pi-2")
    memory.push(model="old")
    seen: list[str] = []
    one.on_change(lambda change: seen.append(change.new.model), "model")
    epoch = try_out(memory).epoch
    for live in (one, two):
        has(live, "new")
    assert [(trial.epoch, trial.keys) for trial in one.status.trials] == [(epoch, ("model",))]
    assert 590 < left_s(one)[0] <= 600
    passes(590, one, two)
    assert (one.current.model, two.current.model) == ("new", "new")
    passes(10, one, two)
    for live in (one, two):
        has(live, "old")
        eventually(lambda live=live: left_s(live) == [0])
    eventually(lambda: seen == ["new", "old"])
    digests = {live.status.scopes["stt-worker"].digest for live in (one, two)}
    assert len(digests) == 1
    eventually(lambda: all(one.trials and one.trials[0].left_s == 0 for one in memory.writer.presences("stt-worker")))


def test_a_confirm_in_time_keeps_it_and_one_that_comes_late_takes_it_up_again(
    memory: InMemory, started: Started
) -> None:
    live = started(Stt)
    try_out(memory, "first")
    has(live, "first")
    (receipt,) = memory.writer.confirm(Stt, reason="good")
    assert receipt.wait(10).applied == 1
    passes(601, live)
    assert live.current.model == "first"
    assert live.status.trials == ()
    try_out(memory, "second")
    has(live, "second")
    passes(600, live)
    has(live, "first")
    memory.writer.confirm("stt-worker")
    has(live, "second")
    with pytest.raises(NothingOnTrialError):
        memory.writer.confirm("stt-worker")
    epoch = try_out(memory, "third").epoch
    has(live, "third")
    passes(1201, live)
    has(live, "second")
    with pytest.raises(NothingOnTrialError, match=f"undone long since: epoch {epoch} "):
        memory.writer.confirm("stt-worker")
    memory.writer.confirm("stt-worker", epoch=epoch)
    has(live, "third")


def test_a_revert_ends_it_at_once_and_for_good(memory: InMemory, started: Started) -> None:
    live = started(Stt)
    memory.push(model="old")
    epoch = try_out(memory).epoch
    has(live, "new")
    with pytest.raises(NothingOnTrialError, match="epoch 99"):
        memory.writer.revert(Stt, epoch=99)
    (receipt,) = memory.writer.revert(Stt, epoch=epoch)
    assert receipt.wait(10).applied == 1
    has(live, "old")
    assert live.status.trials == ()


def test_a_later_push_of_its_key_ends_a_trial_of_that_key_alone(memory: InMemory, started: Started) -> None:
    live = started(Stt)
    memory.writer.push(Stt, {"model": "new", "vad_threshold": 0.9}, revert_after_s=600).wait(10)
    has(live, "new")
    memory.push(model="newer")
    has(live, "newer")
    passes(600, live)
    eventually(lambda: live.current.vad_threshold == 0.5)
    assert live.current.model == "newer"


def test_a_restart_goes_on_counting_whatever_the_time_of_day_says(memory: InMemory, started: Started) -> None:
    live = started(Stt)
    try_out(memory)
    has(live, "new")
    passes(400, live)
    live.close()
    Time.wrong_s = 86_400 * 365
    passes(100)
    again = memory.join(Stt)
    assert again.current.model == "base", "its clock says that a year went by"
    again.close()


def test_a_restart_in_the_middle_has_the_rest(memory: InMemory, started: Started) -> None:
    live = started(Stt)
    Time.wrong_s = -86_400
    try_out(memory)
    has(live, "new")
    passes(400, live)
    live.close()
    # By the delta's own time it would have begun only now.
    passes(100)
    again = memory.join(Stt)
    assert again.current.model == "new"
    assert 90 < left_s(again)[0] <= 100
    passes(101, again)
    has(again, "base")
    again.close()
    last = memory.join(Stt)
    assert (last.current.model, left_s(last)) == ("base", [0])


def test_a_restart_is_noted_before_anything_of_the_workers_runs(
    memory: InMemory, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = started(Stt)
    try_out(memory)
    has(live, "new")
    live.close()
    # From here on nothing is written later: the worker might end at once.
    monkeypatch.setattr(follower, "LKG_WITHIN_S", 3600.0)
    Time.wrong_s = -86_400
    again = memory.join(Stt)
    (mark,) = TrialStore(Environment.read(**memory.keys.given("pi-3")), "stt-worker").read()
    assert again.current.model == "new"
    assert mark.left_ms <= 600_000 - 600_000 // CHECKPOINTS, "a clock that goes back costs a share"


@pytest.mark.parametrize("what", ["gone", "forged", "unwritable"])
def test_without_marks_of_ours_the_deltas_own_time_counts(memory: InMemory, started: Started, what: str) -> None:
    live = started(Stt)
    path = Environment.read(**memory.keys.given("pi-3")).trials_path("stt-worker")
    if what == "unwritable":
        path.mkdir()
    try_out(memory)
    has(live, "new")
    passes(400, live)
    live.close()
    if what != "unwritable":
        assert path.read_bytes()
        path.unlink()
    if what == "forged":
        path.write_bytes(b'{"v":1,"trials":[]}')
    again = memory.join(Stt)
    assert 190 < left_s(again)[0] <= 200
    passes(201, again)
    has(again, "base")


def test_a_look_is_due_at_once_where_something_is_to_be_noted_and_else_at_the_next_share() -> None:
    class Store:
        def read(self) -> tuple[TrialMark, ...]:
            return ()

        def write(self, marks: Iterable[TrialMark]) -> None:
            written.append(tuple(marks))

    class Still(Time):
        def now_s(self) -> float:
            return 1000.0 + Time.passed_s

    written: list[tuple[TrialMark, ...]] = []
    one = trials.Trials(Store(), Still(), lambda _: True)  # type: ignore[arg-type]
    assert one.next_s() == float("inf")
    item = Assignment("model", set="new")
    one.arrived(delta(ALICE, 1, item, trial=Trial(600, (Assignment("model", unset=True),))))
    assert one.next_s() == 1000.0
    one.note()
    assert one.next_s() == 1000.0 + 600 / CHECKPOINTS
    Time.passed_s = 600 / CHECKPOINTS - 1
    assert one.next_s() == 1000.0 + 600 / CHECKPOINTS
    Time.passed_s = 600 / CHECKPOINTS
    assert one.next_s() == 1000.0 + Time.passed_s
    assert len(written) == 1


def test_who_joins_later_agrees_with_the_others(memory: InMemory, started: Started) -> None:
    first = started(Stt, "pi-1")
    try_out(memory)
    has(first, "new")
    passes(300, first)
    middle = memory.join(Stt, "pi-2")
    has(middle, "new")
    assert 290 < left_s(middle)[0] <= 300
    passes(301, first, middle)
    for live in (first, middle):
        has(live, "base")
    late = memory.join(Stt, "pi-3")
    assert late.current.model == "base"
    assert left_s(late) == [0]


def test_a_worker_in_step_asks_no_time_of_day_and_tries_for_the_whole_time(
    memory: InMemory, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "age_s", lambda *_: 86_400.0)
    live = started(Stt)
    # What it asks the broker for, as it does for a moment after it is ready, might be old.
    eventually(lambda: not live._agent.replicator.is_asking)
    try_out(memory)
    has(live, "new")
    assert left_s(live)[0] > 590
    # The clock was wrong, or the delta is old: who was not there can't tell.
    assert memory.join(Stt, "pi-9").current.model == "base"


def test_what_is_on_trial_is_not_what_a_crash_loop_goes_back_to(memory: InMemory, started: Started) -> None:
    live = started(Stt)

    def kept() -> list[tuple[str, bool]]:
        found = usable_lkgs(Environment.read(**memory.keys.given("pi-3")), "stt-worker")
        return [(str(said.assignment.set), one.proven) for one in found for said in one.view.scopes[1].registers]

    memory.push(model="old")
    has(live, "old")
    live.mark_good()
    eventually(lambda: kept() == [("old", True)])
    try_out(memory)
    has(live, "new")
    live.mark_good()
    eventually(lambda: kept() == [("old", False), ("old", True)])
    passes(600, live)
    has(live, "old")
    live.mark_good()
    eventually(lambda: kept()[:1] == [("old", True)])
    memory.writer.confirm(Stt)
    has(live, "new")
    live.mark_good()
    eventually(lambda: kept()[:1] == [("new", True)])


def test_a_process_that_only_reads_its_replica_tries_nothing(
    memory: InMemory, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = started(Stt)
    memory.push(model="old")
    try_out(memory)
    has(live, "new")
    for name, value in memory.keys.given("pi-3").items():
        monkeypatch.setenv(f"TARS_SETTINGS_{name.upper()}", str(value))
    eventually(lambda: Stt().model == "old")
    assert tars_settings.explain(Stt(), "model").winner.trial == "undone"
    assert tars_settings.explain(live.current, "model").winner.trial == "running"
    memory.writer.confirm(Stt)
    has(live, "new")
    eventually(lambda: Stt().model == "new")


def test_what_a_refused_push_leaves_in_use_is_still_on_trial(memory: InMemory, started: Started) -> None:
    live = memory.fleet().join(Audio)
    assert live.wait_until_ready(10)
    memory.writer.push(Audio, {"gain": 2}).wait(10)
    memory.writer.push(Audio, {"gain": 5}, revert_after_s=600).wait(10)
    eventually(lambda: live.current.gain == 5)
    memory.writer.push_as_is("audio", (Assignment("gain", set=99),)).wait(10)
    assert [one.keys for one in live.status.refused] == [("gain",)]
    assert live.current.gain == 5
    passes(600, live)
    eventually(lambda: live.current.gain == 2)


def test_a_secret_is_tried_and_undone_as_ciphertext(memory: InMemory, started: Started) -> None:
    live = started(Stt)
    memory.writer.push(Stt, {"model": "sk-old"}, secret=["model"]).wait(10)
    memory.writer.push(Stt, {"model": "sk-new"}, revert_after_s=600).wait(10)
    has(live, "sk-new")
    assert not any(b"sk-" in payload for payload in memory.broker.retained.values())
    passes(600, live)
    has(live, "sk-old")
    memory.writer.confirm(Stt)
    has(live, "sk-new")


@pytest.mark.parametrize("within_s", [0, 0.5, 604_801])
def test_no_trial_is_shorter_than_a_second_or_longer_than_a_week(memory: InMemory, within_s: float) -> None:
    with pytest.raises(UsageError, match="7 days"):
        memory.writer.push("stt-worker", {"model": "a"}, plain=["model"], revert_after_s=within_s)


def test_what_would_hide_something_newer_is_not_confirmed(memory: InMemory) -> None:
    writer = memory.writer
    writer.push("nested", {"m": {"a": 1}}, plain=["m"], revert_after_s=600).wait(10, "retained")
    writer.push("nested", {"m.a": 2}, plain=["m.a"]).wait(10, "retained")
    for settle in (writer.confirm, writer.revert):
        with pytest.raises(RefusedError, match=r"m\.a"):
            settle("nested")
