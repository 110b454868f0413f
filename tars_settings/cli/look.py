"""``get``: what the fleet says of one key; and what ``list`` shares with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.moments import now
from tars_settings.cli.options import CatchUpOption, OfflineOption, RevealOption
from tars_settings.cli.reading import NOTHING, Reading, Values, at, folded, read
from tars_settings.cli.render import value_text
from tars_settings.cli.tried import document as trial_document
from tars_settings.cli.tried import words
from tars_settings.core.names import Scope, check_key, overlap
from tars_settings.core.register import Register
from tars_settings.errors import UsageError
from tars_settings.sources.fold import standing

TargetArgument = Annotated[
    str, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Whose setting; _all for every service")
]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The dotted path of one setting")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "get", get)


def by_key(registers: Iterable[Register]) -> list[Register]:
    """Return the registers that count, by key."""
    return sorted(standing(registers), key=lambda one: one.key)


def told(reading: Reading, register: Register) -> dict[str, Any]:
    """Return what is known of a register besides its value."""
    body = register.delta.body
    return {
        "scope": register.delta.scope,
        "key": register.key,
        "secret": reading.is_secret(register),
        "unset": register.assignment.unset,
        "gen": register.delta.stamp.gen,
        "epoch": register.delta.stamp.epoch,
        "digest": register.delta.stamp.digest.hex(),
        "writer": reading.writer_name(register),
        "at": body.at,
        "by": body.by,
        "reason": body.reason,
        "trial": trial_document(register, now()),
    }


def value_cell(register: Register, value: Any) -> str:
    """Return a value as it is shown in a table, and whether it is on trial."""
    shown = "(unset)" if register.assignment.unset else value_text(value)
    told = words(register, now())
    return f"{shown} ({told})" if told else shown


def check_reveal(reveal: Iterable[str], key: str) -> None:
    """Refuse to reveal what is not shown at all.

    Raises:
        UsageError: a key was named that has nothing to do with the one that is asked for.
    """
    if strangers := [name for name in reveal if not overlap(name, key)]:
        raise UsageError(f"--reveal {', '.join(strangers)}: this is not the key that is asked for")


def say_revealed(common: Common, *values: Values) -> None:
    """Say what was revealed, each once."""
    for where in dict.fromkeys(one for side in values for one in side.revealed):
        common.out.note(f"revealed: {where}; this was noted in the audit trail")


def say_late(common: Common, reading: Reading) -> None:
    """Say what could not be caught up with."""
    for scope, state in reading.states.items():
        if state != "ready":
            common.out.note(f"{scope} could not be caught up with ({state}): values may be missing or old")


def say_how(common: Common, reading: Reading, values: Values) -> None:
    """Say what was revealed, and what could not be caught up with."""
    say_revealed(common, values)
    say_late(common, reading)


def get(
    common: Common,
    target: TargetArgument,
    key: KeyArgument,
    reveal: RevealOption = None,
    offline: OfflineOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Print what the fleet says of one key: instance over service over _all. Exit code 1 where it says nothing.

    Example: tars-settings get stt-worker vad_threshold
    """
    scope = Scope.parse(target)
    check_key(key)
    check_reveal(reveal or (), key)
    reading = read(common, scope, offline=offline, timeout_s=timeout_s).of(scope)
    values = Values(reading, common.environment(), reveal or ())
    contributing = [
        one for winners in reading.scopes.values() for one in by_key(winners.values()) if overlap(one.key, key)
    ]
    state = folded(reading, values) if contributing else {}
    contributing += [one for one in _undone(reading, key) if one not in contributing]
    return _answer(common, reading, values, _Found(scope, key, at(state, key), contributing))


class _Found:
    def __init__(self, scope: Scope, key: str, value: Any, registers: list[Register]) -> None:
        self.scope = scope
        self.key = key
        self.is_set = value is not NOTHING
        self.value = value if self.is_set else None
        self.registers = registers


def _undone(reading: Reading, key: str) -> list[Register]:
    """Return what was on trial and left nothing: that it was is worth a word."""
    found = [one for winners in reading.scopes.values() for one in winners.values() if overlap(one.key, key)]
    return [one for one in found if one.undone and one.assignment.unset]


def _answer(common: Common, reading: Reading, values: Values, found: _Found) -> int:
    common.out.document(
        {
            "source": reading.source,
            "scope": str(found.scope),
            "key": found.key,
            "set": found.is_set,
            "value": found.value,
            "from": [told(reading, one) for one in found.registers],
        }
    )
    if found.is_set:
        common.out.line(value_text(found.value), exact=True)
    else:
        common.out.note(f"the fleet does not set {found.key} for {found.scope}")
    for one in found.registers:
        if tried := words(one, now()):
            common.out.note(f"{one.delta.scope} {one.key} is {tried}; tars-settings confirm {one.delta.scope} keeps it")
    say_how(common, reading, values)
    return 0 if found.is_set else 1
