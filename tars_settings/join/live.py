"""A live object: the newest snapshot as an attribute, and changes as they come."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pydantic_settings import BaseSettings

from tars_settings.agent.follower import Follower, Status
from tars_settings.agent.loop import Agent
from tars_settings.core.presence import State
from tars_settings.errors import ClosedError, ForkedError
from tars_settings.join.watch import Callback, Callbacks, Watch, alive

T = TypeVar("T", bound=BaseSettings)


class Live(Generic[T]):
    """One joined Settings class. Made by :func:`tars_settings.join` or :meth:`Fleet.join`.

    ``current`` is the newest validated snapshot, immutable; reading it costs an attribute read and takes no lock. After
    the join is left it stays what it was; in a forked child it is gone, and reading it raises ForkedError.
    """

    current: T

    def __init__(self, agent: Agent, follower: Follower[T]) -> None:
        self._agent = agent
        self._follower = follower
        self._watches: list[weakref.ref[Watch[T]]] = []
        self._callbacks: Callbacks[T] = Callbacks(follower.service, self._count)
        self._lock = threading.Lock()
        self._state_changed = threading.Condition()
        self._closed = False
        self.current = follower.current
        follower.on_swap = self._on_swap
        follower.on_state = self._on_state
        _register_for_fork(self)

    def __getattr__(self, name: str) -> Any:
        # Only reached when the attribute is not there: `current` is taken away in a forked child, so that frozen values
        # are never served in silence.
        if name == "current":
            raise ForkedError("this process was forked after the join; join again in the child")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<Live {self._follower.service}@{self._follower.instance} {self._follower.state()}>"

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def _on_swap(self, snapshot: T, epoch: int) -> None:
        self.current = snapshot
        with self._lock:
            watches = alive(self._watches)
            self._watches = [weakref.ref(watch) for watch in watches]
        for watch in watches:
            watch.offer(snapshot, epoch)
        self._callbacks.offer(snapshot, epoch)

    def _on_state(self, _: State) -> None:
        with self._state_changed:
            self._state_changed.notify_all()

    def _count(self, what: str) -> None:
        self._agent.counters[what] += 1

    # --- for the worker ----------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """What this worker says of itself: state, scopes, what is lacking, refused, shadowed and unknown."""
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

    def wait_until_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the worker is ready or degraded: whatever can be had is here. Return whether it is *ready*."""
        settled = ("ready", "degraded")
        with self._state_changed:
            self._state_changed.wait_for(lambda: self._closed or self._follower.state() in settled, timeout_s)
        return self._follower.state() == "ready"

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

    def leave(self, *, crashed: bool = False) -> None:
        """As :meth:`close`; *crashed* says that an error ends this worker, which counts against new values."""
        if self._closed:
            return
        self._closed = True
        with self._lock:
            watches = alive(self._watches)
            self._watches = []
        for watch in watches:
            watch.close()
        self._callbacks.close()
        with self._state_changed:
            self._state_changed.notify_all()
        if not self._agent.stopping:
            self._agent.call(lambda: self._end(crashed=crashed))

    def _end(self, *, crashed: bool) -> None:
        self._agent.remove_listener(self._follower)
        self._follower.end(crashed=crashed)

    def _epoch(self) -> int:
        registers = self._agent.replicator.peer.registers
        return max(registers.highest(scope)[1] for scope in self._follower.scopes)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the join of {self._follower.service} was left; join again")

    def _forget(self) -> None:
        """In a forked child: nothing here is ours."""
        self._closed = True
        self.__dict__.pop("current", None)


_lives: weakref.WeakSet[Live[Any]] = weakref.WeakSet()


def _register_for_fork(live: Live[Any]) -> None:
    _lives.add(live)


def _after_fork() -> None:
    for live in list(_lives):
        live._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
