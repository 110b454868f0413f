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
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
from pydantic import BaseModel

from tars_settings.core.names import overlap
from tars_settings.errors import UsageError
from tars_settings.settings.live import diff

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T", bound=BaseModel)
E = TypeVar("E")
S = TypeVar("S")
F = TypeVar("F", bound="Feed[Any]")

_log: Final = logging.getLogger("tars_settings.watch")

STATUSES_KEPT: Final = 64


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


class Feed(Generic[E]):
    """Events for one consumer, as ``for`` and as ``async for``; registered when it is made.

    It ends when the join is left, or when :meth:`close` is called. One consumer a feed.
    """

    def __init__(self) -> None:
        self._closed = False
        self._forked: Callable[[], None] | None = None
        self._condition = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def _take(self) -> E | None:
        """Return the event that waits, if there is one for this consumer; under the lock."""
        raise NotImplementedError

    # --- the agent's side --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the feed: iteration stops after what was not seen yet."""
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

    def forked(self, rejoin: Callable[[], None]) -> None:
        """In a forked child: the threads and loops that knew this are the parent's; the first use calls *rejoin*."""
        self._condition = threading.Condition()
        self._waiter = None
        self._forked = rejoin

    def _here(self) -> None:
        rejoin, self._forked = self._forked, None
        if rejoin is not None:
            rejoin()

    # --- the consumer's side -----------------------------------------------------------------------------------------

    def next(self, timeout_s: float | None = None) -> E | None:
        """Return the next event, or None when none came within *timeout_s* or the feed has ended.

        Raises:
            UsageError: called where an event loop runs, which it would block; use ``async for``.
        """
        _refuse_in_loop()
        self._here()
        event: E | None = None

        def ready() -> bool:
            nonlocal event
            event = self._take()
            return event is not None or self._closed

        with self._condition:
            self._condition.wait_for(ready, timeout_s)
        return event

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        if self._forked is not None:
            await asyncio.to_thread(self._here)
        while True:
            with self._condition:
                # Taken only here, never before an await: a consumer that is cancelled loses nothing.
                event = self._take()
                if event is not None:
                    return event
                if self._closed:
                    raise StopAsyncIteration
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._waiter = (loop, future)
            await future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Watch(Feed[Change[T]], Generic[T]):
    """Changes of one live object. A slow consumer gets the newest state.

    ``old`` is what it saw last, so nothing lies between.
    """

    def __init__(self, seen: T, wanted: tuple[str, ...]) -> None:
        super().__init__()
        self._seen = seen
        self._wanted = wanted
        self._newest: tuple[T, int] | None = None

    def offer(self, snapshot: T, epoch: int) -> None:
        """Take note of the newest snapshot and wake the consumer; never blocks."""
        with self._condition:
            self._newest = (snapshot, epoch)
            self._wake()

    def _take(self) -> Change[T] | None:
        if self._newest is None:
            return None
        (newest, epoch), self._newest = self._newest, None
        fields = diff(self._seen, newest)
        if not is_wanted(fields, self._wanted):
            return None
        change = Change(self._seen, newest, fields, epoch)
        self._seen = newest
        return change


class StatusWatch(Feed[S], Generic[S]):
    """What a worker says of itself, each time that the status word changes. A slow consumer gets the last few."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[S] = deque(maxlen=STATUSES_KEPT)

    def offer(self, status: S) -> None:
        """Take note of a status and wake the consumer; never blocks."""
        with self._condition:
            self._queue.append(status)
            self._wake()

    def _take(self) -> S | None:
        return self._queue.popleft() if self._queue else None


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
    """A callback; *wanted* is None for one on statuses."""

    def __init__(self, callback: Callable[[Any], Any], seen: T | None, wanted: tuple[str, ...] | None) -> None:
        self.callback = callback
        self.seen = seen
        self.wanted = wanted
        self.loop = _loop_for(callback)
        self.ended = False


class Callbacks(Generic[T]):
    """Runs callbacks in order on one thread, begun with the first of them.

    One that raises is logged and counted and stops nothing; one that blocks delays its successors, never the apply.
    """

    def __init__(self, name: str, count: Callable[[str], None]) -> None:
        self._name = name
        self._count = count
        self._subscriptions: list[_Subscription[T]] = []
        self._newest: tuple[T, int] | None = None
        self._statuses: deque[Any] = deque(maxlen=STATUSES_KEPT)
        self._condition = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._subscriptions)

    def add(self, callback: Callback[T], seen: T, wanted: tuple[str, ...]) -> Callable[[], None]:
        """Register a callback on changes and return the function that ends it.

        Raises:
            UsageError: it is a coroutine function and no event loop runs here to run it in.
        """
        return self._add(_Subscription(callback, seen, wanted))

    def add_on_status(self, callback: Callable[[Any], Any]) -> Callable[[], None]:
        """Register a callback on statuses; otherwise as :meth:`add`."""
        return self._add(_Subscription(callback, None, None))

    def _add(self, subscription: _Subscription[T]) -> Callable[[], None]:
        with self._condition:
            self._subscriptions.append(subscription)
            self._start()

        def end() -> None:
            subscription.ended = True
            with self._condition:
                if subscription in self._subscriptions:
                    self._subscriptions.remove(subscription)

        return end

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"tars-settings-{self._name}", daemon=True)
            self._thread.start()

    def forked(self) -> None:
        """In a forked child: the thread is the parent's; :meth:`revive` begins another."""
        self._condition = threading.Condition()
        self._thread = None

    def revive(self) -> None:
        """Begin anew in a forked child that joined again."""
        with self._condition:
            if self._subscriptions:
                self._start()

    def offer(self, snapshot: T, epoch: int) -> None:
        """Take note of a new snapshot; never blocks."""
        with self._condition:
            self._newest = (snapshot, epoch)
            if self._thread is not None:  # one that begins later looks before it waits
                self._condition.notify_all()

    def offer_status(self, status: Any) -> None:
        """Take note of a new status; never blocks."""
        with self._condition:
            self._statuses.append(status)
            self._condition.notify_all()

    def close(self) -> None:
        """End the thread after the callback that runs; harmless from within one."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._newest or self._statuses or self._closed)
                if self._closed:
                    return
                newest, self._newest = self._newest, None
                statuses = tuple(self._statuses)
                self._statuses.clear()
                subscriptions = tuple(self._subscriptions)
            for subscription in subscriptions:
                for status in statuses if subscription.wanted is None else ():
                    self._call(subscription, status)
                if newest is not None and subscription.wanted is not None:
                    self._tell(subscription, subscription.wanted, *newest)

    def _tell(self, subscription: _Subscription[T], wanted: tuple[str, ...], snapshot: T, epoch: int) -> None:
        seen = subscription.seen
        fields = diff(seen, snapshot)
        if seen is not None and is_wanted(fields, wanted):
            subscription.seen = snapshot
            self._call(subscription, Change(seen, snapshot, fields, epoch))

    def _call(self, subscription: _Subscription[T], event: Any) -> None:
        if subscription.ended:
            return
        try:
            outcome = subscription.callback(event)
            if inspect.isawaitable(outcome):
                loop: Any = subscription.loop
                asyncio.run_coroutine_threadsafe(_awaited(outcome), loop).result()
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


def alive(watches: Iterable[weakref.ref[F]]) -> list[F]:
    """Return the watches that somebody still holds: a ``for`` left by ``break`` keeps none."""
    return [watch for watch in (ref() for ref in watches) if watch is not None]
