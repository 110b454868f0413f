"""``keys compromise``: a writer's key may be in other hands, or used up an epoch. One command takes the fleet back.

One trust document raises gen, voids what the key signed, and endorses what of it is good. Then what should show is put
onto the broker again, and signed anew by this host's writer: heads list what a writer in good standing signed, and an
endorsement vouches for a delta, never for a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.options import YesOption
from tars_settings.cli.ratify import (
    OutOption,
    ReasonOption,
    RootKeyOption,
    Signing,
    confirmed,
    ratify,
    signing_key,
)
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.scopes import deltas_of, every_scope
from tars_settings.cli.session import session
from tars_settings.core.delta import Assignment, Delta
from tars_settings.core.names import Scope, overlap
from tars_settings.core.stamp import MAX_EPOCH
from tars_settings.core.topics import KeyTopic
from tars_settings.errors import NotGrantedError, TooLargeError, UsageError
from tars_settings.trust import succession
from tars_settings.trust.document import TrustDocument
from tars_settings.writer import Writer

_KEYS_AT_A_TIME: Final = 32

NameArgument = Annotated[str, typer.Argument(metavar="WRITER", help="The writer's name, or its key id")]
GoodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--good-until", metavar="[SCOPE=]EPOCH", help="What it signed up to this epoch is good; else nothing is"
    ),
]
ScopeOption = Annotated[
    list[str] | None, typer.Option("--scope", metavar="SCOPE", help="A scope that no worker reads now")
]


def register(keys: typer.Typer) -> None:
    """Add the command."""
    command(keys, "compromise", compromise)


@dataclass(frozen=True)
class _Lost:
    """One key whose winner the lost key signed; *after* is the delta that shows then, None where there is none."""

    scope: str
    key: str
    winner: Delta
    after: Delta | None
    rests_on_it: bool
    """Whether what shows then needs the lost key's signature or consent, and stands by endorsement."""

    @property
    def fate(self) -> str:
        """Return stands, earlier or gone."""
        if self.after is None:
            return "gone"
        return "stands" if self.after is self.winner else "earlier"

    @property
    def assignment(self) -> Assignment:
        """What is to be signed anew: the value that stands, ciphertext and all; an unset where nothing is left."""
        held = None if self.after is None else self.after.kept(self.key)
        if held is None or held.unset:
            return Assignment(self.key, unset=True)
        return Assignment(self.key, secret=held.secret) if held.is_secret else Assignment(self.key, set=held.set)


def compromise(
    common: Common,
    name: NameArgument,
    good_until: GoodOption = None,
    scope: ScopeOption = None,
    root_key: RootKeyOption = None,
    out: OutOption = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
) -> int:
    """Take the fleet back from a key in other hands: voids what it signed, keeps what is good, raises gen.

    Shows first what becomes of each value, and asks. What the key signed above --good-until is void; there, what other
    writers signed shows again. Where this host has another writer's key, the values that stand are signed anew with it.

    Example: tars-settings keys compromise ops-1 --good-until stt-worker=41 --reason "laptop stolen"
    """
    signing = Signing.of(root_key, out, reason)
    own = common.environment().writer_key_file
    with session(common, read_only=own is None) as writer:
        kid, entry = succession.find_writer(writer.trust, name)
        scopes = every_scope(common, writer, _named(scope))
        deltas = deltas_of(writer, scopes)
        good = succession.good_digests(deltas, kid, _limits(good_until or (), scopes), writer.trust)
        lost = _lost(deltas, kid, good, writer.trust)
        endorsed = sorted({one.after.stamp.digest.hex() for one in lost if one.after and one.rests_on_it})
        body = succession.compromise(writer.trust, name, endorsed, **signing.why)
        _show(common, writer.trust, lost)
        confirmed(common, f"Void what {entry.name} signed, and raise gen to {body.gen}?", yes=yes)
        document = ratify(common, writer, body, signing)
        anew = _put_right(common, writer, kid, lost) if document["published"] else 0
    common.out.document({**document, "values": [_told(one, writer.trust) for one in lost], "signed_anew": anew})
    return 0


def _named(scopes: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(str(Scope.parse(one)) for one in scopes or ())


def _limits(words: Iterable[str], scopes: Iterable[str]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for word in words:
        scope, equals, epoch = word.rpartition("=")
        if not (epoch.isascii() and epoch.isdigit() and 0 <= int(epoch) <= MAX_EPOCH):
            raise UsageError(f"--good-until {word}: expected an epoch, or SCOPE=EPOCH")
        named = [str(Scope.parse(scope))] if equals else [one for one in scopes if one not in limits]
        limits |= dict.fromkeys(named, int(epoch))
    return limits


def _lost(
    deltas: Iterable[Delta], kid: str, good: Mapping[tuple[str, str], Delta], trust: TrustDocument
) -> tuple[_Lost, ...]:
    """Return the keys whose winner the lost key signed, or gave a consent to that it needs, by scope and key."""

    def falls(delta: Delta) -> bool:
        return succession.needs(delta, kid, trust) and not trust.is_endorsed(delta.stamp.digest)

    winners: dict[tuple[str, str], Delta] = {}
    others: dict[tuple[str, str], Delta] = dict(good)
    for delta in deltas:
        for item in delta.assign:
            place = (delta.scope, item.key)
            _keep_greatest(winners, place, delta)
            if not falls(delta):
                _keep_greatest(others, place, delta)
    mine = sorted(place for place, winner in winners.items() if succession.needs(winner, kid, trust))
    return tuple(_lost_at(place, winners[place], others.get(place), kid, trust) for place in mine)


def _lost_at(place: tuple[str, str], winner: Delta, after: Delta | None, kid: str, trust: TrustDocument) -> _Lost:
    return _Lost(*place, winner, after, after is not None and succession.needs(after, kid, trust))


def _keep_greatest(held: dict[tuple[str, str], Delta], place: tuple[str, str], delta: Delta) -> None:
    if place not in held or delta.stamp > held[place].stamp:
        held[place] = delta


def _told(one: _Lost, trust: TrustDocument) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "key": one.key,
        "epoch": one.winner.stamp.epoch,
        "fate": one.fate,
        "writer": None if one.after is None else trust.name_of(one.after.stamp.kid),
        "to_epoch": None if one.after is None else one.after.stamp.epoch,
    }


def _show(common: Common, trust: TrustDocument, lost: tuple[_Lost, ...]) -> None:
    told = [_told(one, trust) for one in lost]
    rows = [(one["scope"], one["key"], one["epoch"], one["fate"], one["to_epoch"], one["writer"]) for one in told]
    common.out.table(Table(("scope", "key", "epoch", "fate", "to epoch", "of writer"), rows_of(rows)))
    if not lost:
        common.out.note("it has no winner in a scope that is known here: no value changes")


def _put_right(common: Common, writer: Writer, kid: str, lost: tuple[_Lost, ...]) -> int:
    """Put onto the broker what shows now, and sign it anew where this host may; return how many keys were."""
    peer, agent = writer.agent.replicator.peer, writer.agent

    def publish() -> None:
        for one in lost:
            topic = KeyTopic(one.scope, one.key)
            if (payload := peer.desired(topic)) is not None:
                agent.publish(peer.topics.format(topic), payload)

    agent.call(publish)
    own = writer.environment.writer_key_file
    if own is None or signing_key(writer.environment, own).kid == kid:
        common.out.note(
            "no other writer's key is here: what stands does so by endorsement alone; make and grant a new key"
        )
        return 0
    return sum(_sign_anew(common, writer, scope, _of(lost, scope)) for scope in sorted({x.scope for x in lost}))


def _of(lost: tuple[_Lost, ...], scope: str) -> list[Assignment]:
    """Return what of a scope nobody in good standing signed.

    A key above or below another one is left to its endorsement: signed anew it would be the newer of the two.
    """
    here = [one for one in lost if one.scope == scope]
    alone = [one for one in here if not any(other is not one and overlap(other.key, one.key) for other in here)]
    return [one.assignment for one in alone if one.after is None or one.rests_on_it]


def _sign_anew(common: Common, writer: Writer, scope: str, assign: list[Assignment]) -> int:
    done = 0
    keys = writer.view(scope).keys()
    todo = [one for one in assign if not any(key != one.key and overlap(key, one.key) for key in keys)]
    batches = [todo[n : n + _KEYS_AT_A_TIME] for n in range(0, len(todo), _KEYS_AT_A_TIME)]
    while batches:
        batch = batches.pop(0)
        try:
            report = writer.push_as_is(scope, tuple(batch), reason="signed anew").wait(need="retained")
        except TooLargeError:
            half = len(batch) // 2
            batches[:0] = [batch[:half], batch[half:]]
            continue
        except NotGrantedError as error:
            common.out.note(f"{scope}: {error}; what stands there does so by endorsement alone")
            return done
        done += len(batch)
        common.out.note(f"{scope}: {len(batch)} keys signed anew, {report.stage}")
    return done
