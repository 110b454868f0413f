"""Facts of whom a push asks to report at once, and of how long it is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from tars_settings.core.presence import Presence
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
