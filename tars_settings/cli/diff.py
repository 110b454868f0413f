"""``diff``: how two states differ: epochs of a scope, two scopes, this host's replica and the broker, a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer

from tars_settings.cli.common import CONNECT_WITHIN_S, Common, command
from tars_settings.cli.filediff import said_by
from tars_settings.cli.files import Content, read_content
from tars_settings.cli.look import say_revealed
from tars_settings.cli.options import CatchUpOption, PeersOption, RevealOption
from tars_settings.cli.profiles import opened_here, wish
from tars_settings.cli.reading import Reading, Values, from_replica, spoken_for
from tars_settings.cli.remembering import Known, known
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.undoing import shown
from tars_settings.core.delta import Assignment
from tars_settings.core.names import Scope, is_scope
from tars_settings.core.past import Moment
from tars_settings.core.register import Register, effective
from tars_settings.core.undo import is_same
from tars_settings.errors import DecryptionError, UsageError
from tars_settings.sources.environment import Environment
from tars_settings.writer import Writer
from tars_settings.writer.remembering import PEERS

SidesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SERVICE[@INSTANCE]] [EPOCH [EPOCH] | SERVICE[@INSTANCE]]", help="What to compare"),
]
ReplicaOption = Annotated[bool, typer.Option("--replica", help="This host's replica with the broker")]
FileOption = Annotated[
    str | None, typer.Option("--file", metavar="FILE", help="The fleet with a file: .env, JSON, YAML or TOML")
]
FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="NAME", help="The file's format: env, json, yaml or toml")
]
UNKNOWN: Final = "(not remembered)"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "diff", diff)


@dataclass(frozen=True)
class Side:
    """A state to compare: its name, and what stands in each scope and key. ``unknown`` keys can't be told."""

    name: str
    standing: Mapping[tuple[str, str], Register]
    reading: Reading
    unknown: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Pair:
    """Two states; a side's own scope is of no account where ``by_key`` only keys are compared."""

    left: Side
    right: Side
    by_key: bool = False

    def names(self) -> list[tuple[str, str]]:
        """Return every scope and key that either side says something of."""
        sides = (self.left, self.right)
        found = {name for side in sides for name in (*side.standing, *side.unknown)}
        return sorted(("", key) if self.by_key else (scope, key) for scope, key in found)


def diff(
    common: Common,
    sides: SidesArgument = None,
    replica: ReplicaOption = False,
    file: FileOption = None,
    form: FormatOption = None,
    reveal: RevealOption = None,
    peers: PeersOption = PEERS,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Show how two states differ: exit code 1 where they do, 0 where they do not. Secrets are masked, and compared.

    A scope and one epoch: then and now. Two epochs: after each of them. Two scopes: what each sets. --replica: this
    host and the broker. --file: what a file sets and the fleet does not, of the keys that the file names.

    Example: tars-settings diff stt-worker 41 57
    """
    words = list(sides or ())
    if (replica and file is not None) or (len(words) > 1 and (replica or file is not None)):
        raise UsageError("one comparison at a time: two epochs, two scopes, --replica or --file")
    if replica:
        pair = _with_replica(common, words, timeout_s)
    elif file is not None:
        pair = _with_file(common, words, read_content(file, form), file, timeout_s)
    else:
        pair = _of_words(common, words, timeout_s, peers)
    return _show(common, pair, reveal or ())


# --- what is compared -------------------------------------------------------------------------------------------------


def _of_words(common: Common, words: Sequence[str], timeout_s: float, peers: int) -> Pair:
    match words:
        case [scope, first] if first.isdecimal():
            found = known(common, str(Scope.parse(scope)), offline=False, timeout_s=timeout_s, peers=peers)
            return Pair(_at_epoch(found, int(first)), _side("now", found.reading))
        case [scope, first, second] if first.isdecimal() and second.isdecimal():
            found = known(common, str(Scope.parse(scope)), offline=False, timeout_s=timeout_s, peers=peers)
            return Pair(_at_epoch(found, int(first)), _at_epoch(found, int(second)))
        case [first, second] if is_scope(first) and is_scope(second):
            names = {one: known(common, one, offline=False, timeout_s=timeout_s, peers=0) for one in (first, second)}
            left, right = (_side(one, names[one].reading) for one in (first, second))
            return Pair(_by_key(left), _by_key(right), by_key=True)
    raise UsageError("compare what? diff SERVICE EPOCH [EPOCH], diff SERVICE SERVICE, --replica, or --file FILE")


def _at_epoch(found: Known, epoch: int) -> Side:
    if epoch > found.epoch:
        raise UsageError(f"{found.scope} is at epoch {found.epoch}; there is no epoch {epoch}")
    moment: Moment = found.past.after_epoch(epoch)
    unknown = frozenset((found.scope, one.key) for one in moment.missing)
    reading = Reading(found.reading.trust, {found.scope: moment.winners}, "broker", schemas=found.reading.schemas)
    side = _side(f"after epoch {epoch}", reading)
    return Side(side.name, {name: one for name, one in side.standing.items() if name not in unknown}, reading, unknown)


def _side(name: str, reading: Reading) -> Side:
    standing = {
        (scope, one.key): one for scope, winners in reading.scopes.items() for one in effective(winners.values())
    }
    return Side(name, standing, reading)


def _by_key(side: Side) -> Side:
    return Side(side.name, {("", key): one for (_, key), one in side.standing.items()}, side.reading)


def _with_replica(common: Common, words: Sequence[str], timeout_s: float) -> Pair:
    scope = Scope.parse(words[0]) if words else None
    here = from_replica(common.environment(), scope)
    if scope is not None:
        here = Reading(here.trust, {str(scope): here.scopes[str(scope)]}, "replica")
    return Pair(_side("replica", here), _side("broker", _of_broker(common, scope, here, timeout_s)))


def _of_broker(common: Common, scope: Scope | None, here: Reading, timeout_s: float) -> Reading:
    """Return what the broker alone says: asked by a peer with an empty replica, for ours would be merged into it."""
    with TemporaryDirectory(prefix="tars-settings-") as empty:
        given = {**common.given(), "state_dir": Path(empty)}
        with Writer(read_only=True, connect_within_s=CONNECT_WITHIN_S, **given) as writer:
            names = here.scopes if scope is not None else {*here.scopes, *spoken_for(writer, None)}
            for name in names:
                if (state := writer.sync(name, timeout_s)) != "ready":
                    common.out.note(f"{name} could not be read whole from the broker ({state})")
            scopes = {name: writer.view(name) for name in names}
            services = {Scope.parse(name).service for name in names} - {None}
            schemas = {one: tuple(writer.schemas(one)) for one in services if one is not None}
            return Reading(writer.trust, scopes, "broker", schemas=schemas)


def _with_file(common: Common, words: Sequence[str], content: Content, name: str, timeout_s: float) -> Pair:
    if len(words) != 1:
        raise UsageError("compare a file with whom? Name one service: diff SERVICE --file FILE")
    scope = Scope.parse(words[0])
    found = known(common, str(scope), offline=False, timeout_s=timeout_s, peers=0)
    schemas = found.reading.schemas.get(scope.service, ()) if scope.service is not None else ()
    said, strangers = said_by(content, schemas)
    if strangers:
        common.out.note(f"no setting of these workers, left out: {', '.join(strangers)}")
    theirs = {(str(scope), key): wish(str(scope), Assignment(key, set=value)) for key, value in said.items()}
    fleet = _side("now", found.reading)
    standing = {place: one for place, one in fleet.standing.items() if place in theirs}
    return Pair(Side("now", standing, found.reading), Side("file" if name == "-" else name, theirs, found.reading))


# --- how they differ --------------------------------------------------------------------------------------------------


def _show(common: Common, pair: Pair, reveal: Sequence[str]) -> int:
    environment = common.environment()
    values = [Values(side.reading, environment, reveal) for side in (pair.left, pair.right)]
    differing = [name for name in pair.names() if _differs(pair, name, environment)]
    secret = {name for name in differing if _is_secret(pair, name)}
    cells = {name: _cells(pair, name, values, masked=name in secret) for name in differing}
    common.out.document(
        {
            "left": pair.left.name,
            "right": pair.right.name,
            "differences": [_told(pair, name, cells[name], name in secret) for name in differing],
        }
    )
    rows = [(*((scope,) if scope else ()), key, *cells[scope, key]) for scope, key in differing]
    head = ("key",) if pair.by_key else ("scope", "key")
    common.out.table(Table((*head, pair.left.name, pair.right.name), rows_of(rows)))
    say_revealed(common, *values)
    if any(name in side.unknown for name in differing for side in (pair.left, pair.right)):
        common.out.note("nobody who was asked remembers all of it: ask more workers with --peers")
    if not differing:
        common.out.note(f"{pair.left.name} and {pair.right.name} say the same")
    return 1 if differing else 0


def _differs(pair: Pair, name: tuple[str, str], environment: Environment) -> bool:
    if name in pair.left.unknown or name in pair.right.unknown:
        return True
    left, right = pair.left.standing.get(name), pair.right.standing.get(name)
    if left is None or right is None:
        return left is not right
    return not (is_same(left, right) or is_same(_open(left, environment), _open(right, environment)))


def _open(register: Register, environment: Environment) -> Register:
    """Return a register with its secret decrypted where it can be; nobody is to see it."""
    try:
        value = opened_here(register, environment)
    except DecryptionError:
        return register
    return Register("k", Assignment("k", set=value), register.delta)


def _is_secret(pair: Pair, name: tuple[str, str]) -> bool:
    sides = ((side.reading, side.standing.get(name)) for side in (pair.left, pair.right))
    return any(reading.is_secret(one) for reading, one in sides if one is not None)


def _cells(pair: Pair, name: tuple[str, str], values: Sequence[Values], *, masked: bool) -> tuple[str, str]:
    def cell(side: Side, how: Values) -> str:
        if name in side.unknown:
            return UNKNOWN
        one = side.standing.get(name)
        if one is None or not masked or one.assignment.is_secret:
            return shown(how, one)
        # Of a secret both sides are one, whatever one of them was set as.
        return str(how.plain(one.delta.scope, one.key, one.assignment.set, secret=True))

    return cell(pair.left, values[0]), cell(pair.right, values[1])


def _told(pair: Pair, name: tuple[str, str], cells: tuple[str, str], secret: bool) -> dict[str, Any]:
    def side(one: Side, cell: str) -> dict[str, Any]:
        is_set = name in one.standing
        value = one.standing[name].assignment.set if is_set and not secret else (cell if is_set else None)
        return {"set": is_set, "known": name not in one.unknown, "value": value}

    return {
        "scope": name[0] or None,
        "key": name[1],
        "secret": secret,
        "left": side(pair.left, cells[0]),
        "right": side(pair.right, cells[1]),
    }
