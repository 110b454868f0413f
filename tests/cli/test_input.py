"""Facts of what a push is made of: files, names, types, parts and quorums; no broker is needed for them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field
from rich.console import Console

from tars_settings.cli import carrying, progress
from tars_settings.cli.allowed import allowed, similar, with_allowed
from tars_settings.cli.common import Common, wait_all_as_flag
from tars_settings.cli.files import Content, InputFileError, read_content
from tars_settings.cli.quorum import Quorum
from tars_settings.cli.render import Output
from tars_settings.cli.splitting import parts_of
from tars_settings.cli.wanted import Wanted, check_all, wanted
from tars_settings.core.delta import (
    MAX_ASSIGNMENTS,
    MAX_FANOUT_BYTES,
    Ack,
    Assignment,
    Ciphertext,
    check_fanout,
)
from tars_settings.core.wire import MAX_ENVELOPE_BYTES, encode
from tars_settings.errors import (
    ConfigurationError,
    ConflictError,
    InvalidValueError,
    PlainOrSecretError,
    TooLargeError,
    UsageError,
)
from tars_settings.schema import schema_of, variables_of
from tars_settings.settings import Settings, SettingsConfigDict
from tars_settings.writer import Receipt, Reply, Report
from tests.fleets import ALICE, delta_payload

SECRET = "sk-in-a-file-of-ours"


class Gain(BaseModel):
    db: float = 0


class Ear(Settings):
    model_config = SettingsConfigDict(service="ear", env_prefix="EAR_", env_nested_delimiter="__")

    mode: str = "near"
    gain: Gain = Gain()
    gains: dict[str, Gain] = {}
    other: int = Field(default=1, validation_alias=AliasChoices("THE_OTHER", "OTHER"))


EAR = schema_of(Ear)
PLAIN = schema_of(type("PlainModel", (BaseModel,), {"__annotations__": {"mode": str}}))

# --- files ---------------------------------------------------------------------------------------------------------


def content(tmp_path: Path, name: str, text: str) -> Content:
    (tmp_path / name).write_text(text)
    return read_content(str(tmp_path / name), None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"a": {"b": 1.5}, "when": "2026-01-02", "l": [true, null]}'),
        ("a.yml", "a: {b: 1.5}\nwhen: 2026-01-02\nl: [yes, null]\n"),
    ],
)
def test_each_format_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert content(tmp_path, name, text).tree == {"a": {"b": 1.5}, "when": "2026-01-02", "l": [True, None]}


def test_toml_is_read_where_this_python_can(tmp_path: Path) -> None:
    text = "when = 2026-01-02\n[a]\nb = 1.5\n"
    if sys.version_info < (3, 11) and importlib.util.find_spec("tomli") is None:
        with pytest.raises(ConfigurationError, match="pip install tomli"):
            content(tmp_path, "a.toml", text)
    else:
        assert content(tmp_path, "a.toml", text).tree == {"when": "2026-01-02", "a": {"b": 1.5}}


@pytest.mark.parametrize(("module", "name", "cure"), [("yaml", "a.yaml", "PyYAML"), ("tomllib", "a.toml", "tomli")])
def test_a_format_whose_reader_is_missing_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, cure: str
) -> None:
    for missing in (module, "tomli"):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=f"pip install {cure}"):
        content(tmp_path, name, "a = 1" if module == "tomllib" else "a: 1")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.env", f"A=1\n\n{SECRET}\n", "line 3: expected NAME=value"),
        ("a.json", f'{{"a": 1,\n"b": {SECRET}}}', "line 2"),
        ("a.json", '{"a": 1, "a": 2}', "a is there twice"),
        ("a.json", f'["{SECRET}"]', "expected an object"),
        ("a.json", '{"a": NaN}', "a: not a value that JSON can carry"),
        ("a.yaml", f"a: [{SECRET}", "not YAML, at line 1"),
        ("a.yaml", "a: {yes: 1}", "a: a name is no text"),
        ("a.yaml", f"a: !!binary {SECRET}aaa", "not YAML|not a value"),
        ("a.yaml", "a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("a.yaml", "a: &x [*x]", "nested too deeply|not YAML"),
        ("a.json", "[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_what_is_not_of_its_format_is_told_by_where_and_never_by_what(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        content(tmp_path, name, text)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"missing\.json"):
        read_content(str(tmp_path / "missing.json"), None)
    (tmp_path / "latin.env").write_bytes(b"A=\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        read_content(str(tmp_path / "latin.env"), None)


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_schema_tells_which_variables_reach_its_keys() -> None:
    assert variables_of(EAR) == {
        "EAR_MODE": "mode",
        "EAR_GAIN": "gain",
        "EAR_GAIN__DB": "gain.db",
        "EAR_GAINS": "gains",
        "THE_OTHER": "other",
        "OTHER": "other",
    }
    assert variables_of(PLAIN) == {"MODE": "mode"}


@pytest.mark.parametrize(
    "schema",
    [
        b'{"x-tars-env-prefix":"A_","properties":{"a":true,"b":{"x-tars-env":7}}}',
        b'{"x-tars-env-prefix":"A_","x-tars-env-delimiter":3,"properties":{"a":{"x-tars-env":[1,"C"]}}}',
    ],
)
def test_a_strangers_marks_are_passed_over(schema: bytes) -> None:
    assert all(isinstance(name, str) for name in variables_of(schema))


def test_names_are_read_as_variables_then_as_keys_in_any_case() -> None:
    found = wanted({}, Content(texts={"EAR_GAIN__DB": "2", "Mode": "far", "other": "3"}), [EAR])
    assert (found.values, found.complaints) == ({"gain.db": 2, "mode": "far", "other": 3}, ())
    assert found.notes == ("Mode is taken for mode",)


def test_without_a_schema_names_are_keys_as_they_stand() -> None:
    found = wanted({}, Content(texts={"A": "1"}, tree={}), [])
    assert found.values == {"A": 1}
    assert wanted({}, Content(tree={"a": {"b": 1}}), []).values == {"a": {"b": 1}}


def test_an_object_descends_into_models_and_is_a_value_elsewhere() -> None:
    found = wanted({}, Content(tree={"GAIN": {"Db": 2}, "gains": {"left": {"db": 1}}, "gain.db2": 1}), [EAR])
    assert found.values == {"gain.db": 2, "gains": {"left": {"db": 1}}, "gain.db2": 1}


def test_a_key_that_is_given_twice_is_refused() -> None:
    for content_ in (Content(texts={"EAR_MODE": "a"}), Content(tree={"mode": "a"}), Content(tree={"MODE": "a"})):
        found = wanted({"mode": "b"}, content_, [EAR])
        assert any("mode: given twice" in one for one in found.complaints)


def test_a_variable_that_nobody_has_is_compared_with_those_that_there_are() -> None:
    found = wanted({}, Content(texts={"EAR_GAIN__BD": "2", "EAR_MOD": "x"}, lines={"EAR_MOD": 7}), [EAR])
    told = "\n".join(found.complaints)
    assert "EAR_MOD (line 7) is no setting" in told
    assert "did you mean gain.db" in told
    assert "did you mean mode" in told
    assert similar([EAR], "db") == ("gain.db",)


def test_what_is_allowed_follows_each_complaint() -> None:
    assert allowed([EAR], "gain") == "allowed: an object of db"
    assert allowed([EAR], "nothing") == ""
    assert with_allowed("mode: must be a string\nmood: no", [EAR]).splitlines() == [
        "mode: must be a string",
        '    allowed: string; default "near"',
        "mood: no",
        "    did you mean mode?",
    ]


def test_nothing_follows_a_line_that_names_no_key() -> None:
    lines = ["mode", "Mode!: no", "nothing at all: mode"]
    assert with_allowed("\n".join(lines), [EAR]).splitlines() == lines


def test_what_was_left_out_is_told_after_the_rest() -> None:
    assert Wanted({}, ("one",), ("X", "Y")).told == ("one", "left out, since no worker has it: X, Y")
    assert Wanted({}, ("one",)).told == ("one",)


def test_a_key_that_nobody_described_is_asked_for_and_another_is_offered_where_one_comes_near() -> None:
    with pytest.raises(PlainOrSecretError) as caught:
        check_all((), ("mood", "xyz"), [EAR])
    told = str(caught.value).splitlines()
    assert [line.partition(":")[0].strip() for line in told] == ["mood", "did you mean mode?", "xyz"]
    with pytest.raises(InvalidValueError, match=r"(?s)mode: no.*did you mean mode"):
        check_all(("mode: no",), ("mood",), [EAR])
    check_all((), (), [EAR])


# --- parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("are_secret", [False, True])
@pytest.mark.parametrize("reason", ["", 'ä"' * 256])
def test_what_is_said_to_fit_does(are_secret: bool, reason: str) -> None:
    """Around each of the three limits: keys, bytes, and bytes over the topics."""
    full = 0
    for size in (*range(0, 200, 7), 300, 700, 2_000, 5_500, 11_000, 15_700, 23_800, *range(34_000, 48_000, 500)):
        values = {f"key_{n}": "x" * size for n in range(1 if size > 24_000 else 66)}
        try:
            parts = parts_of(values, values if are_secret else (), reason=reason)
        except TooLargeError:
            assert size > 34_000
            continue
        assert [key for part in parts for key in part] == list(values)
        for part in parts:
            payload = _signed(part, are_secret, reason)
            check_fanout(payload, len(part))
            full += len(part) == MAX_ASSIGNMENTS or len(payload) * len(part) > 0.9 * MAX_FANOUT_BYTES
            full += len(payload) > 0.9 * MAX_ENVELOPE_BYTES
    assert full > 30, "the limits were not reached"


def _signed(part: dict[str, Any], are_secret: bool, reason: str) -> bytes:
    assign = [_assignment(key, value, are_secret) for key, value in part.items()]
    names: dict[str, Any] = {"scope": f"{'s' * 63}@{'i' * 63}", "at": "2026-11-27T23:00:00Z", "by": "b" * 128}
    ack = Ack(2**31, 3600.0)
    return delta_payload(ALICE, 2**53 - 1, *assign, gen=2**31 - 1, trust=2**31, reason=reason, ack=ack, **names)


def _assignment(key: str, value: str, is_secret: bool) -> Assignment:
    if not is_secret:
        return Assignment(key, set=value, over="0" * 64)
    sealed = Ciphertext("xchacha20poly1305", "s" * 63, b"x" * (len(encode(value)) + 40))
    return Assignment(key, secret=sealed, over="0" * 64)


def test_one_value_that_is_too_large_is_named() -> None:
    with pytest.raises(TooLargeError, match="big"):
        parts_of({"small": 1, "big": "x" * 60_000})


# --- waiting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-1", "1.5", "many", "90 percent", "1%%"])
def test_a_quorum_is_a_number_or_a_share(text: str) -> None:
    with pytest.raises(UsageError):
        Quorum.of(text)


@given(st.integers(1, 1000), st.integers(1, 100))
def test_a_share_is_rounded_up(asked: int, percent: int) -> None:
    needed = Quorum.of(f"{percent}%").needed(asked)
    assert 1 <= needed <= asked
    assert needed * 100 >= asked * percent > (needed - 1) * 100


@pytest.mark.parametrize(
    ("text", "applied", "is_reached"),
    [("2", 1, False), ("2", 2, True), ("2", 3, True), ("67%", 2, False), ("66%", 2, True), ("1%", 0, False)],
)
def test_a_quorum_is_reached_by_as_many_as_it_needs(text: str, applied: int, is_reached: bool) -> None:
    report = _report(*(["applied"] * applied), *(["refused"] * (3 - applied)))
    assert Quorum.of(text).is_reached(report) is is_reached


def test_wait_all_is_one_word_of_its_own() -> None:
    assert wait_all_as_flag(["--wait", "all", "--wait=all", "--wait", "x"]) == [
        "--wait-all",
        "--wait-all",
        "--wait",
        "x",
    ]


def _report(*fates: Any) -> Report:
    return Report("retained", replies=tuple(Reply("ear", f"n{n}\x1b", fate) for n, fate in enumerate(fates)), asked=3)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_answers_are_shown_as_they_come_and_nothing_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    seen: list[int] = []
    enough: Callable[[Report], bool] = lambda report: seen.append(report.applied) is None  # noqa: E731
    with progress.Waiting("stt-worker epoch 3", stream=stream) as waiting:
        look = waiting.on_report(enough)
        assert look(_report("silent", "silent"))
        look(_report("applied", "refused", "silent"))
    assert seen == [0, 1]
    if is_terminal:
        assert "ear@n0" in stream.getvalue()
        assert "2/3" in stream.getvalue()
        assert "n0\x1b" not in stream.getvalue()
    else:
        assert stream.getvalue() == ""
    assert Console(file=stream).is_terminal is is_terminal


def test_ctrl_c_says_what_was_done_by_then() -> None:
    course = carrying._Course(parts=3)
    assert "nothing was signed" in carrying._interrupted(course, dry_run=False)
    assert "nothing was signed, and nothing was changed" in carrying._interrupted(course, dry_run=True)
    first, second = (Receipt("ear", ("a",), lambda *_: _report()) for _ in range(2))
    first.epoch, second.epoch = 4, 5
    course.receipt, course.done = first, [(first, _report())]
    assert carrying._interrupted(course, dry_run=False) == (
        "1 of 3 parts were pushed, as epoch 4; 2 were not begun, and can be pushed again\ninterrupted"
    )
    course.receipt = second
    told = carrying._interrupted(course, dry_run=False)
    assert told.startswith("1 of 3 parts were pushed, as epoch 4; 1 were not begun")
    assert "ear epoch 5 is signed and on its way" in told


class _Part:
    """A part of a change whose push fails with *error*, or is done."""

    options: ClassVar[dict[str, Any]] = {}
    notes = ()
    scope = "ear"
    items: ClassVar[dict[str, int]] = {"a": 1, "b": 2}

    def __init__(self, *parts: _Part, error: Exception | None = None) -> None:
        self._parts = parts or (self,)
        self._error = error

    def parts(self) -> list[_Part]:
        return list(self._parts)

    def push(self, *_: Any, **__: Any) -> Receipt:
        if self._error is not None:
            raise self._error
        receipt = Receipt("ear", ("a",), lambda *_: _report("applied"))
        receipt.epoch = 4
        return receipt


@pytest.mark.parametrize(
    ("split", "count", "told"),
    [
        (True, 2, "^no$"),
        (False, 1, "^no$"),
        (True, 1, "^no$"),
        (False, 2, "--split"),
    ],
)
def test_what_does_not_fit_is_told_with_a_split_where_there_is_one_and_none_was_made(
    split: bool, count: int, told: str
) -> None:
    part: Any = _Part(*[_Part()] * count, error=TooLargeError("no"))
    with pytest.raises(TooLargeError, match=told):
        carrying._signed(None, part, carrying.How(split=split), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(("done", "told"), [(0, ""), (1, "1 of 3 parts were pushed, as epoch 4; 2 were not begun")])
def test_an_error_half_way_says_what_was_pushed_and_one_at_once_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], done: int, told: str
) -> None:
    failing = _Part(error=ConflictError("somebody was faster"))
    change: Any = _Part(*[_Part()] * done, *[failing] * (3 - done))
    monkeypatch.setattr(carrying, "session", lambda *_, **__: contextlib.nullcontext())
    how = carrying.How(wait="nobody", split=True)
    with pytest.raises(ConflictError):
        carrying.carry_out(Common(Output()), lambda _: change, how)
    said = capsys.readouterr().err
    assert told in said
    assert ("parts were pushed" in said) is bool(told)


@pytest.mark.parametrize(("quorum", "is_enough"), [(None, False), ("1", True), ("2", False)])
def test_a_wait_ends_early_for_a_quorum_alone(quorum: str | None, is_enough: bool) -> None:
    class Waited:
        spread_s = 0.5

        def wait(self, timeout_s: float, *, enough: Callable[[Report], bool]) -> bool:
            assert timeout_s == 5.5
            return enough(_report("applied", "silent"))

    how = carrying.How(quorum=None if quorum is None else Quorum.of(quorum))
    assert carrying._awaited(Waited(), how, "ear epoch 4") is is_enough  # type: ignore[arg-type, comparison-overlap]
