"""A broker, a replica and an LKG without network or disk, for tests: ours, and those of whoever uses the library."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from typing import Final, Literal
from weakref import WeakValueDictionary

from tars_settings.core.records import (
    AuditRow,
    DeltaRow,
    FloorRow,
    FloorSegmentRow,
    HistoryRow,
    IndexRow,
    MarkRow,
    OutboxRow,
    Row,
    SegmentRow,
    TrustRow,
)
from tars_settings.core.session import (
    Acknowledged,
    Publish,
    Received,
    SessionDown,
    SessionEvent,
    SessionUp,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from tars_settings.errors import BrokerUnreachableError, ConfigurationError

SCHEME: Final = "memory://"


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether *topic* falls under *topic_filter* (MQTT 5, section 4.7).

    >>> matches("a/+/c", "a/b/c"), matches("a/#", "a"), matches("#", "$SYS/x"), matches("a/+", "a/b/c")
    (True, True, False, False)
    """
    if topic.startswith("$") != topic_filter.startswith("$"):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at >= len(levels) or want not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


class MemoryBroker:
    """Keeps the last retained publish of each topic and passes messages on at once. Every QoS is exactly once.

    Threads may share it. With *protocol* 4 it behaves as MQTT 3.1.1 does: live messages lose their retain flag, and
    every subscription replays what is retained.
    """

    def __init__(self, protocol: Literal[4, 5] = 5) -> None:
        self.protocol: Literal[4, 5] = protocol
        self.retained: dict[str, bytes] = {}
        self._lock = RLock()
        self._sessions: list[MemoryTransport] = []
        self._running = True

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Publish as any client could; an empty retained payload empties the topic."""
        with self._lock:
            if retain and payload:
                self.retained[topic] = payload
            elif retain:
                self.retained.pop(topic, None)
            received = Received(topic, payload, retain and self.protocol == 5)
            for session in self._sessions:
                if session.hears(topic):
                    session.deliver(received)

    def stop(self, *, forget: bool = False) -> None:
        """End all sessions, with their wills, and refuse new ones; with *forget* what was retained is gone."""
        with self._lock:
            self._running = False
            for session in tuple(self._sessions):
                self.drop(session)
            if forget:
                self.retained.clear()

    def start(self) -> None:
        """Accept sessions again."""
        with self._lock:
            self._running = True

    def drop(self, session: MemoryTransport) -> None:
        """End one session as a broken connection would; its will is published."""
        with self._lock:
            if session in self._sessions:
                self._sessions.remove(session)
                session.deliver(SessionDown("the connection was lost"))
                if session.will is not None:
                    self.publish(*session.will)

    def accept(self, session: MemoryTransport) -> None:
        """Begin a session.

        Raises:
            BrokerUnreachableError: the broker is stopped.
        """
        with self._lock:
            if not self._running:
                raise BrokerUnreachableError("the broker in memory is stopped")
            self._sessions.append(session)
            session.deliver(SessionUp(self.protocol, self.protocol == 5))

    def leave(self, session: MemoryTransport) -> None:
        """End a session that says goodbye, without its will."""
        with self._lock, contextlib.suppress(ValueError):
            self._sessions.remove(session)

    def replay(self, session: MemoryTransport, command: Subscribe) -> None:
        """Answer a Subscribe, and deliver what is retained under it where that is asked for."""
        with self._lock:
            session.deliver(Subscribed(command.ref))
            if command.replay or self.protocol == 4:
                for topic, payload in self.retained.items():
                    if any(matches(name, topic) for name in command.filters):
                        session.deliver(Received(topic, payload, retain=True))

    def is_up(self, session: MemoryTransport) -> bool:
        """Return whether the session lives."""
        return session in self._sessions


_named: Final[WeakValueDictionary[str, MemoryBroker]] = WeakValueDictionary()


def name_broker(name: str, broker: MemoryBroker) -> str:
    """Return the address under which this process reaches *broker*, for as long as somebody holds it."""
    _named[name] = broker
    return f"{SCHEME}{name}"


def broker_at(address: str) -> MemoryBroker:
    """Return the broker with this address.

    Raises:
        ConfigurationError: this process has none.
    """
    found = _named.get(address.removeprefix(SCHEME))
    if found is None:
        raise ConfigurationError(f"{address} is no broker of this process; a memory broker lives in one process only")
    return found


class MemoryTransport:
    """A session with a :class:`MemoryBroker`, fulfilling :class:`tars_settings.ports.Transport`.

    A socket pair stands for the connection, so a selector can wait for it.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._inbox: deque[SessionEvent] = deque()
        self._filters: set[str] = set()
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self.will: tuple[str, bytes] | None = None
        self._next_will: tuple[str, bytes] | None = None

    def connect(self) -> None:
        """Begin a session; SessionUp comes from the first read().

        Raises:
            BrokerUnreachableError: the broker is stopped.
        """
        self.close()
        self._pair = socket.socketpair()
        for end in self._pair:
            end.setblocking(False)
        self.will = self._next_will
        try:
            self._broker.accept(self)
        except BrokerUnreachableError:
            self._release()
            raise

    def hears(self, topic: str) -> bool:
        """Return whether one of its subscriptions covers *topic*."""
        return any(matches(name, topic) for name in self._filters)

    def deliver(self, event: SessionEvent) -> None:
        """Put an event into the inbox, from any thread."""
        self._inbox.append(event)
        pair = self._pair
        if pair is not None:
            # A full buffer means that a wake-up is under way already; a closed one, that its thread has just left.
            with contextlib.suppress(OSError):
                pair[1].send(b"\0")

    def fileno(self) -> int:
        """Return the waiting end of the pair, or -1."""
        return -1 if self._pair is None else self._pair[0].fileno()

    def pending(self) -> bool:
        """Return whether events wait."""
        return bool(self._inbox)

    def wants_write(self) -> bool:
        """Return False: commands are carried out at once."""
        return False

    def read(self) -> Sequence[SessionEvent]:
        """Return what arrived."""
        if self._pair is not None:
            with contextlib.suppress(BlockingIOError):
                while self._pair[0].recv(4096):
                    pass
        events: list[SessionEvent] = []
        while self._inbox:
            events.append(self._inbox.popleft())
        if any(isinstance(event, SessionDown) for event in events):
            self._release()
        return events

    def write(self) -> Sequence[SessionEvent]:
        """Return nothing: nothing waits to be written."""
        return ()

    def tick(self, now_s: float) -> Sequence[SessionEvent]:  # noqa: ARG002 (the port's)
        """Return nothing: nothing is due by time."""
        return ()

    def carry_out(self, command: Subscribe | Unsubscribe | Publish) -> None:
        """Carry a command out at once; without a session it is dropped."""
        if not self._broker.is_up(self):
            return
        match command:
            case Publish(ref, topic, payload, retain, qos):
                if qos:
                    self.deliver(Acknowledged(ref))
                self._broker.publish(topic, payload, retain=retain)
            case Subscribe():
                self._filters.update(command.filters)
                self._broker.replay(self, command)
            case Unsubscribe(filters):
                self._filters.difference_update(filters)

    def set_will(self, topic: str, payload: bytes) -> None:
        """Set the last will of sessions that are started from now on."""
        self._next_will = (topic, payload)

    def close(self) -> None:
        """Leave politely; harmless without a session."""
        self._broker.leave(self)
        self._release()

    def abandon(self) -> None:
        """Free the descriptors; the broker is not told."""
        self._release()

    def _release(self) -> None:
        pair, self._pair = self._pair, None
        for end in pair or ():
            end.close()
        self._filters.clear()
        self._inbox.clear()


class MemoryReplica:
    """Rows in a dictionary, with the same rules as the one on disk."""

    def __init__(self) -> None:
        self.rows: dict[tuple[object, ...], Row] = {}

    def load(self, scopes: Iterable[str] | None = None) -> Sequence[Row]:
        """Return the rows of *scopes* (all where None) and every TrustRow; trust first, by version."""
        wanted = None if scopes is None else set(scopes)
        trust = sorted(
            (row for row in self.rows.values() if isinstance(row, TrustRow)), key=lambda row: (row.version, row.digest)
        )
        others = [row for row in self.rows.values() if not isinstance(row, TrustRow | HistoryRow | AuditRow)]
        return [*trust, *(row for row in others if wanted is None or row.scope in wanted)]

    def history(self, scope: str, since: int = 0) -> Sequence[HistoryRow]:
        """Return what is kept of a scope's past, newest first."""
        found = [row for row in self.rows.values() if isinstance(row, HistoryRow)]
        kept = [row for row in found if row.scope == scope and row.epoch > since]
        return sorted(kept, key=lambda row: (row.gen, row.epoch, row.kid, row.digest), reverse=True)

    def audit(self) -> Sequence[AuditRow]:
        """Return the audit trail."""
        return [row for row in self.rows.values() if isinstance(row, AuditRow)]

    def apply(self, put: Sequence[Row], drop: Sequence[Row] = (), *, durable: bool = True) -> None:  # noqa: ARG002 (the port's)
        """Put and drop rows."""
        for row in put:
            held = self.rows.get(_identity(row))
            if held is None or _rank(row) >= _rank(held):
                self.rows[_identity(row)] = row
        for row in drop:
            held = self.rows.get(_identity(row))
            if held is not None and _rank(held) == _rank(row):
                del self.rows[_identity(row)]

    def close(self) -> None:
        """Keep everything: whoever opens it again is the same process."""


def _identity(row: Row) -> tuple[object, ...]:
    match row:
        case DeltaRow() | OutboxRow():
            return (type(row), row.digest)
        case TrustRow():
            return (TrustRow, row.version, row.digest)
        case IndexRow() | MarkRow() | FloorRow():
            return (type(row), row.scope, row.kid)
        case FloorSegmentRow():
            return (FloorSegmentRow, row.scope, row.hash)
        case HistoryRow():
            return (HistoryRow, row.scope, row.digest)
        case AuditRow():
            return (AuditRow, row.event, row.name)
        case SegmentRow():
            return (SegmentRow, row.scope, row.kid, row.n)


def _rank(row: Row) -> tuple[int, int, bytes]:
    match row:
        case IndexRow():
            return (0, row.counter, row.digest)
        case FloorRow():
            return (row.gen, row.epoch, row.digest)
        case MarkRow():
            return (row.gen, row.epoch, b"")
        case AuditRow():
            return (0, row.count, b"")
        case _:
            return (0, 0, b"")


class MemoryLkg:
    """Two slots in a list."""

    def __init__(self) -> None:
        self.slots: list[bytes | None] = [None, None]

    def read(self, slot: int) -> bytes | None:
        """Return the content of slot 0 (newest) or 1 (the one before)."""
        return self.slots[slot]

    def write(self, sealed: bytes, *, keep_previous: bool | Callable[[bytes], bool]) -> None:
        """Put *sealed* into slot 0; with *keep_previous* what was there moves to slot 1."""
        held = self.slots[0]
        keeps = held is not None and (keep_previous(held) if callable(keep_previous) else keep_previous)
        self.slots = [sealed, held if keeps else self.slots[1]]

    def close(self) -> None:
        """Keep everything."""
