"""Facts of looking, told by the real command on a real broker: explain, search, list, watch, status --watch."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.brokers import DEADLINE_S, eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Plant
from tests.cli.test_prometheus import parsed


@pytest.fixture(scope="module", autouse=True)
def values(plant: Plant) -> None:
    """A worker that pins one key, and two pushes."""
    plant.employ("stt-worker", "kitchen", STT_WHISPER_MODEL="tiny.en")
    plant.awaited()
    published = "system/config/stt-worker/_schema/+"
    eventually(lambda: len(plant.broker.retained(published)) == 1, what="the worker's schema is there")
    for value in ("base.en", "small.en"):
        done = plant.cli("push", "stt-worker", f"whisper_model={value}", "--reason", "better ears")
        assert done.code == 0, done.err


def test_explain_says_who_pins_a_key_and_what_was_replaced(plant: Plant) -> None:
    done = plant.cli("explain", "stt-worker", "whisper_model", "--json")
    assert done.code == 0, done.err
    told = done.document()
    assert_fits("explain", told)
    assert (told["value"], told["candidates"][0]["replaced"]["value"]) == ("small.en", "base.en")
    assert [(one["fate"], one["why"]) for one in told["workers"]] == [("pinned", "pinned by STT_WHISPER_MODEL")]


def test_search_finds_a_setting_by_its_description(plant: Plant) -> None:
    done = plant.cli("search", "Whisper", "name")
    assert done.code == 0, done.err
    assert done.rows() == [["stt-worker whisper_model", "small.en (stt-worker)", "Name of the Whisper model"]]


def test_list_shows_defaults_and_services(plant: Plant) -> None:
    done = plant.cli("list", "stt-worker", "--all", "--json")
    assert done.code == 0, done.err
    assert_fits("list", done.document())
    assert "vad_threshold" in {one["key"] for one in done.document()["defaults"]}
    assert plant.cli("list", "--services").rows() == [["stt-worker", "1", "1", "1", "10"]]


def test_metrics_are_well_formed(plant: Plant) -> None:
    done = plant.cli("status", "--prometheus")
    assert done.code == 0, done.err
    assert (
        parsed(done.out)["tars_settings_worker_pinned_keys"][1][("instance", "kitchen"), ("service", "stt-worker")] == 1
    )


def _lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def _interrupted(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C, and return what the command said on its way out."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return said


def test_watch_shows_a_push_and_ends_with_ctrl_c(plant: Plant) -> None:
    watching = plant.cli.start("watch", "stt-worker", "--json")
    assert watching.stderr is not None
    assert "watching _all, stt-worker" in watching.stderr.readline()
    assert plant.cli("push", "stt-worker", "vad_threshold=0.7", "--by", "ann").code == 0
    change = json.loads(_lines(watching, 1)[0])
    assert_fits("watch", change)
    assert (change["key"], change["old_set"], change["new"], change["by"]) == ("vad_threshold", False, 0.7, "ann")
    assert "interrupted" in _interrupted(watching)


def _epoch(line: str) -> int:
    document = json.loads(line)
    assert_fits("status", document)
    return int(document["scopes"]["stt-worker"]["epoch"])


def test_status_is_shown_again_when_it_changes_and_ends_with_ctrl_c(plant: Plant) -> None:
    watching = plant.cli.start("status", "stt-worker", "--watch", "--json")
    (first,) = _lines(watching, 1)
    assert plant.cli("push", "stt-worker", "silence_s=2").code == 0
    before = _epoch(first)
    while _epoch(_lines(watching, 1)[0]) == before:
        pass  # something else was told first
    assert "interrupted" in _interrupted(watching)
