"""Several pushes in a row: the first that does not get through ends them, and what is left is named."""

from __future__ import annotations

from typing import Any

import pytest

from tars_settings.cli.common import INTERRUPTED, Common
from tars_settings.cli.render import Output
from tars_settings.cli.undoing import Push, carry_out
from tars_settings.core.delta import Assignment
from tars_settings.errors import NotGrantedError
from tars_settings.writer import Receipt, Report


class Pushes:
    """A writer whose pushes end as they are told to."""

    def __init__(self, *fates: Any) -> None:
        self.fates = list(fates)
        self.asked: list[str] = []

    def push_as_is(self, scope: str, assign: tuple[Assignment, ...], **_: Any) -> Receipt:
        self.asked.append(scope)
        fate = self.fates.pop(0)
        if isinstance(fate, BaseException):
            raise fate
        return Receipt(scope, tuple(one.key for one in assign), lambda *_: Report(fate))


@pytest.mark.parametrize(
    ("fate", "code", "said"),
    [
        (NotGrantedError("no"), 1, "b: no"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted at b"),
        ("superseded", 1, "superseded"),
    ],
)
def test_the_first_that_does_not_get_through_ends_it(
    fate: Any, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    writer: Any = Pushes("retained", fate, "retained")
    pushes = [Push(scope, (Assignment("k", set=1),)) for scope in ("a", "b", "c")]
    pushed = carry_out(Common(Output()), writer, pushes, waited=False, timeout_s=1)
    assert (pushed.code, writer.asked) == (code, ["a", "b"])
    told = capsys.readouterr().err
    assert said in told
    assert "pushed: a" in told
    assert "not pushed: " in told
    assert told.rstrip().endswith("c")


def test_all_that_get_through_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    writer: Any = Pushes("retained", "retained")
    pushes = [Push(scope, (Assignment("k", set=1),)) for scope in ("a", "b")]
    pushed = carry_out(Common(Output()), writer, pushes, waited=False, timeout_s=1)
    assert (pushed.code, len(pushed.documents(waited=False)), pushed.failure) == (0, 2, "")
    assert "not pushed" not in capsys.readouterr().err
