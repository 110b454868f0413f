"""``edit``: what the fleet says to a service, in the person's editor; the difference is pushed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tars_settings.adapters.statedir import private_dir
from tars_settings.cli import differences
from tars_settings.cli.allowed import is_model
from tars_settings.cli.carrying import carry_out
from tars_settings.cli.change import Change
from tars_settings.cli.common import Common, command
from tars_settings.cli.editor import edited
from tars_settings.cli.look import say_late
from tars_settings.cli.options import (
    ByOption,
    PlainOption,
    QuorumOption,
    ReasonOption,
    RehearseOption,
    SecretOption,
    SplitOption,
    WaitAllOption,
    WaitOption,
)
from tars_settings.cli.push import TargetArgument, TimeoutOption, Told, how_of, published
from tars_settings.cli.ratify import confirmed
from tars_settings.cli.reading import NOTHING, Reading, Values, at, bearing_on, folded
from tars_settings.cli.session import session
from tars_settings.cli.sheet import Row, SheetError, changes, kept, parsed, with_errors, without_errors, written
from tars_settings.cli.values import checked_keys
from tars_settings.cli.wanted import check_all
from tars_settings.core.names import Scope
from tars_settings.errors import RefusedError, TarsSettingsError
from tars_settings.schema import check
from tars_settings.sources.environment import Environment

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Push without asking")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "edit", edit)


@dataclass(frozen=True)
class _Seen:
    """What the fleet said when the text was opened."""

    scope: Scope
    epoch: int
    reading: Reading
    schemas: tuple[bytes, ...]
    rows: Mapping[str, Row]


def edit(
    common: Common,
    target: TargetArgument,
    reason: ReasonOption = "",
    by: ByOption = None,
    secret: SecretOption = None,
    plain: PlainOption = False,
    yes: YesOption = False,
    split: SplitOption = False,
    dry_run: RehearseOption = False,
    wait: WaitOption = True,
    wait_all: WaitAllOption = False,
    quorum: QuorumOption = None,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Open what the fleet says to a service in $VISUAL or $EDITOR, and push the difference.

    A changed or new line sets its key, a line that was taken out unsets it. Secrets are masked, and stay as they are
    unless they are replaced. Exit code 1 where the editor fails or the text is emptied: then nothing is pushed.

    Example: tars-settings edit stt-worker
    """
    scope, secrets = Scope.parse(target), checked_keys(secret or ())
    how = how_of(wait=wait, wait_all=wait_all, quorum=quorum, timeout_s=timeout_s, split=split, dry_run=dry_run)
    seen = _look(common, scope)
    options: dict[str, Any] = {"reason": reason, "by": by, "expect_epoch": seen.epoch}
    sheet = _Sheet(seen, secrets, plain=plain)
    change = sheet.edited(options)
    if not change.items:
        common.out.document({"scope": str(scope), "changed": False})
        common.out.note("nothing was changed, and nothing is pushed")
        return 0
    environment = common.environment()
    try:
        if not dry_run:
            told = differences.differences(seen.reading, environment, change)
            common.out.note(differences.as_text(told, seen.schemas))
            confirmed(common, f"Push this to {scope}?", yes=yes)
        return carry_out(common, lambda _: change, how)
    except TarsSettingsError as error:
        raise _with_text(error, environment, sheet, change) from None


def _look(common: Common, scope: Scope) -> _Seen:
    with session(common, read_only=False) as writer:
        schemas = tuple(published(writer, scope))
        reading = differences.reading_for(writer, scope, schemas)
        say_late(common, reading)
        rows = {row.key: row for row in _rows(reading, writer.environment, scope, schemas)}
        return _Seen(scope, writer.epoch(str(scope)), reading, schemas, rows)


def _rows(reading: Reading, environment: Environment, scope: Scope, schemas: Sequence[bytes]) -> Iterator[Row]:
    """Yield the values that the scopes say together, each with the scope that says it."""
    values = Values(reading, environment)
    by_scope = {
        name: folded(Reading(reading.trust, {name: winners}, "broker", schemas=reading.schemas), values)
        for name, winners in reading.scopes.items()
    }
    keys = {key for winners in reading.scopes.values() for key in winners}

    def descends(key: str) -> bool:
        return any(is_model(schema, key) for schema in schemas) or any(one.startswith(f"{key}.") for one in keys)

    for key, value in _leaves(folded(reading, values), "", descends):
        said_by = [name for name in bearing_on(scope) if at(by_scope[name], key) is not NOTHING]
        yield Row(key, value, said_by[-1] if said_by else str(scope))


def _leaves(state: Mapping[str, Any], above: str, descends: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value and descends(key):
            yield from _leaves(value, f"{key}.", descends)
        else:
            yield key, value


class _Sheet:
    """The text and what is made of it; opened again until it is right, or given up."""

    def __init__(self, seen: _Seen, secrets: Sequence[str], *, plain: bool) -> None:
        self._seen = seen
        self._secrets = secrets
        self._plain = plain
        self.text = ""

    def edited(self, options: Mapping[str, Any]) -> Change:
        """Return the change that the person made; an empty one where nothing was changed.

        Raises:
            RefusedError: the editor failed, the text was emptied, or it was left as wrong as it was.
        """
        seen = self._seen
        name = f"{str(seen.scope).replace('@', '-at-')}.conf"
        opened = written(
            f"What the fleet says to {seen.scope}, epoch {seen.epoch}",
            seen.rows.values(),
            seen.schemas,
            str(seen.scope),
        )
        while True:
            left = edited(opened, name)
            self.text = without_errors(left)
            try:
                return self._change(options)
            except SheetError as error:
                complaints = str(error)
            if left == opened:
                raise RefusedError(f"it was left as it was; nothing was pushed\n{complaints}")
            opened = with_errors(self.text, complaints)

    def _change(self, options: Mapping[str, Any]) -> Change:
        seen = self._seen
        scope = str(seen.scope)
        put, gone = changes(seen.rows, parsed(self.text), scope)
        complaints = [
            f"{key}: {said}"
            for key, value in put.items()
            for said in dict.fromkeys(said for schema in seen.schemas for said in check(schema, key, value))
        ]
        told = Told.by(seen.reading.scopes[scope], put, seen.schemas)
        secret = {*(key for key in self._secrets if key in put), *told.secret}
        undescribed = () if self._plain else sorted(told.undescribed - secret)
        try:
            check_all(complaints, undescribed, seen.schemas)
        except RefusedError as error:
            raise SheetError(str(error).splitlines()) from None
        open_ = frozenset((told.plain | told.undescribed) - secret)
        return Change(seen.scope, scope, put, tuple(gone), frozenset(secret), open_, options, schemas=seen.schemas)


def _with_text(error: TarsSettingsError, environment: Environment, sheet: _Sheet, change: Change) -> TarsSettingsError:
    """Return the error with where the edited text was kept: nobody types it twice."""
    try:
        path = _keep(environment, str(change.scope), kept(sheet.text, change.secret))
    except (OSError, TarsSettingsError, SheetError):
        return error
    masked = "; secrets that were typed are not in it" if change.secret else ""
    return type(error)(f"{error}\nWhat was edited is kept in {path}{masked}")


def _keep(environment: Environment, scope: str, text: str) -> Path:
    directory = private_dir(environment.state_dir)
    handle, name = tempfile.mkstemp(prefix=f"edit-{scope.replace('@', '-at-')}-", suffix=".conf", dir=directory)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
