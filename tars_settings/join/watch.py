"""Watching a live object: one object that is both iterators, and callbacks on a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import msgspec
from pydantic import BaseModel

from tars_settings.core.names import overlap
from tars_settings.errors import UsageError
from tars_settings.settings.live import diff

T = TypeVar("T", bound=BaseModel)

_log: Final = logging.getLogger("tars_settings.watch")


class Change(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """A change as a consumer sees it: from the snapshot that it saw last to the newest.

    ``fields`` are the dotted paths that differ, ``epoch`` is the highest of the worker's scopes.
    """

    old: T
    new: T
    fields: frozenset[str]
    epoch: int


def is_wanted(fields: frozenset[str], wanted: tuple[str, ...]) -> bool:
    """Return whether a change of *fields* concerns any of the *wanted* paths, themselves or below; all where none."""
    if not wanted:
        return bool(fields)
    return any(overlap(field, want) for field in fields for want in wanted)


class Watch(Generic[T]):
    """Changes of one live object for one consumer, as ``for`` and as ``async for``.

    Registered when it is made. A slow consumer gets the newest state; ``old`` is what it saw last, so nothing lies
    between. It ends when the join is left, or when :meth:`close` is called. One consumer a watch.
    """

    def __init__(self, seen: T, wanted: tuple[str, ...]) -> None:
        self._seen = seen
        self._wanted = wanted
        self._newest: tuple[T, int] | None = None
        self._closed = False
        self._condition = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    # --- the agent's side --------------------------------------------------------------------------------------------

    def offer(self, snapshot: T, epoch: int) -> None:
        """Take note of the newest snapshot and wake the consumer; never blocks."""
        with self._condition:
            self._newest = (snapshot, epoch)
            self._wake()

    def close(self) -> None:
        """End the watch: iteration stops after what was not seen yet."""
        with self._condition:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        self._condition.notify_all()
        if self._waiter is not None:
            loop, future = self._waiter
            self._waiter = None
            # The consumer's loop may have been closed without a word.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future)

    # --- the consumer's side -----------------------------------------------------------------------------------------

    def _take(self) -> Change[T] | None:
        """Return the change that waits, if it concerns this consumer; under the lock."""
        if self._newest is None:
            return None
        (newest, epoch), self._newest = self._newest, None
        fields = diff(self._seen, newest)
        if not is_wanted(fields, self._wanted):
            return None
        change = Change(self._seen, newest, fields, epoch)
        self._seen = newest
        return change

    def next(self, timeout_s: float | None = None) -> Change[T] | None:
        """Return the next change, or None when none came within *timeout_s* or the watch has ended.

        Raises:
            UsageError: called where an event loop runs, which it would block; use ``async for``.
        """
        _refuse_in_loop()
        change: Change[T] | None = None

        def ready() -> bool:
            nonlocal change
            change = self._take()
            return change is not None or self._closed

        with self._condition:
            self._condition.wait_for(ready, timeout_s)
        return change

    def __iter__(self) -> Watch[T]:
        return self

    def __next__(self) -> Change[T]:
        change = self.next()
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self) -> Watch[T]:
        return self

    async def __anext__(self) -> Change[T]:
        while True:
            with self._condition:
                # Taken only here, never before an await: a consumer that is cancelled loses nothing.
                change = self._take()
                if change is not None:
                    return change
                if self._closed:
                    raise StopAsyncIteration
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._waiter = (loop, future)
            await future

    def __enter__(self) -> Watch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refuse_in_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("this would block the running event loop; use 'async for', or a thread")


Callback = Callable[[Change[T]], Any]


class _Subscription(Generic[T]):
    def __init__(self, callback: Callback[T], seen: T, wanted: tuple[str, ...], loop: Any) -> None:
        self.callback = callback
        self.seen = seen
        self.wanted = wanted
        self.loop = loop
        self.ended = False


class Callbacks(Generic[T]):
    """Runs callbacks in order on one thread, begun with the first of them.

    One that raises is logged and counted and stops nothing; one that blocks delays its successors, never the apply.
    """

    def __init__(self, name: str, count: Callable[[str], None]) -> None:
        self._name = name
        self._count = count
        self._subscriptions: list[_Subscription[T]] = []
        self._queue: deque[tuple[T, int]] = deque(maxlen=1)
        self._condition = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, callback: Callback[T], seen: T, wanted: tuple[str, ...]) -> Callable[[], None]:
        """Register a callback and return the function that ends it.

        Raises:
            UsageError: it is a coroutine function and no event loop runs here to run it in.
        """
        subscription = _Subscription(callback, seen, wanted, _loop_for(callback))
        with self._condition:
            self._subscriptions.append(subscription)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"tars-settings-{self._name}", daemon=True)
                self._thread.start()

        def end() -> None:
            subscription.ended = True
            with self._condition:
                if subscription in self._subscriptions:
                    self._subscriptions.remove(subscription)

        return end

    def offer(self, snapshot: T, epoch: int) -> None:
        """Take note of a new snapshot; never blocks."""
        with self._condition:
            self._queue.append((snapshot, epoch))
            self._condition.notify_all()

    def close(self) -> None:
        """End the thread after the callback that runs; harmless from within one."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                snapshot, epoch = self._queue.popleft()
                subscriptions = tuple(self._subscriptions)
            for subscription in subscriptions:
                self._tell(subscription, snapshot, epoch)

    def _tell(self, subscription: _Subscription[T], snapshot: T, epoch: int) -> None:
        fields = diff(subscription.seen, snapshot)
        if subscription.ended or not is_wanted(fields, subscription.wanted):
            return
        change = Change(subscription.seen, snapshot, fields, epoch)
        subscription.seen = snapshot
        try:
            outcome = subscription.callback(change)
            if inspect.isawaitable(outcome):
                asyncio.run_coroutine_threadsafe(_awaited(outcome), subscription.loop).result()
        except Exception as error:  # noqa: BLE001 - a user's callback: whatever it raises must stop nothing
            self._count("callback failures")
            # Names, never values: the message of a foreign exception may hold a setting.
            _log.error("a callback on %s raised %s at %s", self._name, type(error).__name__, _place(error))


async def _awaited(outcome: Awaitable[Any]) -> None:
    await outcome


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def _loop_for(callback: Callback[Any]) -> asyncio.AbstractEventLoop | None:
    if not inspect.iscoroutinefunction(callback):
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "a coroutine function as callback needs the event loop running where on_change() is called"
        ) from None


def alive(watches: Iterable[weakref.ref[Watch[T]]]) -> list[Watch[T]]:
    """Return the watches that somebody still holds: a ``for`` left by ``break`` keeps none."""
    return [watch for watch in (ref() for ref in watches) if watch is not None]
