from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tars_settings.cli.status import Report, is_converged
from tars_settings.core.presence import Presence, RefusalReport, ScopeReport
from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Plant, open_plant


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Plant]:
    """A fleet of its own."""
    with open_plant(tmp_path / "plant") as made:
        yield made


def test_workers_that_hold_what_the_fleet_says_are_in_step(fleet: Plant) -> None:
    fleet.employ("stt-worker", "kitchen", STT_WHISPER_MODEL="tiny.en")
    fleet.employ("router", "kitchen")
    fleet.awaited()
    assert fleet.cli("push", "stt-worker", "whisper_model=base.en").code == 0
    assert fleet.cli("push", "stt-worker", "beam_size=5", "--plain").code == 0
    done = fleet.cli("status", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("status", document)
    assert document["converged"] is True
    stt = next(one for one in document["workers"] if one["service"] == "stt-worker")
    assert list(stt["shadowed"]) == ["whisper_model"]
    assert stt["unknown"] == ["beam_size"]
    assert stt["scopes"]["stt-worker"] == {
        name: document["scopes"]["stt-worker"][name] for name in ("gen", "epoch", "digest")
    }
    rows = fleet.cli("status").rows()
    assert [row[:3] for row in rows] == [["router@kitchen", "ready", "yes"], ["stt-worker@kitchen", "ready", "yes"]]
    assert "whisper_model is shadowed by" in rows[1][5]
    assert "STT_WHISPER_MODEL" in rows[1][5]
    assert [row[0] for row in fleet.cli("status", "router").rows()] == ["router@kitchen"]


def test_a_refusing_worker_is_not_in_step(fleet: Plant) -> None:
    fleet.employ("router", "kitchen")
    fleet.awaited()
    pushed = fleet.cli("push", "router", "stream_min_chars=600")
    assert pushed.code == 1
    assert "must not exceed" in pushed.out
    done = fleet.cli("status", "--json")
    assert done.code == 1
    (worker,) = done.document()["workers"]
    assert worker["refused"][0]["keys"] == ["stream_min_chars"]
    assert "must not exceed" in worker["refused"][0]["message"]
    assert not worker["in_step"]


def test_a_worker_that_left_is_shown_and_holds_nobody_up(fleet: Plant) -> None:
    leaver, stayer = fleet.employ("stt-worker", "hall"), fleet.employ("stt-worker", "kitchen")
    fleet.awaited()
    leaver.process.kill()
    leaver.process.wait()
    eventually(lambda: fleet.cli("status").rows()[0][1] == "offline", what="the last will arrives")
    done = fleet.cli("status", "--json")
    assert done.code == 0, done.err
    states = {one["worker"]: one["state"] for one in done.document()["workers"]}
    assert states == {"stt-worker@hall": "offline", "stt-worker@kitchen": "ready"}
    stayer.end()
    done = fleet.cli("status")
    assert done.code == 1
    assert "2 offline" in done.err


def test_no_worker_is_a_no(fleet: Plant) -> None:
    done = fleet.cli("status", "stt-worker", "--json")
    assert done.code == 1
    assert_fits("status", done.document())
    assert "no worker of stt-worker has reported" in done.err


def test_without_a_broker_there_is_no_status(fleet: Plant) -> None:
    assert fleet.cli("status", "--broker", "mqtt://127.0.0.1:9").code == 3


def test_a_claim_can_not_steer_a_terminal(fleet: Plant) -> None:
    claim = {"v": 1, "service": "stt-worker", "instance": "evil", "state": "ready", "notes": ["\x1b[2Jall is well"]}
    fleet.broker.publish("system/health/stt-worker/evil", json.dumps(claim, ensure_ascii=True))
    done = fleet.cli("status")
    assert "all is well" in done.out
    assert "\x1b" not in done.out + done.err


EXPECTED = {"stt-worker": ScopeReport(1, 5, "aa")}


@pytest.mark.parametrize(
    ("presence", "in_step"),
    [
        (Presence(1, "stt-worker", "a", "ready", {"stt-worker": ScopeReport(1, 5, "aa")}), True),
        (Presence(1, "stt-worker", "a", "ready", {"stt-worker": ScopeReport(1, 4, "bb")}), False),
        (Presence(1, "stt-worker", "a", "stale", {"stt-worker": ScopeReport(1, 5, "aa")}), False),
        (Presence(1, "stt-worker", "a", "degraded", {"stt-worker": ScopeReport(1, 5, "aa")}), False),
        (Presence(1, "stt-worker", "a", "ready", refused=(RefusalReport("stt-worker", 5, "d", ("k",), "no"),)), False),
    ],
)
def test_in_step_is_ready_equal_and_content(presence: Presence, in_step: bool) -> None:
    assert Report(presence, EXPECTED).is_in_step is in_step
    assert is_converged([Report(presence, EXPECTED)]) is in_step


def test_nobody_is_not_converged() -> None:
    assert not is_converged([])
