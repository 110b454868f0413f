"""Facts of list and explain: what there is, and why it has its value on each worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from tars_settings.cli.candidates import dig
from tars_settings.cli.moments import Since, span
from tars_settings.cli.render import MASK
from tars_settings.core.presence import MORE_REFUSED, NOT_LISTED, Presence, ScopeReport, encode_presence
from tars_settings.core.topics import PresenceTopic, Topics
from tars_settings.errors import UsageError
from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.room import Room, Strict, Stt, Tts, open_room

SECRET = "sk-robot-0451"


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """Workers that apply, pin and refuse; values in all three kinds of scope; a secret."""
    with open_room() as room:
        room.employ(Stt, "pi-1")
        room.employ(Strict, "pi-4")
        room.employ(Tts, "pi-1")
        os.environ["STT_VAD_THRESHOLD"] = "0.1"
        room.employ(Stt, "pi-3")
        room.until_described("stt-worker", schemas=2)
        room.until_described("tts-worker")
        push = room.fleet.push
        push("stt-worker", {"vad_threshold": 0.55}, reason="first")
        assert room("list").code == 0  # so this host holds what is replaced now
        push("stt-worker", {"vad_threshold": 0.6, "suppress_echo": False}, reason="noisy kitchen")
        push("stt-worker@pi-1", {"audio.gain": 3})
        push("stt-worker", {"audio": {"gain": 2, "rate": 8000}})
        room.fleet.writer.push("_all", {"language": "de"}, plain=["language"]).wait(10)
        push("stt-worker", {"api_key": SECRET})
        eventually(lambda: len(_refusing(room)) == 1)
        yield room
        del os.environ["STT_VAD_THRESHOLD"]


def _refusing(room: Room) -> list[str]:
    return [one.instance for one in room.fleet.writer.presences("stt-worker") if one.refused]


def _explained(room: Room, *words: str) -> Any:
    done = room("explain", *words, "--json")
    assert done.code == 0, done.err
    assert_fits("explain", done.document())
    return done.document()


def test_explain_names_the_winner_what_it_replaced_and_the_default(room: Room) -> None:
    told = _explained(room, "stt-worker", "vad_threshold")
    assert (told["value"], told["set"], told["type"]) == (0.6, True, "number")
    (winner,) = told["candidates"]
    assert (winner["wins"], winner["scope"], winner["epoch"], winner["reason"]) == (
        True,
        "stt-worker",
        2,
        "noisy kitchen",
    )
    assert (winner["replaced"]["epoch"], winner["replaced"]["value"]) == (1, 0.55)
    assert winner["writer"] == winner["replaced"]["writer"] == "tests"
    assert [one["default"] for one in told["defaults"]] == ["0.5"]


def test_explain_says_what_each_worker_makes_of_it(room: Room) -> None:
    workers = {one["instance"]: one for one in _explained(room, "stt-worker", "vad_threshold")["workers"]}
    assert (workers["pi-1"]["fate"], workers["pi-1"]["value"]) == ("applied", 0.6)
    assert (workers["pi-3"]["fate"], workers["pi-3"]["why"]) == ("pinned", "pinned by STT_VAD_THRESHOLD")
    assert workers["pi-4"]["fate"] == "refused"
    assert "at most 0.55" in workers["pi-4"]["why"]
    assert [one["known"] for one in workers.values()] == [True, False, False]


def test_an_instance_shadows_its_service_and_that_its_default(room: Room) -> None:
    told = _explained(room, "stt-worker", "audio.gain", "--instance", "pi-1")
    assert told == _explained(room, "stt-worker@pi-1", "audio.gain")
    assert told["value"] == 3
    assert [(one["scope"], one["value"], one["wins"]) for one in told["candidates"]] == [
        ("stt-worker@pi-1", 3, True),
        ("stt-worker", 2, False),
    ]
    assert [one["instance"] for one in told["workers"]] == ["pi-1"]
    assert _explained(room, "stt-worker", "audio.gain")["value"] == 2


def test_a_model_is_explained_by_its_parts(room: Room) -> None:
    told = _explained(room, "stt-worker@pi-1", "audio")
    assert told["value"] == {"gain": 3, "rate": 8000}
    assert [(one["key"], one["wins"]) for one in told["candidates"]] == [("audio.gain", True), ("audio", True)]


def test_what_all_services_are_told_is_the_last_that_counts(room: Room) -> None:
    told = _explained(room, "tts-worker", "language")
    assert [(one["scope"], one["wins"]) for one in told["candidates"]] == [("_all", True)]
    assert [(one["instance"], one["fate"]) for one in told["workers"]] == [("pi-1", "unknown")]


def test_what_nobody_set_is_its_default(room: Room) -> None:
    told = _explained(room, "tts-worker", "voice")
    assert (told["set"], told["value"], told["candidates"]) == (False, "amy", [])
    assert [(one["fate"], one["value"]) for one in told["workers"]] == [("default", "amy")]


def test_a_secret_is_masked_wherever_it_stands(room: Room) -> None:
    done = room("explain", "stt-worker", "api_key", "--json")
    assert SECRET not in done.out + done.err
    assert done.document()["value"] == MASK
    assert SECRET not in room("explain", "stt-worker", "api_key").out
    revealed = room("explain", "stt-worker", "api_key", "--json", "--reveal", "api_key")
    assert revealed.document()["value"] == SECRET
    assert "audit" in revealed.err
    assert room("explain", "stt-worker", "api_key", "--reveal", "language").code == 2


def test_an_instance_that_never_reported_is_silent(room: Room) -> None:
    (worker,) = _explained(room, "stt-worker", "vad_threshold", "--instance", "nobody")["workers"]
    assert (worker["state"], worker["fate"]) == ("silent", "silent")


def test_a_worker_that_is_gone_is_offline(room: Room) -> None:
    claim = b'{"v":1,"service":"stt-worker","instance":"gone","state":"offline"}'
    topic = Topics().format(PresenceTopic("stt-worker", "gone"))
    room.fleet.broker.publish(topic, claim)
    told = _explained(room, "stt-worker", "vad_threshold", "--instance", "gone")
    room.fleet.broker.publish(topic, b"")
    assert told["workers"][0]["fate"] == "offline"


@pytest.mark.parametrize(
    ("acked", "more", "fate"),
    [
        ("", 7, "silent"),
        ("refused", 7, "refused"),
        ("applied", 7, "applied"),
        # Who lists all that it refuses has what is not among it, whatever it said as it came and long ago.
        ("", 0, "applied"),
        ("refused", 0, "applied"),
    ],
)
def test_a_worker_that_can_not_list_all_that_it_refuses_is_not_taken_to_have_applied_it(
    room: Room, acked: str, more: int, fate: str
) -> None:
    (winner, *_) = _explained(room, "stt-worker", "vad_threshold")["candidates"]
    topic = Topics().format(PresenceTopic("stt-worker", "full"))
    claim = Presence(
        1,
        "stt-worker",
        "full",
        "ready",
        scopes={"stt-worker": ScopeReport(winner["gen"], 1000, "")},
        acked={winner["digest"]: acked} if acked else {},  # type: ignore[dict-item]
        notes=(f"{more} {MORE_REFUSED}",) if more else (),
    )
    room.fleet.broker.publish(topic, encode_presence(claim))
    told = _explained(room, "stt-worker", "vad_threshold", "--instance", "full")
    room.fleet.broker.publish(topic, b"")
    (worker,) = told["workers"]
    assert worker["fate"] == fate
    assert (worker["why"] == NOT_LISTED) is (fate != "applied")


def test_a_key_that_nobody_knows_is_a_no(room: Room) -> None:
    done = room("explain", "stt-worker", "no_such_key", "--json")
    assert done.code == 1
    assert_fits("explain", done.document())
    assert "no schema in use has it" in done.err


def test_without_the_broker_the_replica_explains_and_asks_no_worker(room: Room) -> None:
    told = _explained(room, "stt-worker", "vad_threshold", "--offline")
    assert (told["source"], told["workers"], told["value"]) == ("replica", [], 0.6)
    assert told["candidates"][0]["replaced"]["value"] == 0.55


@pytest.mark.parametrize("words", [("_all", "language"), ("stt-worker@a", "language", "--instance", "b")])
def test_explain_is_of_one_service(room: Room, words: tuple[str, ...]) -> None:
    assert room("explain", *words).code == 2


def test_explain_in_a_pipe_is_a_line_a_layer_and_a_line_a_worker(room: Room) -> None:
    lines = room("explain", "stt-worker", "vad_threshold").rows()
    assert lines[0] == ["stt-worker vad_threshold = 0.6"]
    assert lines[2][:3] == [">", "stt-worker", "0.6"]
    assert "because: noisy kitchen; replaced 0.55 of epoch 1" in lines[2][3]
    assert lines[3][:3] == ["-", "default", "0.5"]
    assert [one[:3] for one in lines[4:]] == [
        ["pi-1", "ready", "applied"],
        ["pi-3", "ready", "pinned"],
        ["pi-4", "ready", "refused"],
    ]


# --- list ----------------------------------------------------------------------------------------------------------


def _listed(room: Room, *words: str) -> Any:
    done = room("list", *words, "--json")
    assert done.code == 0, done.err
    assert_fits("list", done.document())
    return done.document()


def _keys(document: Any) -> list[str]:
    return [f"{one['scope']} {one['key']}" for one in document["values"]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--type", "number"), ["stt-worker vad_threshold", "stt-worker@pi-1 audio.gain"]),
        (("--type", "boolean"), ["stt-worker suppress_echo"]),
        (("--complexity", "advanced"), []),
        (("--writer", "nobody"), []),
        (("--since", "3"), ["stt-worker api_key", "stt-worker audio"]),
        (("--since", "2999-01-01"), []),
        (("stt-worker", "--type", "string"), ["_all language"]),
        (("--type", "password"), ["stt-worker api_key"]),
    ],
)
def test_list_shows_what_is_asked_for(room: Room, words: tuple[str, ...], expected: list[str]) -> None:
    assert sorted(_keys(_listed(room, *words))) == expected


def test_list_shows_what_was_set_in_the_last_hours_and_by_whom(room: Room) -> None:
    assert len(_keys(_listed(room, "--since", "2h"))) == len(_keys(_listed(room, "--writer", "tests"))) == 6


def test_keys_that_nobody_set_are_listed_with_their_defaults(room: Room) -> None:
    document = _listed(room, "tts-worker", "--all")
    assert [(one["service"], one["key"], one["default"]) for one in document["defaults"]] == [
        ("tts-worker", "voice", '"amy"'),
        ("tts-worker", "volume_percent", "100"),
    ]
    assert ["tts-worker", "voice", '"amy"', "", "(default)"] in [row[:5] for row in room("list", "--all").rows()]
    (rate,) = _listed(room, "--all", "--complexity", "advanced")["defaults"] or [None]
    assert rate is None, "audio as a whole is set"


def test_services_and_instances_are_listed(room: Room) -> None:
    assert room("list", "--services").rows() == [["stt-worker", "3", "3", "5", "6"], ["tts-worker", "1", "1", "0", "2"]]
    document = _listed(room, "stt-worker", "--instances")
    assert [(one["instance"], one["state"], one["set"]) for one in document["instances"]] == [
        ("pi-1", "ready", 1),
        ("pi-3", "ready", 0),
        ("pi-4", "ready", 0),
    ]


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--complexity", "hard"), ("--since", "9999999w")])
def test_a_filter_that_means_nothing_is_a_wrong_call(room: Room, words: tuple[str, ...]) -> None:
    assert room("list", *words).code == 2


def test_types_can_not_be_told_without_schemas(room: Room) -> None:
    done = room("list", "--offline", "--type", "number")
    assert done.code == 1
    assert "schema" in done.err


NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["", "-1", "2x", "2 h", "soon", "9" * 400 + "h", "\u0661h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Since.parse(text, NOW)


def test_a_while_is_told_in_its_largest_unit() -> None:
    assert [span(one) for one in (59, 3599, 86_399, 200_000)] == ["59 s", "59 min", "23 h", "2 d"]


def test_below_a_mask_everything_is_masked() -> None:
    assert dig({"a": MASK}, "a.b.c") == MASK
    assert dig({"a": {"b": 1}}, "a.b") == 1
