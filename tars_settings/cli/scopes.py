"""Which scopes there are, and how far a writer got in each: what must be known before anything is voided."""

from __future__ import annotations

from collections.abc import Iterable

from tars_settings.cli.common import Common
from tars_settings.cli.reading import spoken_for
from tars_settings.core.delta import Delta
from tars_settings.core.names import ALL, is_scope
from tars_settings.errors import NotSyncedError
from tars_settings.writer import Writer


def every_scope(common: Common, writer: Writer, also: Iterable[str] = ()) -> tuple[str, ...]:
    """Return, caught up with, the scopes that are known: of this host's replica, of workers that reported, of grants.

    A broker does not tell which scopes there are: one that no worker reads now and this host never saw is *also* to be
    named.

    Raises:
        NotSyncedError: one can't be caught up with: what is voided unseen could not be put right.
    """
    known = {ALL, *also, *writer.agent.replicator.peer.registers.scopes(), *spoken_for(writer, None)}
    known |= {grant for one in writer.trust.body.writers for grant in one.grants if is_scope(grant)}
    for scope in sorted(known):
        state = writer.sync(scope)
        if state == "joining":
            raise NotSyncedError(f"{scope} could not be caught up with; try again when the broker answers")
        if state != "ready":
            common.out.note(f"{scope} is {state}: something is mentioned there that nobody produced; see status")
    return tuple(sorted(known))


def deltas_of(writer: Writer, scopes: Iterable[str]) -> tuple[Delta, ...]:
    """Return every delta that is held of these scopes, whether it won or not."""
    found: list[Delta] = []
    registers = writer.agent.replicator.peer.registers
    writer.agent.call(lambda: found.extend(one for scope in scopes for one in registers.deltas(scope)))
    return tuple(found)


def limits_of(writer: Writer, kid: str, scopes: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    """Return by scope (gen, epoch, index counter) of the last that one writer signed or cosigned, if it did."""
    reached: dict[str, tuple[int, int]] = {}
    for delta in deltas_of(writer, scopes):
        # A cosigner's consent is to stand too, and counts up to the same mark.
        if delta.stamp.kid == kid or any(one.kid == kid for one in delta.body.cosig):
            mark = (delta.stamp.gen, delta.stamp.epoch)
            reached[delta.scope] = max(reached.get(delta.scope, (0, 0)), mark)
    return {scope: (*mark, _counter(writer, scope, kid)) for scope, mark in reached.items()}


def _counter(writer: Writer, scope: str, kid: str) -> int:
    head = writer.agent.replicator.peer.heads.get((scope, kid))
    return 0 if head is None or head.index is None else head.index.body.counter
