"""Changes to old or kept values: shown first, then pushed, one scope at a time, and told what became of each push."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tars_settings.cli import outcome
from tars_settings.cli.common import INTERRUPTED, Common
from tars_settings.cli.reading import Reading, Values
from tars_settings.cli.render import Table, rows_of, value_text
from tars_settings.core.delta import Assignment, Ciphertext
from tars_settings.core.names import Scope
from tars_settings.core.register import Register
from tars_settings.core.undo import Change
from tars_settings.errors import ConflictError, SecretKeyMissingError, TarsSettingsError
from tars_settings.writer import Receipt, Report, Writer
from tars_settings.writer.values import checked_by

NOT_SET = "(not set)"


@dataclass(frozen=True)
class Push:
    """One push to come: what, where and why."""

    scope: str
    assign: tuple[Assignment, ...]
    reason: str = ""
    by: str | None = None


@dataclass
class Pushed:
    """What became of the pushes so far."""

    results: list[tuple[Receipt, Report]] = field(default_factory=list)
    failure: str = ""
    code: int = 0

    def documents(self, *, waited: bool) -> list[dict[str, Any]]:
        """Return the document of each push that was signed."""
        return [outcome.document(receipt, report, waited=waited) for receipt, report in self.results]


def shown(values: Values, register: Register | None) -> str:
    """Return what a register says, as it may be shown."""
    return NOT_SET if register is None or register.assignment.unset else value_text(values.shown(register))


def change_table(changes: Iterable[Change], values: Values, *, then: str) -> Table:
    """Return one row a key: what it says now, and what it is to say."""
    rows = [(one.key, shown(values, one.now), shown(values, one.then)) for one in changes]
    return Table(("key", "now", then), rows_of(rows))


def change_documents(changes: Iterable[Change], values: Values, reading: Reading) -> list[dict[str, Any]]:
    """Return what :func:`change_table` shows."""
    return [
        {
            "key": one.key,
            "secret": any(reading.is_secret(side) for side in (one.now, one.then) if side is not None),
            "now": _side(one.now, values),
            "then": _side(one.then, values),
        }
        for one in changes
    ]


def _side(register: Register | None, values: Values) -> dict[str, Any]:
    is_set = register is not None and not register.assignment.unset
    return {"set": is_set, "value": values.shown(register) if register is not None and is_set else None}


def check_values(assign: Sequence[Assignment], schemas: Sequence[bytes], held: Iterable[str]) -> None:
    """Refuse what no worker could use: values that fit no schema in use, ciphertexts under a key that is gone.

    *held* are the secret key ids of this host: those that workers read.

    Raises:
        InvalidValueError: all bad keys are named together.
        SecretKeyMissingError: a secret is encrypted under a key that this host does not hold.
    """
    checked_by(schemas, {item.key: item.set for item in assign if not item.unset and not item.is_secret})
    here = set(held)
    lost = [f"{item.key} ({item.secret.id})" for item in assign if _is_lost(item, here)]  # type: ignore[union-attr]
    if lost:
        raise SecretKeyMissingError(
            f"encrypted under a secret key that this host does not hold: {', '.join(lost)}. "
            "Set those anew with push, or add the key to TARS_SETTINGS_SECRET_KEYS"
        )


def _is_lost(item: Assignment, held: set[str]) -> bool:
    return isinstance(item.secret, Ciphertext) and item.secret.id not in held


def schemas_of(writer: Writer, scope: str) -> list[bytes]:
    """Return the schemas that the workers of a scope published."""
    service = Scope.parse(scope).service
    return [] if service is None else writer.schemas(service)


def check_unchanged(writer: Writer, scope: str, seen: dict[str, Register]) -> None:
    """Refuse when a scope is not any more what was shown.

    Raises:
        ConflictError: someone else wrote meanwhile; nothing was signed.
    """
    now = {key: one.delta.stamp for key, one in writer.view(scope).items()}
    if now != {key: one.delta.stamp for key, one in seen.items()}:
        raise ConflictError(f"{scope} changed while you looked: nothing was pushed; look again")


def carry_out(common: Common, writer: Writer, pushes: Sequence[Push], *, waited: bool, timeout_s: float) -> Pushed:
    """Push one after the other, and say what became of each; the first that does not get through ends it."""
    pushed = Pushed()
    for push in pushes:
        try:
            receipt = writer.push_as_is(push.scope, push.assign, reason=push.reason, by=push.by)
            report = receipt.wait(timeout_s, "applied" if waited else "retained")
        except TarsSettingsError as error:
            pushed.failure, pushed.code = f"{push.scope}: {error}", error.exit_code
        except KeyboardInterrupt:
            pushed.failure, pushed.code = f"interrupted at {push.scope}", INTERRUPTED
        else:
            pushed.results.append((receipt, report))
            if waited:
                common.out.table(outcome.table(report))
            common.out.note(outcome.verdict(receipt, report, waited=waited))
            pushed.code = outcome.exit_code(report)
        if pushed.code:
            break
    _say_what_is_left(common, pushes, pushed)
    return pushed


def _say_what_is_left(common: Common, pushes: Sequence[Push], pushed: Pushed) -> None:
    if pushed.failure:
        common.out.note(pushed.failure)
    left = pushes[len(pushed.results) :]
    if pushed.code and left and len(pushes) > 1:
        done = ", ".join(dict.fromkeys(receipt.scope for receipt, _ in pushed.results)) or "nothing"
        not_done = ", ".join(dict.fromkeys(push.scope for push in left))
        common.out.note(f"pushed: {done}; not pushed: {not_done}")
