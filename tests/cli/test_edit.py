"""Facts of ``edit``: what is opened, what is pushed of it, and that nothing is left behind."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.cli.demo.workers import SttSettings
from tars_settings.cli.sheet import Row, SheetError, changes, kept, parsed, with_errors, without_errors, written
from tars_settings.join import Live
from tars_settings.schema import schema_of
from tests.cli.documents import assert_fits
from tests.cli.inside import EarSettings, Inside
from tests.cli.running import Cli, Done

MASK = "**********"
SECRET = "sk-robot-0451"
SCHEMA = schema_of(SttSettings)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


# --- the text ------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5})?", fullmatch=True), JSON, max_size=5))
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    rows = {key: Row(key, value, "stt-worker") for key, value in values.items()}
    text = written("Title", rows.values(), [SCHEMA], "stt-worker")
    assert parsed(text) == values
    assert changes(rows, parsed(text), "stt-worker") == ({}, [])
    assert all(line.isprintable() for line in text.split("\n"))
    assert without_errors(with_errors(text, "a: b\nc: d")) == text
    assert parsed(with_errors(text, "x = 1")) == values


def test_each_line_is_told_what_it_takes() -> None:
    text = written("T", [Row("vad_threshold", 0.6, "_all")], [SCHEMA], "stt-worker")
    about, whence, line = text.split("\n\n")[1].split("\n")
    assert about == ("# Speech probability that opens the gate: number, at least 0, at most 1; default 0.5")
    assert whence == "# set by _all; changed here it is set by stt-worker"
    assert line == "vad_threshold = 0.6"
    assert '# backend = "whisper"' in text


def test_a_strangers_schema_writes_no_line_of_its_own() -> None:
    schema = json.dumps(
        {"properties": {"a": {"type": "string", "description": "x\nb = 1\r\x1b[31m\u2028c = 2"}}}
    ).encode()
    text = written("T", [Row("a", "v", "s")], [schema], "s")
    assert parsed(text) == {"a": "v"}
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = word", "line 1: a: its value is no JSON"),
        ("\n\nnothing here", "line 3: expected key = JSON value"),
        ("a = 1 2", "line 1: a: something follows"),
        ("a = 1\na = 2", "line 2: a is there twice"),
        ("a__b = 1", "line 1: a__b can be no key"),
        ("a = NaN", "line 1: a: its value is no JSON"),
    ],
)
def test_what_is_no_sheet_is_told_by_its_line_and_never_by_its_value(text: str, complaint: str) -> None:
    with pytest.raises(SheetError, match=complaint):
        parsed(text)


def test_changes_that_can_not_be_pushed_together_are_refused() -> None:
    before = {"low": Row("low", 1, "_all"), "a.b": Row("a.b", 1, "s"), "key": Row("key", MASK, "s")}
    assert changes(before, {"low": 2, "a": {"b": 1}, "key": MASK}, "s") == ({"low": 2, "a": {"b": 1}}, [])
    for after, complaint in (
        ({"a.b": 1, "key": MASK}, "low: _all sets it"),
        ({"low": 1, "a.b": 2, "a": {}, "key": MASK}, "a: a.b is a part of it"),
        ({"low": MASK, "a.b": 1, "key": MASK}, "low: .* stands for a secret"),
    ):
        with pytest.raises(SheetError, match=complaint):
            changes(before, after, "s")


def test_what_is_kept_holds_no_secret() -> None:
    assert kept(f'# {SECRET}\na = 1\nkey = "{SECRET}" # {SECRET}\n', ["key"]) == f'a = 1\nkey = "{MASK}"\n'


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(inside: Inside) -> Live[SttSettings]:
    return inside.employ("stt-worker", "kitchen")


class Person:
    """Someone who edits: *does* is what happens to ``text`` each time, *code* how the editor ends."""

    def __init__(self, inside: Inside, directory: Path) -> None:
        self.inside = inside
        self.directory = directory
        directory.mkdir()

    def edit(self, does: str, *words: str, code: int = 0, target: str = "stt-worker", yes: bool = True) -> Done:
        script = self.inside.write(
            "editor.py",
            "import os, pathlib, re, subprocess, sys\n"
            f"home = pathlib.Path({str(self.directory)!r})\n"
            "path = pathlib.Path(sys.argv[1])\n"
            "n = len(list(home.glob('*.opened')))\n"
            "text = path.read_text()\n"
            "(home / f'{n}.opened').write_text(text)\n"
            "(home / f'{n}.place').write_text(f'{path} {path.stat().st_mode} {path.parent.stat().st_mode}')\n"
            f"{does}\n"
            "path.write_text(text)\n"
            f"sys.exit({code})\n",
        )
        given = ("--yes",) if yes else ()
        return self.inside("edit", target, *given, *words, EDITOR=f"{sys.executable} -I {script}", VISUAL="")

    def opened(self) -> list[str]:
        """Return what was opened, in order, once everything of it is gone from the disk."""
        for place in self.directory.glob("*.place"):
            path, mode, above = place.read_text().rsplit(" ", 2)
            assert stat.S_IMODE(int(mode)) == 0o600
            assert stat.S_IMODE(int(above)) == 0o700
            assert not Path(path).parent.exists()
        return [one.read_text() for one in sorted(self.directory.glob("*.opened"))]


@pytest.fixture
def person(inside: Inside, tmp_path: Path) -> Person:
    return Person(inside, tmp_path / "person")


def test_the_difference_is_pushed(inside: Inside, worker: Live[SttSettings], person: Person) -> None:
    assert inside("push", "_all", "log_level=WARNING").code == 0
    assert inside("push", "stt-worker", "vad_threshold=0.6", "silence_s=2", f"api_key={SECRET}").code == 0
    done = person.edit(
        "text = text.replace('vad_threshold = 0.6', 'vad_threshold = 0.7').replace('silence_s = 2\\n', '')\n"
        "text = text.replace('= \"WARNING', '= \"DEBUG') + 'common_words_extra = [\\n\"a\"]\\n'",
        "--json",
        "--reason",
        "by hand",
    )
    assert done.code == 0, done.err
    assert_fits("edit", done.document())
    current = worker.current
    assert (current.vad_threshold, current.silence_s, current.log_level) == (0.7, 1.0, "DEBUG")
    assert current.common_words_extra == ["a"]
    assert current.api_key is not None
    assert current.api_key.get_secret_value() == SECRET
    (opened,) = person.opened()
    assert "set by _all; changed here it is set by stt-worker" in opened
    assert f'api_key = "{MASK}"' in opened
    assert SECRET not in opened + done.out + done.err
    assert "vad_threshold: 0.6 -> 0.7" in done.err
    assert "silence_s: 2 -> (not set, default 1.0)" in done.err


def test_a_model_is_opened_leaf_by_leaf(inside: Inside, person: Person) -> None:
    ear = inside.employ("ear", "left", EarSettings)
    assert inside("push", "ear", 'audio={"gain": 2, "rate": 8000}', 'limits={"cpu": 1}').code == 0
    done = person.edit(
        "text = text.replace('audio.gain = 2', 'audio.gain = 3').replace('audio.rate = 8000', '')", target="ear"
    )
    assert done.code == 0, done.err
    assert (ear.current.audio.gain, ear.current.audio.rate, ear.current.limits) == (3, 16_000, {"cpu": 1})
    assert 'limits = {"cpu": 1}' in person.opened()[0]


def test_a_secret_is_replaced_when_it_is_written_anew(
    inside: Inside, worker: Live[SttSettings], person: Person
) -> None:
    assert inside("push", "stt-worker", f"api_key={SECRET}").code == 0
    done = person.edit(f"text = text.replace('{MASK}\"', 'sk-new-0452\"')")
    assert done.code == 0, done.err
    assert worker.current.api_key is not None
    assert worker.current.api_key.get_secret_value() == "sk-new-0452"
    assert "sk-new-0452" not in done.out + done.err


@pytest.mark.parametrize(("does", "code", "expected"), [("text = ''", 0, "emptied"), ("", 3, "ended with 3")])
def test_an_editor_that_fails_or_leaves_nothing_pushes_nothing(
    inside: Inside, worker: Live[SttSettings], person: Person, does: str, code: int, expected: str
) -> None:
    before = inside.signed()
    done = person.edit(does or "text += 'backend = \"ws\"'", code=code)
    assert done.code == 1
    assert expected in done.err
    assert len(person.opened()) == 1
    assert inside.signed() == before


def test_nothing_changed_is_said(inside: Inside, worker: Live[SttSettings], person: Person) -> None:
    before = inside.signed()
    done = person.edit("text = '# a note\\n' + text", "--json")
    assert done.code == 0, done.err
    assert_fits("edit unchanged", done.document())
    assert "nothing was changed" in done.err
    assert inside.signed() == before


def test_what_does_not_fit_is_opened_again_with_the_reason_on_top(
    inside: Inside, worker: Live[SttSettings], person: Person
) -> None:
    done = person.edit(
        "text += 'vad_threshold = 7\\nvad_treshold = 1\\n' if n == 0 else ''\n"
        "text = text.replace('vad_threshold = 7\\nvad_treshold = 1', 'silence_dbfs = -20') if n == 1 else text\n"
        "text = re.sub(r'(?m)^vad_threshold = 0.*$', '', text)"
    )
    assert done.code == 0, done.err
    first, second = person.opened()
    assert not first.startswith("#!")
    assert second.startswith("#! Nothing was pushed. Put this right")
    assert "#! vad_threshold: must be at most 1\n#!     allowed: number, at least 0, at most 1" in second
    assert "did you mean vad_threshold?" in second
    assert worker.current.silence_dbfs == -20


def test_what_stays_wrong_is_given_up(inside: Inside, worker: Live[SttSettings], person: Person) -> None:
    before = inside.signed()
    done = person.edit("text += 'vad_threshold = 7\\nvad_threshold = 8\\n' if n == 0 else ''")
    assert done.code == 1
    assert "is there twice" in done.err
    assert len(person.opened()) == 2
    assert inside.signed() == before


def test_a_conflict_meanwhile_keeps_what_was_edited(
    inside: Inside, worker: Live[SttSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(text: str, name: str) -> str:
        assert inside("push", "stt-worker", "backend=openai").code == 0
        return f"{text}partial_interval_s = 0.9\n# {SECRET}\n"

    monkeypatch.setattr("tars_settings.cli.edit.edited", slowly)
    done = inside("edit", "stt-worker", "--yes")
    assert done.code == 1
    assert "someone was faster" in done.err
    assert "changed backend" in done.err
    path = Path(done.err.partition("is kept in ")[2].split(";")[0].strip())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert parsed(path.read_text())["partial_interval_s"] == 0.9
    assert SECRET not in path.read_text()
    assert worker.current.partial_interval_s != 0.9


def test_nobody_to_ask_is_told_to_say_yes(inside: Inside, worker: Live[SttSettings], person: Person) -> None:
    done = person.edit("text += 'partial_interval_s = 0.8\\n'", yes=False)
    assert done.code == 2
    assert "--yes" in done.err
    assert "is kept in" in done.err


def test_an_edit_can_be_rehearsed(inside: Inside, worker: Live[SttSettings], person: Person) -> None:
    before = inside.signed()
    done = person.edit("text += 'partial_interval_s = 0.7\\n'", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert_fits("edit --dry-run", done.document())
    assert [one["key"] for one in done.document()["changes"]] == ["partial_interval_s"]
    assert inside.signed() == before


def test_an_editor_that_is_not_there_is_the_surroundings(inside: Inside, worker: Live[SttSettings]) -> None:
    done = inside("edit", "stt-worker", EDITOR="/nowhere/editor", VISUAL="")
    assert done.code == 3
    assert "EDITOR" in done.err


def test_the_command_itself_edits(inside: Inside, worker: Live[SttSettings]) -> None:
    cli = Cli(inside.home, inside.keys.environment("ops"))
    script = inside.write("append.sh", '#!/bin/sh\necho "suppress_echo = false" >> "$1"\n', mode=0o700)
    done = cli("edit", "stt-worker", "--yes", VISUAL=str(script))
    assert done.code == 0, done.err
    assert worker.current.suppress_echo is False
