"""Profiles: saved, listed, shown, applied and deleted in a real fleet; a secret in one is never in clear."""

from __future__ import annotations

import pytest

from tests.cli.documents import assert_fits
from tests.cli.running import Plant

SECRET = "sk-robot-0451"
MASK = "**********"


@pytest.fixture(scope="module", autouse=True)
def values(plant: Plant) -> None:
    """A worker, and values of two services, a secret among them."""
    plant.employ("stt-worker", "pi-3")
    plant.awaited()
    for words in (
        ("stt-worker", "vad_threshold=0.3", f"api_key={SECRET}"),
        ("tts-worker", "volume_percent=30", "--plain"),
    ):
        done = plant.cli("push", *words)
        assert done.code == 0, done.err


def test_from_save_to_delete(plant: Plant) -> None:
    saved = plant.cli("profile", "save", "night", "--reason", "quiet hours", "--json")
    assert saved.code == 0, saved.err
    assert_fits("profile save", saved.document())
    assert (saved.document()["values"], saved.document()["secrets"]) == (3, 1)

    listed = plant.cli("profile", "list", "--json").document()
    assert_fits("profile list", listed)
    night = next(one for one in listed["profiles"] if one["name"] == "night")
    assert (night["services"], night["encrypted"], night["reason"]) == (
        ["stt-worker", "tts-worker"],
        True,
        "quiet hours",
    )

    shown = plant.cli("profile", "show", "night", "--json")
    assert_fits("profile show", shown.document())
    assert [(one["key"], one["value"]) for one in shown.document()["values"]] == [
        ("api_key", MASK), ("vad_threshold", 0.3), ("volume_percent", 30),
    ]  # fmt: skip
    assert SECRET in plant.cli("profile", "show", "night", "--reveal", "api_key").out

    assert plant.cli("profile", "apply", "night", "--yes").err.startswith("the fleet says what profile night says")
    plant.cli("push", "stt-worker", "vad_threshold=0.8", "api_key=another", "silence_s=2")
    dry = plant.cli("profile", "apply", "night", "--dry-run")
    assert dry.rows() == [["stt-worker", "api_key", MASK, MASK], ["stt-worker", "vad_threshold", "0.8", "0.3"]]
    assert plant.cli("get", "stt-worker", "vad_threshold").out.strip() == "0.8"
    assert plant.cli("profile", "apply", "night").code == 2, "nobody is there to ask"

    applied = plant.cli("profile", "apply", "night", "--yes", "--json")
    assert applied.code == 0, applied.err
    assert_fits("profile apply", applied.document())
    (push,) = applied.document()["pushes"]
    assert (push["scope"], push["stage"], push["applied"]) == ("stt-worker", "retained", 1)
    assert plant.cli("get", "stt-worker", "api_key", "--reveal", "api_key").out.strip() == SECRET
    assert plant.cli("get", "stt-worker", "silence_s").out.strip() == "2", "what the profile does not name stays"

    wire = b"".join(plant.broker.retained("#").values())
    assert b'"vad_threshold"' in wire, "the dump is empty"
    assert SECRET.encode() not in wire

    deleted = plant.cli("profile", "delete", "night", "--yes", "--json")
    assert deleted.code == 0, deleted.err
    assert_fits("profile delete", deleted.document())
    assert plant.cli("profile", "show", "night").code == 1
    assert plant.cli("profile", "delete", "night", "--yes").code == 1


def test_given_values_become_a_profile_that_touches_each_scope_once(plant: Plant) -> None:
    words = ("stt-worker", "vad_threshold=0.6", "tts-worker", "volume_percent=60", "concurrency=2")
    assert plant.cli("profile", "save", "loud", *words).code == 0
    assert plant.cli("profile", "show", "loud").rows() == [
        ["stt-worker", "vad_threshold", "0.6"],
        ["tts-worker", "concurrency", "2"],
        ["tts-worker", "volume_percent", "60"],
    ]
    done = plant.cli("profile", "apply", "loud", "tts-worker", "--yes", "--json").document()
    assert [one["scope"] for one in done["pushes"]] == ["tts-worker"]
    done = plant.cli("profile", "apply", "loud", "--yes", "--json").document()
    assert [one["scope"] for one in done["pushes"]] == ["stt-worker"], "the other one says so already"


def test_wrong_calls_are_told(plant: Plant) -> None:
    for words, code in (
        (("save", "a.b"), 2), (("save", "x", "vad=1"), 2), (("save", "x", "profiles"), 2), (("save", "x", "nobody"), 1),
        (("apply", "nothing", "--yes"), 1), (("show", "nothing"), 1),
    ):  # fmt: skip
        assert plant.cli("profile", *words).code == code, words
