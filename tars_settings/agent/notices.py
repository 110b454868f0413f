"""Notices: what a process may be told of what happens to its settings, on a thread of their own.

They name things, and hold no value: a notice may be logged, counted and sent on as it is.
"""

from __future__ import annotations

import inspect
import logging
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from tars_settings.core.delta import Delta
from tars_settings.core.session import Received, SessionDown, SessionUp
from tars_settings.errors import UsageError
from tars_settings.gossip import effects

_log: Final = logging.getLogger("tars_settings.notices")

KEPT: Final = 1024
"""Notices that wait for slow callbacks; of more, the oldest are dropped and counted."""


class Notice(msgspec.Struct, frozen=True):
    """Something that happened. ``kind`` is its class's name."""

    @property
    def kind(self) -> str:
        """What it is, in one word."""
        return type(self).__name__

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values, ``kind`` among them."""
        plain = msgspec.structs.asdict(self)
        return {"kind": self.kind} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()
        }


class Applied(Notice, frozen=True):
    """A valid delta won at least one key. ``writer`` is a key id, ``way`` how it came: live, probe, own and so on."""

    scope: str
    keys: tuple[str, ...]
    gen: int
    epoch: int
    digest: str
    writer: str
    at: str
    by: str
    reason: str
    way: str


class Refused(Notice, frozen=True):
    """The model of a worker here refused a delta: its keys, and pydantic's message (without values)."""

    service: str
    instance: str
    scope: str
    epoch: int
    digest: str
    keys: tuple[str, ...]
    message: str


class Rejected(Notice, frozen=True):
    """Bytes from outside did not pass, and nothing of them was used. ``reason`` is a fixed word."""

    topic: str
    reason: str
    writer: str = ""


class Repaired(Notice, frozen=True):
    """A winner was published again, because the broker held ``found`` instead."""

    topic: str
    found: str
    round: int


class RepairFight(Notice, frozen=True):
    """A topic was repaired again and again: something keeps publishing ``other`` (a hash) there. An alarm."""

    topic: str
    other: str


class Conflict(Notice, frozen=True):
    """Two deltas replace the same at one key, by digest and key id of their writers; told once for each pair."""

    scope: str
    key: str
    winner: str
    loser: str
    winning_writer: str
    losing_writer: str


class TrustChanged(Notice, frozen=True):
    """Another trust document is in force; ``voided`` deltas are gone with it."""

    version: int
    gen: int
    voided: int


class TrustQuarrel(Notice, frozen=True):
    """Two trust documents of one version are signed well; the higher digest is in force. An alarm."""

    version: int
    in_force: str
    other: str


class KeyShared(Notice, frozen=True):
    """The head of our own key moved without us: two hosts hold one writer's key. An alarm."""

    scope: str
    counter: int


class Session(Notice, frozen=True):
    """The session with the broker began (``up``) or ended (``down``, and why)."""

    state: Literal["up", "down"]
    reason: str = ""


Callback = Callable[[Notice], Any]


def until_ended(callback: Callback) -> tuple[Callback, threading.Event]:
    """Return *callback* as it is kept for more than one connection, and the event that ends it for all of them.

    Raises:
        UsageError: it is a coroutine function, which nobody would await.
    """
    if inspect.iscoroutinefunction(callback):
        raise UsageError(
            "a coroutine function can't be called with notices; take a function that hands them to the loop"
        )
    ended = threading.Event()

    def hook(notice: Notice) -> None:
        if not ended.is_set():
            callback(notice)

    return hook, ended


class _Hook:
    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.ended = False


class NoticeBoard:
    """Runs callbacks with each notice, in order, on one thread that begins with the first of them.

    A listener of the agent: what it does in the agent's thread is to note and go on. A callback that raises is logged
    and counted (``notice failures``) and stops nothing; one that blocks delays its successors, never the agent. Where
    more wait than are kept, the oldest are dropped and counted (``notices dropped``).
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._hooks: tuple[_Hook, ...] = ()
        self._waiting: deque[Notice] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    # --- from any thread ---------------------------------------------------------------------------------------------

    def add(self, callback: Callback) -> Callable[[], None]:
        """Have *callback* called with each notice from now on, and return a function that ends this."""
        hook = _Hook(callback)
        with self._changed:
            self._hooks = (*self._hooks, hook)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tars-settings-notices", daemon=True)
                self._thread.start()

        def end() -> None:
            hook.ended = True
            with self._changed:
                self._hooks = tuple(one for one in self._hooks if one is not hook)

        return end

    def close(self) -> None:
        """End the thread once it has told what waits; harmless twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def offer(self, notice: Notice) -> None:
        """Take note of something that happened; never blocks."""
        if not self._hooks:
            return
        with self._changed:
            if len(self._waiting) >= KEPT:
                self._waiting.popleft()
                self._counters["notices dropped"] += 1
            self._waiting.append(notice)
            self._changed.notify_all()

    def on_session(self, event: SessionUp | SessionDown) -> None:
        """Tell that a session began or ended."""
        self.offer(Session("up") if isinstance(event, SessionUp) else Session("down", event.reason))

    def on_burst(self, notices: Sequence[effects.Notice]) -> None:
        """Tell what a burst brought."""
        if self._hooks:
            for one in notices:
                for told in _told(one):
                    self.offer(told)

    def on_message(self, received: Received) -> None:
        """Say nothing: presence and schemas are not ours to tell."""

    # --- in the board's own ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                notice = self._waiting.popleft()
                hooks = self._hooks
            for hook in hooks:
                if not hook.ended:
                    self._call(hook, notice)

    def _call(self, hook: _Hook, notice: Notice) -> None:
        try:
            hook.callback(notice)
        except Exception as error:  # noqa: BLE001 - a user's callback: whatever it raises stops nothing of ours
            self._counters["notice failures"] += 1
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
            # Not its message: it may hold what the callback read elsewhere.
            _log.error("a callback on %s raised %s at %s", notice.kind, type(error).__name__, where)


def _told(notice: effects.Notice) -> Iterator[Notice]:
    """Yield what is told of a notice of the replicator's: most of them are for the agent alone."""
    match notice:
        case effects.Merged(delta, "applied", way):
            yield _applied(delta, way)
        case effects.Rejected(topic, reason, kid):
            yield Rejected(topic, reason, kid)
        case effects.Repaired(topic, found, number):
            yield Repaired(topic, found, number)
        case effects.RepairFight(topic, other):
            yield RepairFight(topic, other)
        case effects.Conflict(scope, key, winner, loser):
            digests = winner.stamp.digest.hex(), loser.stamp.digest.hex()
            yield Conflict(scope, key, *digests, winner.stamp.kid, loser.stamp.kid)
        case effects.TrustChanged(version, gen, voided):
            yield TrustChanged(version, gen, voided)
        case effects.TrustQuarrel(version, in_force, other):
            yield TrustQuarrel(version, in_force, other)
        case effects.ForeignHead(scope, counter):
            yield KeyShared(scope, counter)
        case _:
            pass


def _applied(delta: Delta, way: str) -> Applied:
    stamp, body = delta.stamp, delta.body
    keys = tuple(one.key for one in body.assign)
    return Applied(
        delta.scope,
        keys,
        stamp.gen,
        stamp.epoch,
        stamp.digest.hex(),
        stamp.kid,
        body.at,
        body.by,
        body.reason,
        way,
    )
