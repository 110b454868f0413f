from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tars_settings.cli.app import app
from tars_settings.cli.demo.stage import in_force
from tars_settings.cli.founding import quoted
from tars_settings.cli.reading import put
from tars_settings.cli.render import Output, Table, draw, printable
from tars_settings.cli.values import assignments, guess, typed
from tars_settings.errors import InvalidValueError, UsageError
from tests.cli.documents import SCHEMA, complaints

NUMBER = json.dumps({"properties": {"a": {"type": "number", "maximum": 1}}}).encode()
STRING = json.dumps({"properties": {"a": {"type": "string"}}}).encode()


@given(st.text())
def test_printable_text_steers_nothing(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert all(not "\x80" <= c <= "\x9f" for c in shown)


@given(st.text(alphabet=st.characters(exclude_characters="\0")))
def test_a_quoted_word_is_one_word(text: str) -> None:
    import shlex

    assert shlex.split(f"x={quoted(text)}") == [f"x={text}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("true", True),
        ("null", None),
        ('"1"', "1"),
        ("base.en", "base.en"),
        ("", ""),
        ("Infinity", "Infinity"),
        ("{", "{"),
        ("[1, 2]", [1, 2]),
    ],
)
def test_a_value_nobody_describes_is_json_where_it_is_json(text: str, value: object) -> None:
    assert guess(text) == value
    assert type(guess(text)) is type(value)


def test_an_assignment_is_cut_at_its_first_equals_sign() -> None:
    assert assignments(["url=http://x/?a=b", "empty="]) == {"url": "http://x/?a=b", "empty": ""}
    with pytest.raises(UsageError):
        assignments(["a"])


def test_schemas_that_disagree_are_not_guessed_between() -> None:
    assert typed({"a": "0.5"}, [NUMBER]) == {"a": 0.5}
    assert typed({"a": "0.5"}, [STRING]) == {"a": "0.5"}
    with pytest.raises(InvalidValueError, match="--model"):
        typed({"a": "0.5"}, [NUMBER, STRING])
    with pytest.raises(InvalidValueError, match="at most 1"):
        typed({"a": "7"}, [NUMBER])
    assert typed({"b": "7"}, [NUMBER]) == {"b": 7}


def test_a_dotted_path_makes_objects_on_its_way() -> None:
    state: dict[str, object] = {"a": 1}
    put(state, ["a", "b", "c"], 2)
    assert state == {"a": {"b": {"c": 2}}}


def test_a_table_is_legible_at_80_columns_without_colour() -> None:
    out = io.StringIO()
    row = ("stt-worker@kitchen", "refused", "x" * 200, "[bold]not markup[/bold]")
    draw(Console(file=out, width=80, highlight=False), Table(("worker", "fate", "note", "more"), (row,)))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "\x1b" not in out.getvalue()
    assert "[bold]" in out.getvalue()


def test_a_pipe_gets_one_line_a_row() -> None:
    out = io.StringIO()
    Output(stdout=out).table(Table(("a", "b"), (("1\n2", "x\ty"),)))
    assert out.getvalue() == "1; 2\tx\\ty\n"


def test_with_json_only_the_document_is_written() -> None:
    out = io.StringIO()
    output = Output(as_json=True, stdout=out)
    output.table(Table(("a",), (("1",),)))
    output.line("x")
    output.document({"a": "\u202e"})
    assert json.loads(out.getvalue()) == {"a": "\u202e"}
    assert out.getvalue().isascii()


def test_a_segment_that_the_index_names_no_more_is_not_in_force() -> None:
    index = json.dumps({"body": {"segments": [{"n": 2}]}}).encode()
    head = "p/stt-worker/_head/abc"
    topics = {head: index, f"{head}/1": b"", f"{head}/2": b"", "p/stt-worker/_schema/x": b"", "p/stt-worker/key": b""}
    assert set(in_force(topics)) == {head, f"{head}/2", "p/stt-worker/key"}


def test_the_documents_schema_finds_what_is_wrong() -> None:
    good = {"error": {"kind": "X", "message": "", "exit_code": 1}}
    assert complaints("error", good) == []
    assert complaints("error", {"error": {"kind": "X", "message": ""}})
    assert complaints("error", {"error": {**good["error"], "exit_code": "1"}})
    assert complaints("error", {"error": {**good["error"], "more": 1}}) == ["$.error.more is not described"]
    groups = {one.name: one.typer_instance for one in app.registered_groups}
    commands = {one.name for one in app.registered_commands}
    assert {name.partition(" ")[0] for name in SCHEMA["properties"]} == {"error", *commands, *groups}
    keys = groups["keys"]
    assert keys is not None
    assert {f"keys {one.name}" for one in keys.registered_commands} <= set(SCHEMA["properties"])
