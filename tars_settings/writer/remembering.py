"""What is known of a scope's past: by this host's replica, by the broker, and by a few live workers that are asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from tars_settings.agent.recorded import recorded
from tars_settings.core.delta import Delta
from tars_settings.core.floor import FloorMark
from tars_settings.core.past import Entry, Past
from tars_settings.core.question import HistoryQuestion
from tars_settings.errors import RejectedError
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.validity import read_delta
from tars_settings.writer.signing import Writer

HERE: Final = "here"
PEERS: Final = 3
"""So many workers are asked: each remembers a thousand deltas or so, and most remember the same."""


class Remembered(msgspec.Struct, frozen=True, eq=False):
    """A scope's past, who was asked and answered, and how much of an answer did not pass (by worker)."""

    past: Past
    answered: tuple[str, ...] = ()
    rejected: dict[str, int] = {}


def remember(writer: Writer, scope: str, question: HistoryQuestion, *, peers: int = PEERS) -> Remembered:
    """Return what this host, the broker and *peers* live workers remember of a scope; each signature is checked here.

    The scope must be synced before.

    Raises:
        NotGrantedError, ConfigurationError: *peers* is not 0, and this writer may not ask.
    """
    own: list[Delta] = []
    agent = writer.agent
    peer = agent.replicator.peer
    agent.call(lambda: own.extend(recorded(peer, scope, agent.history(scope))))
    told: dict[str, tuple[bytes, ...]] = {HERE: tuple(one.raw for one in own)}
    for answer in writer.ask(scope, question, about=peers) if peers else ():
        told[answer.worker] = answer.history
    return verified(scope, told, writer.trust, peer.floors.mark(scope))


def verified(scope: str, told: Mapping[str, Iterable[bytes]], trust: TrustDocument, floor: FloorMark) -> Remembered:
    """Return the past that envelopes tell, by who remembers them; what no listed writer signed is counted and left."""
    deltas: dict[bytes, tuple[Delta, str]] = {}
    seen: dict[bytes, list[str]] = {}
    rejected: dict[str, int] = {}
    for who, raws in told.items():
        for raw in raws:
            read = _read(raw, scope, trust, floor)
            if read is None:
                rejected[who] = rejected.get(who, 0) + 1
                continue
            deltas.setdefault(read[0].stamp.digest, read)
            seen.setdefault(read[0].stamp.digest, []).append(who)
    entries = (Entry(delta, reason, tuple(seen[digest])) for digest, (delta, reason) in deltas.items())
    return Remembered(Past(scope, entries), tuple(who for who in told if who != HERE), rejected)


def _read(raw: bytes, scope: str, trust: TrustDocument, floor: FloorMark) -> tuple[Delta, str] | None:
    try:
        delta, judgement = read_delta(raw, trust, lambda _: floor)
    except RejectedError:
        return None
    return None if delta.scope != scope or judgement.reason == "unknown-writer" else (delta, judgement.reason)
