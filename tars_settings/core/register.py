"""Registers: each key's winner, as a max over what every writer last said.

Per (scope, key, writer) the greatest valid deltas are kept (three, so that voiding the newest leaves a good one); over
writers the greatest is the winner. Merging is commutative, associative and idempotent. Only valid deltas enter: one
that is void or held must never displace a valid one (REVIEW F13: a store that kept "the best, valid or not" made
versions go back).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from tars_settings.core.delta import Assignment, Delta
from tars_settings.core.stamp import Stamp

KEPT: Final = 3
"""Valid deltas kept per (scope, key, writer)."""


class Outcome(enum.Enum):
    """The fate of a valid delta: it won at least one key, was held already, or lost all of its keys."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"


class Register(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A key's winner: an assignment and the delta that carries it.

    ``undone``: the delta's trial is over, and the assignment is the one that ends it.
    """

    key: str
    assignment: Assignment
    delta: Delta
    undone: bool = False


class _Scope:
    __slots__ = ("candidates", "digests", "highest", "live", "trying", "winners")

    def __init__(self) -> None:
        self.winners: dict[str, Register] = {}
        # By key, what is kept of all writers, in stamp order, where that is more than the winner. Most keys have one
        # delta, and there may be ten thousand.
        self.candidates: dict[str, tuple[Delta, ...]] = {}
        self.digests: dict[bytes, Delta] = {}
        self.highest = (0, 0)
        # Per writer: for how many of its keys a delta is its greatest. A writer asks at each push, so that it is kept
        # as it changes from the first time on; a worker never does.
        self.live: dict[str, dict[bytes, int]] = {}
        # The keys whose winner is on trial: most often none, and then no winner has to be looked at.
        self.trying: set[str] = set()

    def kept(self, key: str) -> tuple[Delta, ...]:
        """Return what is kept of a key, in stamp order."""
        several = self.candidates.get(key)
        if several is not None:
            return several
        winner = self.winners.get(key)
        return () if winner is None else (winner.delta,)

    def live_of(self, kid: str) -> dict[bytes, int]:
        """Return for how many of its keys each delta of a writer is that writer's greatest."""
        live = self.live.get(kid)
        if live is None:
            live = self.live[kid] = {}
            for key in self.winners:
                newest = next((one for one in reversed(self.kept(key)) if one.stamp.kid == kid), None)
                if newest is not None:
                    live[newest.stamp.digest] = live.get(newest.stamp.digest, 0) + 1
        return live


class Registers:
    """All registers of a peer, by scope and key."""

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope] = {}
        self._forgotten: list[Delta] = []

    def offer(self, delta: Delta) -> Outcome:
        """Merge a valid delta and return its fate. All of its assignments are merged, or, as a duplicate, none."""
        held = self._scopes.get(delta.scope)
        if held is None:
            held = self._scopes[delta.scope] = _Scope()
        stamp = delta.stamp
        if stamp.digest in held.digests:
            return Outcome.DUPLICATE
        held.highest = max(held.highest, (stamp.gen, stamp.epoch))
        held.digests[stamp.digest] = delta
        pushed_out: list[Delta] = []
        won = [self._merge(held, item, delta, pushed_out) for item in delta.assign]
        for one in pushed_out:
            self._forget(held, one)
        return Outcome.APPLIED if any(won) else Outcome.SUPERSEDED

    def _merge(self, held: _Scope, item: Assignment, delta: Delta, pushed_out: list[Delta]) -> bool:
        winner = held.winners.get(item.key)
        if winner is not None or held.live:
            self._keep(held, item.key, delta, pushed_out)
        if winner is not None and winner.delta.stamp >= delta.stamp:
            return False
        # The newest comes last: whoever sorts by stamp finds it sorted.
        held.winners.pop(item.key, None)
        held.winners[item.key] = Register(item.key, item, delta)
        if delta.trial is not None:
            held.trying.add(item.key)
        elif held.trying:
            held.trying.discard(item.key)
        return True

    def _keep(self, held: _Scope, key: str, delta: Delta, pushed_out: list[Delta]) -> None:
        """Keep a delta beside the others of its key, and only so many of each writer."""
        others = held.kept(key)
        mine = [one for one in others if one.stamp.kid == delta.stamp.kid]
        if not mine or mine[-1].stamp < delta.stamp:
            self._count_live(held, delta, mine[-1] if mine else None)
        if not others:
            return
        kept = sorted((*others, delta), key=_stamp_of) if others[-1].stamp > delta.stamp else [*others, delta]
        if len(mine) >= KEPT:
            oldest = mine[0] if mine[0].stamp < delta.stamp else delta
            pushed_out.append(oldest)
            kept.remove(oldest)
        held.candidates[key] = tuple(kept)

    @staticmethod
    def _count_live(held: _Scope, delta: Delta, before: Delta | None) -> None:
        live = held.live.get(delta.stamp.kid)
        if live is None:
            return  # nobody asked
        live[delta.stamp.digest] = live.get(delta.stamp.digest, 0) + 1
        if before is not None:
            left = live[before.stamp.digest] = live[before.stamp.digest] - 1
            if not left:
                del live[before.stamp.digest]

    def _forget(self, held: _Scope, delta: Delta) -> None:
        for item in delta.assign:
            if delta in held.kept(item.key):
                return
        if held.digests.pop(delta.stamp.digest, None) is not None:
            self._forgotten.append(delta)

    def take_forgotten(self) -> tuple[Delta, ...]:
        """Return, once, the deltas that newer ones pushed out since the last call: a replica may drop their rows."""
        if not self._forgotten:
            return ()
        forgotten, self._forgotten = tuple(self._forgotten), []
        return forgotten

    def rejudge(self, is_valid: Callable[[Delta], bool], scopes: Iterable[str] | None = None) -> tuple[Delta, ...]:
        """Drop every delta that is no longer valid, recompute the winners, and return what was dropped.

        Only *scopes* are looked at, all where None.
        """
        dropped: list[Delta] = []
        for scope in tuple(self._scopes) if scopes is None else tuple(scopes):
            dropped += self._rejudge(scope, is_valid)
        return tuple(dropped)

    def _rejudge(self, scope: str, is_valid: Callable[[Delta], bool]) -> list[Delta]:
        held = self._scopes.get(scope)
        if held is None:
            return []
        void = {digest: delta for digest, delta in held.digests.items() if not is_valid(delta)}
        if void:
            self._scopes[scope] = _Scope()
            for digest, delta in held.digests.items():
                if digest not in void:
                    self.offer(delta)
        return list(void.values())

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes of which anything is held."""
        return tuple(self._scopes)

    def winner(self, scope: str, key: str) -> Register | None:
        """Return the key's winner, a tombstone too."""
        held = self._scopes.get(scope)
        return None if held is None else held.winners.get(key)

    def keys(self, scope: str) -> tuple[str, ...]:
        """Return the keys of a scope that have a winner, a tombstone too."""
        held = self._scopes.get(scope)
        return () if held is None else tuple(held.winners)

    def winners(self, scope: str) -> dict[str, Register]:
        """Return the winners of a scope by key, tombstones too; a copy."""
        held = self._scopes.get(scope)
        return {} if held is None else dict(held.winners)

    def winning(self, scope: str) -> tuple[Register, ...]:
        """Return the winners of a scope, tombstones too, those that changed last at the end."""
        held = self._scopes.get(scope)
        return () if held is None else tuple(held.winners.values())

    def tries_any(self, scope: str) -> bool:
        """Return whether any winner of a scope is of a delta with a trial."""
        held = self._scopes.get(scope)
        return held is not None and bool(held.trying)

    def delta(self, scope: str, digest: bytes) -> Delta | None:
        """Return the held delta with this digest."""
        held = self._scopes.get(scope)
        return None if held is None else held.digests.get(digest)

    def holds(self, delta: Delta) -> bool:
        """Return whether a delta is held."""
        return self.delta(delta.scope, delta.stamp.digest) is not None

    def deltas(self, scope: str) -> Iterator[Delta]:
        """Yield every held delta of a scope once."""
        held = self._scopes.get(scope)
        return iter(()) if held is None else iter(tuple(held.digests.values()))

    def live_of(self, scope: str, kid: str) -> tuple[Delta, ...]:
        """Return one writer's live deltas in stamp order: the greatest of that writer for at least one of its keys."""
        held = self._scopes.get(scope)
        if held is None:
            return ()
        live = [held.digests[digest] for digest in held.live_of(kid)]
        return tuple(sorted(live, key=lambda delta: delta.stamp))

    def live_digests(self, scope: str, kid: str) -> frozenset[bytes]:
        """Return the digests of one writer's live deltas."""
        held = self._scopes.get(scope)
        return frozenset() if held is None else frozenset(held.live_of(kid))

    def has_rivals(self, scope: str) -> bool:
        """Return whether more than one delta is kept of any key of a scope."""
        held = self._scopes.get(scope)
        return held is not None and bool(held.candidates)

    def rivals(self, delta: Delta, item: Assignment) -> tuple[Delta, ...]:
        """Return the other deltas that are kept of a key and name the same as what they replace there."""
        held = self._scopes.get(delta.scope)
        candidates = () if held is None else held.candidates.get(item.key, ())
        found: list[Delta] = []
        for other in candidates:
            claim = None if other is delta else other.assignment(item.key)
            if claim is not None and claim.over == item.over:
                found.append(other)
        return tuple(found)

    def highest(self, scope: str) -> tuple[int, int]:
        """Return the greatest (gen, epoch) of a valid delta of the scope, (0, 0) where there is none."""
        held = self._scopes.get(scope)
        return (0, 0) if held is None else held.highest

    def digest(self, scope: str) -> str:
        """Return 32 hex digits over keys and winning stamps: equal on two peers that hold the same."""
        state = hashlib.blake2b(digest_size=16)
        for key, register in sorted(self.winners(scope).items()):
            state.update(f"{len(key)} {key} ".encode() + register.delta.stamp.blob())
        return state.hexdigest()


def _stamp(register: Register) -> Stamp:
    return register.delta.stamp


def _stamp_of(delta: Delta) -> Stamp:
    return delta.stamp


def effective(registers: Iterable[Register]) -> tuple[Register, ...]:
    """Return what a scope says, in stamp order: sets that no newer set or unset of a key above or of the key covers.

    Setting a whole nested model replaces, and unsetting removes, everything at and below its key that is older.
    """
    ordered = sorted(registers, key=_stamp)
    newest = {register.key: register for register in ordered}
    standing = (register for register in ordered if newest[register.key] is register)
    return tuple(one for one in standing if not one.assignment.unset and not _is_covered(one, newest))


def _is_covered(register: Register, newest: dict[str, Register]) -> bool:
    above, dot, _ = register.key.rpartition(".")
    while dot:
        cover = newest.get(above)
        if cover is not None and cover.delta.stamp > register.delta.stamp:
            return True
        above, dot, _ = above.rpartition(".")
    return False


IsUndone = Callable[[Delta], bool]
"""Whether the trial of a delta is over here; asked of deltas that have one."""


def nothing_tried(_: Delta) -> bool:
    """Say that every trial is over: for a reader that could not end one, or that wants what was good before."""
    return True


def used(register: Register, is_undone: IsUndone) -> Register:
    """Return what of a winner is used here: itself, or, where its delta's trial is over, what ends that.

    The winner stays the winner: the stamp is the delta's own either way.
    """
    trial = register.delta.trial
    if trial is None or register.undone or not is_undone(register.delta):
        return register
    undo = next(item for item in trial.undo if item.key == register.key)
    return Register(register.key, undo, register.delta, undone=True)


class ScopeView(msgspec.Struct, frozen=True, eq=False):
    """What one scope says: all of its winners, tombstones and covered ones too.

    Whoever leaves a delta out needs what it hid.
    """

    scope: str
    winners: tuple[Register, ...] = ()

    @property
    def registers(self) -> tuple[Register, ...]:
        """The effective ones of them in stamp order; computed each time, which a change does not pay for."""
        return effective(self.winners)

    @property
    def says_anything(self) -> bool:
        """Whether any of them is effective."""
        if not self.winners:
            return False
        # Nothing lies above a key of one segment: most often the first look decides.
        return any("." not in one.key and not one.assignment.unset for one in self.winners) or bool(self.registers)


class FleetView(msgspec.Struct, frozen=True, eq=False):
    """What the fleet says to one worker: its scopes, lowest precedence first; *is_undone* tells of trials."""

    scopes: tuple[ScopeView, ...] = ()
    is_undone: IsUndone = nothing_tried

    @classmethod
    def of(cls, registers: Registers, scopes: Iterable[str], is_undone: IsUndone = nothing_tried) -> FleetView:
        """Return the view of *scopes*, lowest precedence first; of trials what *is_undone* leaves, by default none."""
        views: list[ScopeView] = []
        for scope in scopes:
            winning = registers.winning(scope)
            if winning and registers.tries_any(scope):
                winning = tuple(used(one, is_undone) for one in winning)
            views.append(ScopeView(scope, winning))
        return cls(tuple(views), is_undone)

    def deltas(self) -> tuple[Delta, ...]:
        """Return the deltas that the view rests on, each once."""
        seen = {register.delta.stamp.digest: register.delta for one in self.scopes for register in one.registers}
        return tuple(seen.values())
