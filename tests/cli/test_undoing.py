"""Several pushes in a row: the first that does not get through ends them, and what is left is named."""

from __future__ import annotations

from typing import Any

import pytest

from tars_settings.cli.common import INTERRUPTED, Common
from tars_settings.cli.render import Output
from tars_settings.cli.undoing import Push, carry_out, check_unchanged, check_values
from tars_settings.core.delta import Assignment, Ciphertext, Delta
from tars_settings.core.register import Register, Registers
from tars_settings.errors import ConflictError, InvalidValueError, NotGrantedError, SecretKeyMissingError
from tars_settings.writer import Receipt, Report
from tests.fleets import ALICE, SCOPE, delta, set_, unset


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


def held(*deltas: Delta) -> dict[str, Register]:
    registers = Registers()
    for one in deltas:
        registers.offer(one)
    return registers.winners(SCOPE)


def test_a_scope_that_changed_meanwhile_is_not_pushed_to() -> None:
    writer: Any = Pushes()
    writer.view = lambda _: held(delta(ALICE, 1), delta(ALICE, 2))
    check_unchanged(writer, SCOPE, held(delta(ALICE, 1), delta(ALICE, 2)))
    for seen in (held(delta(ALICE, 1)), held(), held(delta(ALICE, 1), delta(ALICE, 2), delta(ALICE, 3, set_("b")))):
        with pytest.raises(ConflictError, match="changed while you looked"):
            check_unchanged(writer, SCOPE, seen)


def test_an_old_value_that_no_schema_in_use_allows_is_refused() -> None:
    schema = b'{"properties":{"vad":{"type":"number","maximum":1},"name":{"type":"string"}}}'
    check_values([set_("vad", 0.5), unset("name")], [schema], [])
    with pytest.raises(InvalidValueError, match="vad"):
        check_values([set_("vad", 7), set_("name", "x")], [schema], [])


def test_a_ciphertext_under_a_key_that_is_not_here_is_refused() -> None:
    item = Assignment("s", secret=Ciphertext("aes256gcm", "k1", b"x" * 30))
    check_values([item], [], ["k1", "k2"])
    with pytest.raises(SecretKeyMissingError, match=r"s \(k1\)"):
        check_values([item], [], ["k2"])


def test_all_that_get_through_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    writer: Any = Pushes("retained", "retained")
    pushes = [Push(scope, (Assignment("k", set=1),)) for scope in ("a", "b")]
    pushed = carry_out(Common(Output()), writer, pushes, waited=False, timeout_s=1)
    assert (pushed.code, len(pushed.documents(waited=False)), pushed.failure) == (0, 2, "")
    assert "not pushed" not in capsys.readouterr().err
