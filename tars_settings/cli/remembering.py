"""What is remembered of a scope, from the broker and live workers, or from this host's replica alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.agent.evidence import remembered_raws
from tars_settings.agent.recorded import recorded
from tars_settings.cli.common import Common
from tars_settings.cli.reading import Reading
from tars_settings.cli.session import session
from tars_settings.core.names import Scope
from tars_settings.core.past import Entry, Past
from tars_settings.core.question import MAX_HISTORY, HistoryQuestion
from tars_settings.core.register import Register, effective
from tars_settings.errors import BrokerUnreachableError, KeyFileError, NotGrantedError
from tars_settings.gossip.peer import Peer
from tars_settings.sources.environment import Environment
from tars_settings.writer import Writer
from tars_settings.writer.archive import Archive
from tars_settings.writer.remembering import HERE, PEERS, Remembered, remember, verified

EVERYTHING: Final = HistoryQuestion(MAX_HISTORY)


@dataclass(frozen=True)
class Known:
    """What the fleet says in one scope now, and what is remembered of it."""

    scope: str
    reading: Reading
    remembered: Remembered

    @property
    def past(self) -> Past:
        """The deltas that are remembered."""
        return self.remembered.past

    @property
    def now(self) -> dict[str, Register]:
        """The winners by key."""
        return dict(self.reading.scopes[self.scope])

    @property
    def epoch(self) -> int:
        """The highest epoch of what is remembered, in the newest gen."""
        gen = self.past.gen
        stamps = [one.delta.stamp for one in self.past.entries if not one.reason]
        return max((stamp.epoch for stamp in stamps if stamp.gen == gen), default=0)

    def state_of(self, entry: Entry) -> str:
        """Return ``current`` where a value of the delta stands, ``superseded`` where none does, else why it is void."""
        if entry.reason:
            return entry.reason
        standing = {one.delta.stamp.digest for one in effective(self.now.values())}
        tombs = {one.delta.stamp.digest for one in self.now.values() if one.assignment.unset}
        return "current" if entry.delta.stamp.digest in standing | tombs else "superseded"


def connected(common: Common, *, may_push: bool = False) -> Writer:
    """Return a session with a writer's key where there is one, so that it may ask; *may_push* needs one. Enter it."""
    return session(common, read_only=not may_push and not _has_key(common))


def _has_key(common: Common) -> bool:
    environment = common.environment()
    if environment.writer_key_file is None:
        return False
    try:
        environment.writer_key()
    except KeyFileError as error:
        common.out.note(f"the writer's key can't be used: {error}")  # looking needs none
        return False
    return True


def known(
    common: Common,
    scope: str,
    *,
    offline: bool,
    timeout_s: float,
    peers: int = PEERS,
    question: HistoryQuestion = EVERYTHING,
) -> Known:
    """Return what is known of a scope: from the broker and *peers* workers, or from the replica, which is said.

    Raises:
        ConfigurationError: fleet, keys or broker are not configured.
        ReplicaError: neither can be read.
    """
    (found,) = known_of(common, (scope,), offline=offline, timeout_s=timeout_s, peers=peers, question=question)
    return found


def known_of(
    common: Common,
    scopes: Sequence[str],
    *,
    offline: bool,
    timeout_s: float,
    peers: int = PEERS,
    question: HistoryQuestion = EVERYTHING,
) -> list[Known]:
    """Return what is known of several scopes, as :func:`known`."""
    if not offline:
        try:
            with connected(common) as writer:
                return [
                    known_by(common, writer, scope, timeout_s=timeout_s, peers=peers, question=question)
                    for scope in scopes
                ]
        except BrokerUnreachableError as error:
            common.out.note(f"{error}\nShown is what this host's replica remembers.")
    return _by_replica(common.environment(), scopes)


def known_by(
    common: Common,
    writer: Writer,
    scope: str,
    *,
    timeout_s: float,
    peers: int = PEERS,
    question: HistoryQuestion = EVERYTHING,
) -> Known:
    """Return what this host, the broker and *peers* live workers know of a scope."""
    state = writer.sync(scope, timeout_s)
    if state != "ready":
        common.out.note(f"{scope} could not be caught up with ({state}): something may be missing")
    if peers and not writer.has_key:
        common.out.note("no worker was asked: a question is signed, and there is no writer's key to sign it with")
        peers = 0
    try:
        remembered = remember(writer, scope, question, peers=peers)
    except NotGrantedError as error:
        common.out.note(f"no worker was asked: {error}")
        remembered = remember(writer, scope, question, peers=0)
    for worker, count in sorted(remembered.rejected.items()):
        common.out.note(f"{count} of what {worker} told did not verify, and were left out")
    service = Scope.parse(scope).service
    schemas = {} if service is None else {service: tuple(writer.schemas(service))}
    reading = Reading(writer.trust, {scope: writer.view(scope)}, "broker", {scope: state}, schemas)
    return Known(scope, reading, remembered)


def _by_replica(environment: Environment, scopes: Sequence[str]) -> list[Known]:
    replica = SqliteReplica(environment.replica_path, create=False)
    try:
        rows = replica.load()
        past = {scope: remembered_raws(replica, scope) for scope in scopes}
    finally:
        replica.close()
    peer = Archive(environment, rows).peer
    return [_known_offline(peer, scope, raws) for scope, raws in past.items()]


def _known_offline(peer: Peer, scope: str, raws: Sequence[bytes]) -> Known:
    own = [one.raw for one in recorded(peer, scope, raws)]
    remembered = verified(scope, {HERE: own}, peer.trust, peer.floors.mark(scope))
    return Known(scope, Reading(peer.trust, {scope: peer.registers.winners(scope)}, "replica"), remembered)
