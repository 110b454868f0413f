"""The trials of one worker: when each began here, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from tars_settings.agent.loop import disk_quiet
from tars_settings.core.delta import Delta
from tars_settings.core.presence import TrialReport
from tars_settings.core.register import Register
from tars_settings.core.trial import Countdowns
from tars_settings.errors import SurroundingsError
from tars_settings.ports import Clock
from tars_settings.sources.trials import TrialStore, age_s

_log: Final = logging.getLogger("tars_settings.agent")

MAX_REPORTED: Final = 16


class Trials:
    """Counts down, and remembers it on the disk; it never raises. Used in the agent's thread, or before it starts.

    *is_held* says whether a delta is still of any use here. What can't be written is complained of once.
    """

    def __init__(self, store: TrialStore, clock: Clock, is_held: Callable[[Delta], bool]) -> None:
        self._store = store
        self._clock = clock
        self._is_held = is_held
        self._runs = Countdowns(store.read(), wall_ms=self._wall_ms())
        self._met: dict[bytes, Delta] = {}
        self._complained = False

    def _wall_ms(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)

    def arrived(self, delta: Delta) -> None:
        """Begin the trial of a delta that was pushed just now: no clock but this process's own has a say."""
        if delta.trial is not None:
            self._met[delta.stamp.digest] = delta
            self._runs.meet(delta, self._clock.now_s())

    def is_undone(self, delta: Delta) -> bool:
        """Return whether a trial is over; one that is met here for the first time may have begun long ago."""
        if not self._runs.knows(delta):
            self._met[delta.stamp.digest] = delta
            self._runs.meet(delta, self._clock.now_s(), age_s=age_s(delta, self._clock.wall()))
        return self._runs.is_undone(delta)

    def is_running(self, delta: Delta) -> bool:
        """Return whether a delta's values are in use for a while only."""
        return delta.trial is not None and not self._runs.is_undone(delta)

    def tick(self) -> tuple[Delta, ...]:
        """End what is due, and return it."""
        return self._runs.tick(self._clock.now_s())

    def next_s(self) -> float:
        """Return when :meth:`tick` or :meth:`note` has something to do; infinity where neither has."""
        if self._runs.is_at_rest:
            return float("inf")
        now_s = self._clock.now_s()
        return now_s if self._runs.wants_note(now_s) else self._runs.next_s()

    def note(self) -> None:
        """Write down what is left of the trials, where that is due."""
        now_s = self._clock.now_s()
        if not self._runs.wants_note(now_s):
            return
        self._met = {digest: delta for digest, delta in self._met.items() if self._is_held(delta)}
        try:
            with disk_quiet:
                self._store.write(self._runs.marks(now_s, self._wall_ms(), self._met))
        except SurroundingsError as error:
            if not self._complained:
                _log.warning("what is left of trials is not kept over a restart: %s", error)
            self._complained = True

    def reports(self, registers: Iterable[Register]) -> tuple[TrialReport, ...]:
        """Return the newest trials among winners, each with its first keys and what is left of it."""
        now_s, found = self._clock.now_s(), {}
        for one in registers:
            if one.delta.trial is not None:
                found[one.delta.stamp.digest] = one.delta
        newest = sorted(found.values(), key=lambda delta: (delta.stamp.gen, delta.stamp.epoch))[-MAX_REPORTED:]
        return tuple(self._report(delta, now_s) for delta in newest)

    def _report(self, delta: Delta, now_s: float) -> TrialReport:
        # Never 0 while it runs: 0 is the word for over.
        left_s = max(1, round(self._runs.left_s(delta, now_s))) if self.is_running(delta) else 0
        keys = tuple(item.key for item in delta.assign[:MAX_REPORTED])
        canary = "" if delta.trial is None else delta.trial.canary
        return TrialReport(delta.scope, delta.stamp.epoch, delta.stamp.digest.hex(), keys, left_s, canary)
