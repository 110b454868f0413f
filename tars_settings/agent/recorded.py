"""What one peer can tell of a scope's past: the deltas that it applied, as they were signed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from tars_settings.agent.loop import Agent
from tars_settings.core.delta import Delta
from tars_settings.core.names import overlap
from tars_settings.core.question import HistoryQuestion, QuestionBody

MAX_TOLD_BYTES: Final = 1024 * 1024


def tell_history(agent: Agent, body: QuestionBody, asked: HistoryQuestion) -> tuple[Sequence[bytes], bool]:
    """Return the envelopes that a history question asks for, newest first, and whether there are more of them."""
    peer = agent.replicator.peer
    found = [one for one in peer.registers.deltas(body.scope) if _is_asked(one, asked) and peer.prove(one)]
    found.sort(key=lambda one: one.stamp, reverse=True)
    told = _fitting(found[: asked.limit])
    return told, len(found) > len(told)


def _fitting(deltas: Sequence[Delta]) -> list[bytes]:
    sizes = accumulate(len(one.raw) for one in deltas)
    return [one.raw for one, size in zip(deltas, sizes, strict=True) if size <= MAX_TOLD_BYTES]


def _is_asked(delta: Delta, asked: HistoryQuestion) -> bool:
    if delta.stamp.epoch <= asked.since:
        return False
    return not asked.key or any(overlap(item.key, asked.key) for item in delta.body.assign)
