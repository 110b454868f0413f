"""Repair: publishing a winner again, from what is known of the broker only, suppressed and budgeted.

A suspicion (a lower, void or missing payload was seen) waits for a random delay, is probed again, and only then
published, so that of N peers about one or two publish (the timer of RFC 4654: with N = 10,000 as bound, 2 publishes per
lost key instead of 400). Seeing the winner retained by somebody else cancels it. Each round on one topic doubles its
pause; six rounds without a quiet while raise an alarm, and a budget bounds what a worker may publish at all, so a
hostile publisher gets little amplification.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import msgspec


class RepairPolicy(msgspec.Struct, frozen=True):
    """How soon and how often to repair; seconds and counts.

    ``peers`` bounds how many peers may hold the same winner. ``rate`` and ``burst`` are the budget for topics that were
    repaired before and did not stay so; ``first_rate`` and ``first_burst`` for a topic's first round, so that a broker
    without its memory is filled again quickly.
    """

    delay_s: float = 5.0
    peers: int = 10_000
    rate: float = 1.0
    burst: float = 20.0
    first_rate: float = 200.0
    first_burst: float = 1000.0
    max_pause_s: float = 600.0
    quiet_s: float = 120.0
    alarm_rounds: int = 6

    def delay(self, random: float) -> float:
        """Return the delay for a uniform *random* in (0, 1]: max(0, T(1 + ln u / ln N))."""
        if self.peers <= 1:
            return 0.0
        return max(0.0, self.delay_s * (1 + math.log(max(random, 1e-300)) / math.log(self.peers)))


class _Case(msgspec.Struct):
    rounds: int = 0
    last_s: float = 0.0
    due_s: float | None = None
    probing: bool = False
    found: bytes | None = None


class _Bucket:
    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at_s: float | None = None

    def take(self, now_s: float) -> float:
        """Take a token and return 0, or return after how many seconds there will be one."""
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


class Repairer:
    """Remembers suspicions and decides what is due. It publishes nothing itself."""

    def __init__(self, policy: RepairPolicy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._cases: dict[str, _Case] = {}
        self._heap: list[tuple[float, str]] = []  # entries whose case says another time are stale
        self._first = _Bucket(policy.first_rate, policy.first_burst)
        self._again = _Bucket(policy.rate, policy.burst)

    def reset(self) -> None:
        """Forget open suspicions (the session is gone); how often each topic was repaired stays."""
        for case in self._cases.values():
            case.due_s, case.probing = None, False

    def suspect(self, topic: str, found: bytes | None, now_s: float) -> None:
        """The broker seems to hold *found* (None: nothing) on *topic*, and a greater winner is held here."""
        case = self._cases.setdefault(topic, _Case())
        case.found = found
        if case.due_s is not None or case.probing:
            return
        if now_s - case.last_s > self._policy.quiet_s:
            case.rounds = 0
        pause = min(self._policy.max_pause_s, self._policy.delay_s * 2.0**case.rounds) if case.rounds else 0.0
        self._schedule(topic, case, max(now_s, case.last_s + pause) + self._policy.delay(1.0 - self._random()))

    def _schedule(self, topic: str, case: _Case, due_s: float) -> None:
        case.due_s = due_s
        heapq.heappush(self._heap, (due_s, topic))

    def _top(self) -> tuple[float, str] | None:
        while self._heap:
            due_s, topic = self._heap[0]
            case = self._cases.get(topic)
            if case is not None and case.due_s == due_s:
                return due_s, topic
            heapq.heappop(self._heap)
        return None

    def settle(self, topic: str) -> None:
        """The broker holds the winner: cancel."""
        case = self._cases.get(topic)
        if case is not None:
            case.due_s, case.probing = None, False
            if not case.rounds:
                del self._cases[topic]

    def due(self, now_s: float) -> tuple[str, ...]:
        """Return the topics whose delay is over; they are to be probed once more, and count as probing."""
        topics = []
        while (top := self._top()) is not None and top[0] <= now_s:
            self._cases[top[1]].due_s, self._cases[top[1]].probing = None, True
            topics.append(top[1])
        return tuple(topics)

    def is_open(self, topic: str) -> bool:
        """Return whether the topic is suspected, or waits for the probe that decides."""
        case = self._cases.get(topic)
        return case is not None and (case.probing or case.due_s is not None)

    def is_probing(self, topic: str) -> bool:
        """Return whether the topic waits for the probe that decides."""
        case = self._cases.get(topic)
        return case is not None and case.probing

    def allow(self, topic: str, now_s: float) -> int:
        """Return the round (1 and up) in which *topic* may be published now, or 0 when the budget delays it."""
        case = self._cases.setdefault(topic, _Case())
        case.probing = False
        wait_s = (self._again if case.rounds else self._first).take(now_s)
        if wait_s > 0:
            self._schedule(topic, case, now_s + wait_s)
            return 0
        case.rounds += 1
        case.last_s = now_s
        return case.rounds

    def is_fight(self, topic: str) -> bool:
        """Return whether the topic has just reached the rounds that raise an alarm."""
        case = self._cases.get(topic)
        return case is not None and case.rounds == self._policy.alarm_rounds

    def forget_quiet(self, now_s: float) -> None:
        """Drop topics that nothing happened to for a while, so that memory does not grow with every topic ever hurt."""
        quiet = [
            topic
            for topic, case in self._cases.items()
            if case.due_s is None and not case.probing and now_s - case.last_s > self._policy.quiet_s
        ]
        for topic in quiet:
            del self._cases[topic]

    def next_wake_s(self) -> float:
        """Return when something is due, infinity where nothing is."""
        top = self._top() if self._heap else None
        return math.inf if top is None else top[0]
