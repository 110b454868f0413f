"""Facts of search: what is found by which words, and what never is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tars_settings.adapters import fulltext
from tars_settings.cli import search
from tars_settings.cli.render import MASK, Marked, styled
from tars_settings.errors import SurroundingsError
from tests.cli.documents import assert_fits
from tests.cli.room import Room, Stt, Tts, open_room

SECRET = "sk-robot-0451"


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """Two services that described themselves, a value, a secret, and a key that no schema has."""
    with open_room() as room:
        room.employ(Stt, "pi-1")
        room.employ(Tts, "pi-1")
        room.until_described("stt-worker", "tts-worker")
        room.fleet.push("stt-worker", {"language": "klingon", "api_key": SECRET})
        room.fleet.writer.push("_all", {"mood": "cheerful"}, plain=["mood"]).wait(10)
        yield room


def _found(room: Room, *words: str) -> Any:
    done = room("search", *words, "--json")
    assert_fits("search", done.document())
    assert done.code == (0 if done.document()["found"] else 1)
    return done.document()["found"]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("gate",), "stt-worker vad_threshold"),
        (("microphone",), "stt-worker audio.rate"),
        (("Hz",), "stt-worker audio.rate"),
        (("amplify", "recognition"), "stt-worker audio.gain"),
        (("fr",), "stt-worker language"),
        (("klingon",), "stt-worker language"),
        (("amy",), "tts-worker voice"),
        (("cheerful",), "_all mood"),
        (("tts", "volume"), "tts-worker volume_percent"),
    ],
)
def test_a_setting_is_found_by_whatever_is_said_of_it(room: Room, words: tuple[str, ...], first: str) -> None:
    found = _found(room, *words)
    assert found
    assert f"{found[0]['service']} {found[0]['key']}" == first


def test_what_was_meant_is_marked_in_the_document(room: Room) -> None:
    (found,) = _found(room, "opens", "gate")
    assert [found["snippet"][begin:end] for begin, end in found["marks"]] == ["opens", "gate"]


def test_a_secret_is_not_found_by_its_value(room: Room) -> None:
    assert _found(room, SECRET) == []
    (found,) = _found(room, "api_key")
    assert (found["secret"], [one["value"] for one in found["values"]]) == (True, [MASK])


def test_a_search_can_be_kept_to_a_service_and_short(room: Room) -> None:
    assert {one["service"] for one in _found(room, "the", "--service", "tts-worker")} <= {"tts-worker", "_all"}
    assert len(_found(room, "the", "--most", "1")) == 1


def test_words_of_the_query_language_are_words(room: Room) -> None:
    assert room("search", 'gate" AND (').code == 0
    assert room("search", '"*"').code == 1


def test_found_settings_are_one_line_each_in_a_pipe(room: Room) -> None:
    done = room("search", "gate")
    assert done.rows() == [["stt-worker vad_threshold", "0.5", "Speech probability that opens the gate"]]


def test_a_marked_word_stands_out_on_a_terminal() -> None:
    text = styled(Marked("opens the gate", ((10, 14),)))
    assert [(span.start, span.end, span.style) for span in text.spans] == [(10, 14, "bold")]
    assert styled(Marked("\x1b gate", ((2, 6),))).spans == [], "an escape would shift it"


def test_without_full_text_the_command_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any, **__: Any) -> fulltext.FullText:
        raise SurroundingsError("built without FTS5")

    monkeypatch.setattr(search, "FullText", lacking)
    done = room("search", "gate", "--json")
    assert done.code == 3
    assert_fits("error", done.document())
