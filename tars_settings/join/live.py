"""A live object: the newest snapshot as an attribute, and changes as they come."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from tars_settings.agent import notices
from tars_settings.agent.follower import Follower, Status
from tars_settings.agent.loop import STOP_WITHIN_S, Agent
from tars_settings.core.presence import State
from tars_settings.errors import ClosedError
from tars_settings.join.watch import Callback, Callbacks, Feed, StatusWatch, Watch, alive

T = TypeVar("T", bound=BaseSettings)
Joined = tuple[Agent, Follower[T]]

_log: Final = logging.getLogger("tars_settings.join")


class Live(Generic[T]):
    """One joined Settings class. Made by :func:`tars_settings.join` or :meth:`Fleet.join`.

    ``current`` is the newest validated snapshot, immutable; reading it costs an attribute read and takes no lock. After
    the join is left it stays what it was. In a forked child it joins again at the first use, with a connection of the
    child's own, and never serves what the parent had in silence.
    """

    current: T

    def __init__(self, joined: Joined[T], again: Callable[[], Joined[T]], begin: Callable[[Joined[T]], None]) -> None:
        self._again = again
        self._begin = begin
        self._watches: list[weakref.ref[Watch[T]]] = []
        self._status_watches: list[weakref.ref[StatusWatch[Status]]] = []
        self._callbacks: Callbacks[T] = Callbacks(joined[1].service, self._count)
        self._hooks: list[notices.Callback] = []
        self._closed = False
        self._forked = False
        self._renew_locks()
        self._adopt(joined)
        _lives.add(self)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._rejoining = threading.RLock()
        self._state_changed = threading.Condition()

    def _adopt(self, joined: Joined[T]) -> None:
        self._agent, self._follower = joined
        self.current = self._follower.current
        self._follower.on_swap = self._on_swap
        self._follower.on_state = self._on_state
        for hook in self._hooks:
            self._agent.board.add(hook)

    def __repr__(self) -> str:
        state = "of the process before the fork" if self._forked else self._follower.state()
        return f"<Live {self._follower.service}@{self._follower.instance} {state}>"

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def _on_swap(self, snapshot: T, epoch: int) -> None:
        self.current = snapshot
        if self._watches:  # one that is added this moment is offered the newest by itself
            with self._lock:
                watches = alive(self._watches)
                self._watches = [weakref.ref(watch) for watch in watches]
            for watch in watches:
                watch.offer(snapshot, epoch)
        self._callbacks.offer(snapshot, epoch)

    def _on_state(self, _: State) -> None:
        with self._state_changed:
            self._state_changed.notify_all()
        with self._lock:
            watches = alive(self._status_watches)
            self._status_watches = [weakref.ref(watch) for watch in watches]
        if watches or self._callbacks:
            status = self._follower.status()
            for watch in watches:
                watch.offer(status)
            self._callbacks.offer_status(status)

    def _count(self, what: str) -> None:
        self._agent.counters[what] += 1

    # --- for the worker ----------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """What this worker says of itself: state, scopes, what is lacking, refused, shadowed and unknown."""
        self._here()
        return self._follower.status()

    def watch(self, *keys: str) -> Watch[T]:
        """Return a watch on changes of *keys* (dotted field paths; all where none), registered from now on.

        It serves as ``for`` and as ``async for``.

        Raises:
            ClosedError: the join was left.
        """
        self._check_open()
        watch = Watch(self.current, keys)
        with self._lock:
            self._watches.append(weakref.ref(watch))
        # What was swapped in between making it and adding it is offered here; once more does no harm.
        watch.offer(self.current, self._epoch())
        return watch

    def watch_status(self) -> StatusWatch[Status]:
        """Return a watch on the status: the one now, then each one whose word (``state``) is another.

        It serves as ``for`` and as ``async for``.

        Raises:
            ClosedError: the join was left.
        """
        self._check_open()
        watch: StatusWatch[Status] = StatusWatch()
        with self._lock:
            self._status_watches.append(weakref.ref(watch))
        watch.offer(self._follower.status())
        return watch

    def on_change(self, callback: Callback[T], *keys: str) -> Callable[[], None]:
        """Have *callback* called with each change of *keys*, and return a function that ends this.

        Callbacks run one after the other on a thread of their own; a coroutine function runs in the event loop that
        runs where this is called.

        Raises:
            ClosedError: the join was left.
            UsageError: a coroutine function without a running event loop.
        """
        self._check_open()
        return self._callbacks.add(callback, self.current, keys)

    def on_status(self, callback: Callable[[Status], Any]) -> Callable[[], None]:
        """Have *callback* called with the status each time its word changes; otherwise as :meth:`on_change`."""
        self._check_open()
        return self._callbacks.add_on_status(callback)

    def on_notice(self, callback: notices.Callback) -> Callable[[], None]:
        """Have *callback* called with each notice of this connection, as :meth:`Fleet.on_notice` says.

        What the connection brought before is not told.

        Raises:
            ClosedError: the join was left.
            UsageError: it is a coroutine function.
        """
        self._check_open()
        hook, ended = notices.until_ended(callback)
        self._hooks.append(hook)
        stop = self._agent.board.add(hook)

        def end() -> None:
            ended.set()
            self._hooks = [one for one in self._hooks if one is not hook]
            stop()

        return end

    def wait_until_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the worker is ready or degraded: whatever can be had is here. Return whether it is *ready*."""
        self._here()
        settled = ("ready", "degraded")
        with self._state_changed:
            self._state_changed.wait_for(lambda: self._closed or self._follower.told in settled, timeout_s)
        return self._follower.told == "ready"

    def mark_good(self) -> None:
        """Say that the values in use are good: their probation ends now, and they are what a crash loop goes back to.

        Without it they are after thirty seconds (``TARS_SETTINGS_PROBATION_S``) in which this process lived.

        Raises:
            ClosedError: the join was left.
        """
        self._check_open()
        self._agent.submit(self._follower.mark_good)

    def close(self) -> None:
        """End watches and callbacks, and say that this worker is offline; harmless twice, and from a callback."""
        self.leave()

    def leave(self, *, crashed: bool = False, within_s: float = STOP_WITHIN_S) -> None:
        """As :meth:`close`; *crashed* says that an error ends this worker, which counts against new values."""
        if self._closed:
            return
        self._closed = True
        for feed in self._feeds():
            feed.close()
        self._callbacks.close()
        with self._state_changed:
            self._state_changed.notify_all()
        if not self._agent.stopping:
            self._agent.call(lambda: self._end(crashed=crashed), within_s)

    def _feeds(self) -> list[Feed[Any]]:
        with self._lock:
            return [*alive(self._watches), *alive(self._status_watches)]

    def refresh(self) -> None:
        """Validate anew; what changed without a push (a test overrides a value) is there when this returns.

        Raises:
            ValidationError: it does not validate; the snapshot is what it was.
        """
        if self._closed or self._forked or self._agent.stopping:
            return
        failures: list[Exception] = []

        def refresh() -> None:
            try:
                self._follower.refresh()
            except ValidationError as error:
                failures.append(error)

        self._agent.call(refresh)
        if failures:
            raise failures[0]

    def is_of(self, cls: type) -> bool:
        """Return whether its snapshots are of a class."""
        return issubclass(self._follower.cls, cls)

    def _end(self, *, crashed: bool) -> None:
        self._agent.remove_listener(self._follower)
        self._follower.end(crashed=crashed)

    def _epoch(self) -> int:
        registers = self._agent.replicator.peer.registers
        return max(registers.highest(scope)[1] for scope in self._follower.scopes)

    def _check_open(self) -> None:
        self._here()
        if self._closed:
            raise ClosedError(f"the join of {self._follower.service} was left; join again")

    # --- in a forked child -------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child, before anything else runs there: nothing here is ours, and no lock can be trusted."""
        self._renew_locks()
        feeds = self._feeds()
        self._callbacks.forked()
        if self._closed:
            return
        self._forked = True
        self.__dict__.pop("current", None)
        self.__class__ = _OfParent
        for feed in feeds:
            feed.forked(self._here)
        if self._callbacks:
            _log.warning(
                "%s: forked after the join: callbacks rest in this process until its live object is used here",
                self._follower.service,
            )

    def _here(self) -> None:
        """See to it that this process has joined; costs a comparison where it has."""
        if not self._forked:
            return
        with self._rejoining:
            if self._forked:
                joined = self._again()
                self._adopt(joined)
                self._forked = False
                self.__class__ = Live
                self._callbacks.revive()
                self._on_swap(self.current, self._epoch())
                self._begin(joined)
                _log.info("%s: joined again in a forked process", self._follower.service)


class _OfParent(Live[T]):
    """What a live object is in a forked child until it is used there: ``current`` is not there, and asking rejoins.

    A class of its own, since one with ``__getattr__`` makes every read of every attribute slower.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "current":
            self._here()
            return self.current
        raise AttributeError(f"'Live' object has no attribute {name!r}")


_lives: Final[weakref.WeakSet[Live[Any]]] = weakref.WeakSet()


def lives_of(cls: type) -> list[Live[Any]]:
    """Return the live objects of a class and its subclasses in this process."""
    return [live for live in list(_lives) if live.is_of(cls)]


def _after_fork() -> None:
    for live in list(_lives):
        live.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
