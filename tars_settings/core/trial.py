"""Trials: values that a worker uses for a while, and what it goes back to unless a later delta says otherwise.

A trial changes nothing in order, merge or validity: the delta wins its keys as any other, for good. What changes is
which of its two lists of assignments a worker *uses*. Each worker counts down for itself, from when it first took the
delta; what is left only ever shrinks, through restarts and whatever becomes of its clock, so every trial ends.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from tars_settings.core.delta import MAX_TRIAL_S, Assignment, Delta, Trial
from tars_settings.core.names import overlap
from tars_settings.core.register import Register, nothing_tried, used
from tars_settings.core.wire import HexDigest, decode_plain
from tars_settings.errors import RefusedError

MAX_MARKS: Final = 64
"""Trials that are remembered on the disk; of what lies beyond the delta's own time is all there is to go by."""
CHECKPOINTS: Final = 8
"""How often in its time a trial's rest is written down; and the share that a restart costs where no clock can tell."""

_NOTHING: Final[Any] = object()


# --- what to go back to -----------------------------------------------------------------------------------------------


def trial_of(assign: Sequence[Assignment], within_s: int, winners: Mapping[str, Register], canary: str = "") -> Trial:
    """Return the trial of assignments to a scope with these winners: it goes back to what is in force there now.

    Of a key that is on trial itself that is what its own trial goes back to.

    Raises:
        RefusedError: a key lies above or below another one that is set, and an encrypted value is in it.
    """
    return Trial(within_s, tuple(_undo(item.key, winners.values()) for item in assign), canary)


def _undo(key: str, winners: Iterable[Register]) -> Assignment:
    touching = sorted(
        (used(one, nothing_tried) for one in winners if overlap(one.key, key)), key=lambda one: one.delta.stamp
    )
    if all(one.key == key for one in touching):
        return bare(touching[0].assignment) if touching else Assignment(key, unset=True)
    if any(one.assignment.is_secret for one in touching):
        raise RefusedError(
            f"{key} lies above or below another key that is set, and one of them is a secret: what to go back to can't "
            "be told without decrypting it. Push without a trial"
        )
    value: Any = _NOTHING
    for one in touching:
        value = _over(value, key, one)
    return Assignment(key, unset=True) if value is _NOTHING else Assignment(key, set=value)


def _over(value: Any, key: str, register: Register) -> Any:
    """Return what is at *key* once a register at, above or below it was laid over *value*."""
    item = register.assignment
    said = _NOTHING if item.unset else item.set
    if len(register.key) <= len(key):
        for name in key[len(register.key) :].split(".")[1:]:
            said = said.get(name, _NOTHING) if isinstance(said, Mapping) else _NOTHING
        return said
    if said is not _NOTHING and not isinstance(value, Mapping):
        # A leaf is laid over the model's own default; a whole model is not. No one assignment says both.
        raise RefusedError(f"{register.key} is set by itself: try keys like it, one by one, and not {key} as a whole")
    return _with(value, register.key[len(key) + 1 :].split("."), said) if isinstance(value, Mapping) else value


def _with(level: Mapping[str, Any], path: Sequence[str], said: Any) -> dict[str, Any]:
    """Return a copy of an object that says something at a path, or nothing there."""
    name, *rest = path
    inner = level.get(name, _NOTHING)
    if rest and (said is not _NOTHING or isinstance(inner, Mapping)):
        said = _with(inner if isinstance(inner, Mapping) else {}, rest, said)
    elif rest:
        said = inner  # nothing is taken from nothing
    others = {other: value for other, value in level.items() if other != name}
    return others if said is _NOTHING else {**others, name: said}


def bare(item: Assignment) -> Assignment:
    """Return an assignment as it may be said again: without what it replaced."""
    return Assignment(item.key, set=item.set, secret=item.secret, unset=item.unset)


# --- counting down ----------------------------------------------------------------------------------------------------


class TrialMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was left of a trial (milliseconds; 0: it is over) when the clock said ``at_ms`` (since 1970)."""

    digest: HexDigest
    left_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TRIAL_S * 1000)]
    at_ms: int


class TrialMarks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker remembers of its trials from one process to the next."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    trials: Annotated[tuple[TrialMark, ...], msgspec.Meta(max_length=MAX_MARKS)] = ()


_marks_decoder: Final = msgspec.json.Decoder(TrialMarks)


def parse_marks(content: bytes) -> TrialMarks:
    """Return what *content* says.

    Raises:
        MalformedError: it is of another form or version.
    """
    return decode_plain(_marks_decoder, content, what="trial marks")


class _Run(msgspec.Struct):
    delta: Delta
    due_s: float
    noted_s: float


class Countdowns:
    """The trials that one worker met, and how long each of them still runs.

    *now_s* is a clock that never goes back; *marks* are of an earlier process, ``wall_ms`` is the time of day now.
    """

    def __init__(self, marks: Iterable[TrialMark] = (), *, wall_ms: int = 0) -> None:
        self._kept = {bytes.fromhex(one.digest): (one, wall_ms - one.at_ms) for one in marks}
        self._runs: dict[bytes, _Run] = {}
        self._over: dict[bytes, None] = {}
        self.noted = True

    def knows(self, delta: Delta) -> bool:
        """Return whether a trial was met already."""
        return delta.stamp.digest in self._runs or delta.stamp.digest in self._over

    def meet(self, delta: Delta, now_s: float, *, age_s: float = 0.0) -> None:
        """Begin the trial of a delta, or go on with it where an earlier process began; harmless twice.

        *age_s* is for how long it is under way already, as far as can be told; below 0 counts as 0.
        """
        trial, digest = delta.trial, delta.stamp.digest
        if trial is None or self.knows(delta):
            return
        left_s = trial.within_s - max(0.0, age_s)
        if digest in self._kept:
            left_s = min(trial.within_s, _left_s(*self._kept[digest], trial))
        self.noted = False
        if left_s <= 0:
            self._over[digest] = None
        else:
            self._runs[digest] = _Run(delta, now_s + left_s, now_s)

    def tick(self, now_s: float) -> tuple[Delta, ...]:
        """End what is due, and return it. Nothing ends but here: within one look all keys of a delta agree."""
        due = [digest for digest, run in self._runs.items() if run.due_s <= now_s]
        ended = tuple(self._runs.pop(digest).delta for digest in due)
        self._over.update(dict.fromkeys(due))
        self.noted = self.noted and not ended
        return ended

    def is_undone(self, delta: Delta) -> bool:
        """Return whether the trial of a delta is over; one that was never met is not tried."""
        return delta.stamp.digest not in self._runs

    def left_s(self, delta: Delta, now_s: float) -> float:
        """Return how long a trial still runs, 0 where it is over."""
        run = self._runs.get(delta.stamp.digest)
        return 0.0 if run is None else max(0.0, run.due_s - now_s)

    def next_s(self) -> float:
        """Return when the next thing is to be done, to end a trial or to note its rest; infinity where nothing is."""
        return min((min(run.due_s, _checkpoint_s(run)) for run in self._runs.values()), default=math.inf)

    def marks(self, now_s: float, wall_ms: int, held: Collection[bytes]) -> tuple[TrialMark, ...]:
        """Return what is to be remembered of the deltas that are *held*, the shortest rest last; it counts as noted."""
        self.noted = True
        for run in self._runs.values():
            run.noted_s = now_s
        for digest in [one for one in self._over if one not in held]:
            del self._over[digest]
        for digest in [one for one in self._runs if one not in held]:
            del self._runs[digest]
        running = sorted(self._runs.items(), key=lambda item: -item[1].due_s)
        marks = [(digest, max(1, round((run.due_s - now_s) * 1000))) for digest, run in running]
        kept = [*marks, *((digest, 0) for digest in self._over)][-MAX_MARKS:]
        return tuple(TrialMark(digest.hex(), left_ms, wall_ms) for digest, left_ms in kept)

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to end and nothing to note, now or later."""
        return self.noted and not self._runs

    def wants_note(self, now_s: float) -> bool:
        """Return whether something is to be written down."""
        return not self.noted or any(_checkpoint_s(run) <= now_s for run in self._runs.values())


def _checkpoint_s(run: _Run) -> float:
    trial = run.delta.trial
    return math.inf if trial is None else run.noted_s + trial.within_s / CHECKPOINTS


def _left_s(mark: TrialMark, passed_ms: int, trial: Trial) -> float:
    """Return the rest of a trial by its mark; a clock that went back costs a share, so that no loop tries for ever."""
    passed_s = passed_ms / 1000 if passed_ms >= 0 else trial.within_s / CHECKPOINTS
    return mark.left_ms / 1000 - passed_s
