"""Facts of whom a push asks to report at once, and of how long it is waited for."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from tars_settings import Settings
from tars_settings.core.presence import (
    MORE_REFUSED,
    NOT_LISTED,
    Presence,
    RefusalReport,
    encode_presence,
    parse_presence,
)
from tars_settings.writer import Report
from tests.join.conftest import InMemory, Stt


@pytest.mark.parametrize(
    ("live", "everyone", "expected"),
    [
        (4, False, (1, 0.0)),
        (100, False, (1, 0.2)),
        (100, True, (1, 0.2)),
        (1000, False, (10, 1.0)),
        (1000, True, (1, 2.0)),
    ],
)
def test_of_many_workers_a_share_is_asked_and_everyone_on_demand_spread_over_time(
    memory: InMemory, monkeypatch: pytest.MonkeyPatch, live: int, everyone: bool, expected: tuple[int, float]
) -> None:
    readers = [(Presence(1, "stt-worker", f"n{n}", "ready"), 0.0) for n in range(live)]
    readers.append((Presence(1, "stt-worker", "gone", "offline"), 0.0))
    monkeypatch.setattr(memory.writer._heard, "readers", lambda scope: readers)
    ack = memory.writer._ack("stt-worker", everyone=everyone)
    assert (ack.of, ack.within_s) == expected
    receipt = memory.writer.push(Stt, {"vad_threshold": 0.6}, ask_everyone=everyone)
    assert (receipt.ack_of, receipt.spread_s) == expected


def test_a_wait_ends_when_it_is_enough_and_not_before_it_was_read_back(memory: InMemory, started: Any) -> None:
    started()
    silent = (Presence(1, "stt-worker", "mute", "ready"), 0.0)
    readers = memory.writer._heard.readers
    memory.writer._heard.readers = lambda scope: [*readers(scope), silent]  # type: ignore[method-assign]
    stages: list[str] = []

    def enough(report: Report) -> bool:
        stages.append(report.stage)
        return report.applied >= 1

    report = memory.writer.push(Stt, {"vad_threshold": 0.6}).wait(60, enough=enough)
    assert (report.stage, report.applied, report.asked) == ("retained", 1, 2)
    assert stages[-1] == "retained"


def test_a_report_names_some_of_many_keys_that_the_model_does_not_have_and_counts_the_others(
    memory: InMemory, started: Any
) -> None:
    live = started()
    for part in ("a", "b"):
        values = {f"{part}{n}": n for n in range(50)}
        assert memory.writer.push("stt-worker", values, plain=list(values)).wait(10).applied == 1
    assert len(live.status.unknown) == 100, "the model has them"
    report = live._follower.presence()
    assert len(report.unknown) == 64
    assert "36 more keys that the model does not have" in report.notes


def _below_ten(value: int) -> int:
    if value >= 10:
        raise ValueError("ten is too much")
    return value


class Limits(Settings, service="limits"):
    limits: dict[str, Annotated[int, AfterValidator(_below_ten)]] = {}


def test_a_report_lists_some_of_many_refusals_and_every_push_learns_of_its_own(
    memory: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tars_settings.agent.follower.REFUSAL_S", 0.0)
    assert memory.writer.sync("limits") == "ready"
    live = memory.join(Limits)
    for n in range(36):
        report = memory.writer.push("limits", {f"limits.k{n}": n + 5}, plain=[f"limits.k{n}"]).wait(10)
        assert [one.message for one in report.refused] == (["Value error, ten is too much"] if n >= 5 else []), n
    # Older than all of these by its stamp, and what somebody waits for now.
    late = memory.writer.push("limits@pi-3", {"limits.a": 99}, plain=["limits.a"])
    assert [one.message for one in late.wait(10).refused] == ["Value error, ten is too much"]
    more = [
        memory.writer.push("limits", {f"limits.m{n}": 99}, plain=[f"limits.m{n}"]).wait(10).refused for n in range(3)
    ]
    assert [len(one) for one in more] == [1, 1, 1]
    assert len(live.status.refused) == 35, "the process itself keeps all"
    report = live._follower.presence()
    assert len(report.refused) == 32
    assert f"3 {MORE_REFUSED}" in report.notes
    assert late.digest in {one.digest for one in report.refused}
    assert {digest for digest, said in report.acked.items() if said == "refused"} <= {
        one.digest for one in report.refused
    }
    assert [one for one in live.status.refused if one in report.refused] == list(report.refused), "in the same order"
    assert parse_presence(encode_presence(report)) == report


def test_a_refusal_without_room_for_its_reason_is_one_all_the_same(memory: InMemory, started: Any) -> None:
    started()
    receipt = memory.writer.push(Stt, {"vad_threshold": 0.6})
    receipt.wait(10)
    other = RefusalReport("stt-worker", 9, "cd" * 32, ("model",), "no such model")
    full = Presence(
        1,
        "stt-worker",
        "full",
        "ready",
        acked={receipt.digest: "refused"},
        refused=(other,),
        notes=(f"1 {MORE_REFUSED}",),
    )
    memory.writer._heard.readers = lambda scope: [(full, receipt.pushed_s)]  # type: ignore[method-assign]
    (reply,) = receipt.wait(10).refused
    assert reply.message == NOT_LISTED
