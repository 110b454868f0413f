"""What one peer can tell of a scope's past: the deltas that were valid here, as they were signed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from tars_settings.agent.loop import Agent
from tars_settings.core.delta import Delta, parse_delta
from tars_settings.core.names import overlap
from tars_settings.core.question import HistoryQuestion, QuestionBody
from tars_settings.errors import MalformedError
from tars_settings.gossip.peer import Peer

MAX_TOLD_BYTES: Final = 1024 * 1024


def tell_history(agent: Agent, body: QuestionBody, asked: HistoryQuestion) -> tuple[Sequence[bytes], bool]:
    """Return the envelopes that a history question asks for, newest first, and whether there are more of them."""
    peer = agent.replicator.peer
    found = [one for one in recorded(peer, body.scope, agent.history(body.scope)) if _is_asked(one, asked)]
    # Proven only now: what was read on the word of an index may be ten thousand deltas.
    told = [one.raw for one in _fitting(found[: asked.limit]) if peer.prove(one)]
    return told, len(found) > len(told)


def recorded(peer: Peer, scope: str, past: Sequence[bytes]) -> list[Delta]:
    """Return the deltas of a scope that a peer remembers, newest first: those that it holds, and those in *past*.

    Signatures are checked by whoever reads them.
    """
    held = {one.stamp.digest: one for one in peer.registers.deltas(scope)}
    gone = {one.stamp.digest: one for one in _parsed(past, peer.fleet) if one.scope == scope}
    return sorted({**gone, **held}.values(), key=lambda one: one.stamp, reverse=True)


def _parsed(raws: Sequence[bytes], fleet: str) -> Iterator[Delta]:
    for raw in raws:
        try:
            yield parse_delta(raw, fleet)[1]
        except MalformedError:
            continue  # the disk flips bits


def _fitting(deltas: Sequence[Delta]) -> list[Delta]:
    sizes = accumulate(len(one.raw) for one in deltas)
    return [one for one, size in zip(deltas, sizes, strict=True) if size <= MAX_TOLD_BYTES]


def _is_asked(delta: Delta, asked: HistoryQuestion) -> bool:
    if delta.stamp.epoch <= asked.since:
        return False
    return not asked.key or any(overlap(item.key, asked.key) for item in delta.assign)
