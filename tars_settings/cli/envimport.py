"""A ``.env`` file becomes pushes: typed by the schema in use, secrets encrypted, each line that was left named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tars_settings.cli import outcome
from tars_settings.cli.common import INTERRUPTED, Common
from tars_settings.cli.envfile import EnvFile, Left, Line, Why, read_env, repeated
from tars_settings.cli.push import published
from tars_settings.cli.render import MASK, Table, rows_of, several, value_text
from tars_settings.cli.session import session
from tars_settings.cli.values import checked_keys, guess, model_of, typed
from tars_settings.core.delta import MAX_ASSIGNMENTS
from tars_settings.core.names import Scope, is_key
from tars_settings.errors import InvalidValueError, TooLargeError, UsageError
from tars_settings.schema import is_secret, schema_of, values_for, variables_of
from tars_settings.settings import Settings, service_of
from tars_settings.writer import Receipt, Report, Writer

_QUIET: Final = frozenset({"comment"})


@dataclass(frozen=True)
class EnvOptions:
    """What was said about a ``.env`` file, and how to push it."""

    scope: str
    prefix: str | None = None
    model: str | None = None
    secret: tuple[str, ...] = ()
    plain: bool = False
    reason: str = ""
    by: str | None = None
    dry_run: bool = False
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Entry:
    """A line that is to be pushed."""

    line: Line
    key: str
    value: Any
    secret: bool

    @property
    def shown(self) -> Any:
        """The value that may be shown."""
        return MASK if self.secret else self.value


@dataclass(frozen=True)
class Known:
    """What is known of the service: its class or the schemas of its workers, and which keys are encrypted already."""

    schemas: tuple[bytes, ...] = ()
    model: type[Settings] | None = None
    encrypted: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()

    def variables(self, prefix: str | None) -> dict[str, str]:
        """Return the key of each variable, in upper case; an empty one where the schemas do not agree.

        Schemas are not signed. One that a stranger published must not send a line anywhere that the others would not.
        """
        told = [variables_of(schema, prefix) for schema in self.schemas]
        names = {name for one in told for name in one}
        keys = {name: {one.get(name, "") for one in told} for name in names}
        return {name: found.pop() if len(found) == 1 else "" for name, found in keys.items()}

    def is_secret(self, key: str) -> bool:
        """Return whether a schema or an earlier delta calls a key a secret."""
        return key in self.encrypted or any(is_secret(schema, key) is True for schema in self.schemas)

    def is_described(self, key: str) -> bool:
        """Return whether a schema or an earlier delta says whether a key is a secret."""
        return key in self.held or any(is_secret(schema, key) is not None for schema in self.schemas)

    def value(self, key: str, text: str) -> Any:
        """Return the value that a text means.

        Raises:
            InvalidValueError: it does not fit; the message does not hold it.
        """
        complaint = ""
        try:
            return typed({key: text}, self.schemas)[key]
        except InvalidValueError as error:
            complaint = str(error)
        if self.model is None:
            raise InvalidValueError(complaint)
        return values_for(self.model, {key: text})[key]  # a validator of its own may read it


@dataclass(frozen=True)
class Plan:
    """What is to be pushed, what was left, and notes."""

    entries: tuple[Entry, ...]
    left: tuple[Left, ...]
    notes: tuple[tuple[int, str], ...]


def plan(found: EnvFile, known: Known, options: EnvOptions) -> Plan:
    """Return what becomes of each line."""
    names = known.variables(options.prefix)
    entries: dict[str, Entry] = {}
    left = list(found.left)
    for line in found.lines:
        key = names.get(line.name.upper()) if known.schemas else _by_rule(line.name, options.prefix or "")
        reason = _unfit(key, known, options)
        if key is None or reason is not None:
            left.append(Left(line.number, line.name, *(reason or ("unknown", "no setting"))))
            continue
        secret = key in options.secret or known.is_secret(key)
        try:
            entry = Entry(line, key, known.value(key, line.value) if known.schemas else guess(line.value), secret)
        except InvalidValueError as error:
            left.append(Left(line.number, line.name, "does not fit", outcome.one_line(str(error))))
            continue
        if (earlier := entries.pop(key, None)) is not None:
            left.append(repeated(earlier.line, line.number))
        entries[key] = entry
    return Plan(tuple(entries.values()), tuple(sorted(left, key=lambda one: one.number)), found.notes)


def _by_rule(name: str, prefix: str) -> str | None:
    """Return the key that a variable is likely to mean, where nobody described any."""
    if not name.upper().startswith(prefix.upper()):
        return None
    key = name[len(prefix) :].lower().replace("__", ".")
    return key if is_key(key) else None


def _unfit(key: str | None, known: Known, options: EnvOptions) -> tuple[Why, str] | None:
    if key == "":
        return "undescribed", "the schemas in use do not agree on what it sets; name the class with --model"
    if key is None:
        whose = options.scope if known.schemas else f"{options.prefix or ''}NAME"
        return "unknown", f"{whose} has no such setting" if known.schemas else f"it is not of the form {whose}"
    if not known.is_described(key) and key not in options.secret and not options.plain:
        return "undescribed", f"nobody described {key}: say --secret {key}, or --plain where nothing of it is one"
    return None


# --- the command ------------------------------------------------------------------------------------------------------


def run(common: Common, path: Path, options: EnvOptions) -> int:
    """Push what the file sets, or show it with ``dry_run``; return the exit code."""
    found = read_env(path)
    secret = checked_keys(options.secret)
    model = None if options.model is None else model_of(options.model)
    service = Scope.parse(options.scope).service
    if model is not None and service_of(model) not in (None, service):
        raise UsageError(f"--model {options.model}: it belongs to another service than {options.scope}")
    if model is not None and options.dry_run:
        planned = plan(found, Known((schema_of(model),), model), options)
        return _tell(common, path, options, planned, [])
    with session(common, read_only=options.dry_run) as writer:
        planned = plan(found, _known(writer, options.scope, model), options)
        if strangers := sorted(set(secret) - {entry.key for entry in planned.entries}):
            raise UsageError(f"--secret {', '.join(strangers)}: this file does not set it")
        pushed: list[tuple[Receipt, Report]] = []
        try:
            if not options.dry_run:
                _push_all(writer, planned.entries, options, pushed)
        except KeyboardInterrupt:
            done = ", ".join(f"epoch {receipt.epoch}" for receipt, _ in pushed) or "nothing"
            common.out.note(
                f"interrupted: pushed so far: {done}; tars-settings list {options.scope} shows what is there"
            )
            return INTERRUPTED
    return _tell(common, path, options, planned, pushed)


def _known(writer: Writer, scope: str, model: type[Settings] | None) -> Known:
    schemas = [schema_of(model)] if model is not None else published(writer, Scope.parse(scope))
    writer.sync(scope)
    held = writer.view(scope)
    encrypted = frozenset(key for key, one in held.items() if one.assignment.is_secret)
    return Known(tuple(schemas), model, encrypted, frozenset(held))


def _push_all(
    writer: Writer, entries: Sequence[Entry], options: EnvOptions, pushed: list[tuple[Receipt, Report]]
) -> None:
    """Push in as few deltas as there can be; each is seen whole or not at all, all of them together are not."""
    for start in range(0, len(entries), MAX_ASSIGNMENTS):
        _push_some(writer, entries[start : start + MAX_ASSIGNMENTS], options, pushed)


def _push_some(
    writer: Writer, entries: Sequence[Entry], options: EnvOptions, pushed: list[tuple[Receipt, Report]]
) -> None:
    try:
        receipt = writer.push(
            options.scope,
            {entry.key: entry.value for entry in entries},
            secret={entry.key for entry in entries if entry.secret},
            plain={entry.key for entry in entries if not entry.secret},
            reason=options.reason,
            by=options.by,
        )
    except TooLargeError:
        if len(entries) == 1:
            raise
        half = len(entries) // 2
        _push_some(writer, entries[:half], options, pushed)
        _push_some(writer, entries[half:], options, pushed)
        return
    pushed.append((receipt, receipt.wait(options.timeout_s)))


def _tell(
    common: Common, path: Path, options: EnvOptions, planned: Plan, pushed: Sequence[tuple[Receipt, Report]]
) -> int:
    common.out.document(
        {
            "file": str(path),
            "scope": options.scope,
            "dry_run": options.dry_run,
            "set": [_told(entry) for entry in planned.entries],
            "left": [_told_left(left) for left in planned.left],
            "notes": [{"line": number, "note": note} for number, note in planned.notes],
            "pushes": [outcome.document(receipt, report) for receipt, report in pushed],
        }
    )
    common.out.table(_table(planned, dry_run=options.dry_run))
    for number, note in planned.notes:
        common.out.note(f"line {number}: {note}")
    comments = sum(left.why in _QUIET for left in planned.left)
    other = len(planned.left) - comments
    verb = "would be set" if options.dry_run else "set"
    left = f"{several(other, 'line')} left, {several(comments, 'comment')}"
    common.out.note(f"{several(len(planned.entries), 'setting')} {verb} for {options.scope}, {left}")
    for receipt, report in pushed:
        common.out.note(outcome.verdict(receipt, report))
    unfit = any(left.why in ("does not fit", "undescribed") for left in planned.left)
    return 1 if unfit or any(outcome.exit_code(report) for _, report in pushed) else 0


def _told(entry: Entry) -> Mapping[str, Any]:
    return {
        "line": entry.line.number,
        "variable": entry.line.name,
        "key": entry.key,
        "value": entry.shown,
        "secret": entry.secret,
    }


def _told_left(left: Left) -> Mapping[str, Any]:
    return {"line": left.number, "variable": left.name, "why": left.why, "message": left.message}


def _table(planned: Plan, *, dry_run: bool) -> Table:
    what = "would set" if dry_run else "set"
    rows: list[tuple[int, str, str, str, str]] = [
        (one.line.number, one.line.name, what, one.key, value_text(one.shown)) for one in planned.entries
    ]
    rows += [(one.number, one.name, "left", "", one.message) for one in planned.left if one.why not in _QUIET]
    return Table(("line", "variable", "", "key", "value or why not"), rows_of(sorted(rows)))
