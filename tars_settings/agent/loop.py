"""The agent: a selector loop that carries out what the replicator wants.

Order of a burst: read and verify all that is there, swap snapshots, then store. What must be stored first (a trust
document before its use, an outbox row before its publication) says so and is. Plain changes of a connected worker wait
a moment for the disk: of many workers on a host none waits for another's. A report on them comes after they are stored.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tars_settings.agent.audit import AuditTrail
from tars_settings.agent.evidence import remembered_raws
from tars_settings.agent.notices import NoticeBoard
from tars_settings.agent.replays import Replays
from tars_settings.core.records import AuditRow, DeltaRow, HistoryRow, IndexRow, OutboxRow, SegmentRow, Unwritten
from tars_settings.core.session import (
    Publish,
    Received,
    SessionDown,
    SessionEvent,
    SessionUp,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from tars_settings.errors import BrokerUnreachableError, BrokerUnsuitableError, ClosedError, ForkedError, ReplicaError
from tars_settings.gossip.effects import (
    Effect,
    Event,
    HeldBack,
    Loaded,
    Merged,
    Notice,
    Persist,
    Rejected,
    Stage,
    Wake,
)
from tars_settings.gossip.replicator import Replicator
from tars_settings.ports import Clock, ReplicaStore, Transport

_log: Final = logging.getLogger("tars_settings.agent")

TICK_S: Final = 1.0
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MOST_S: Final = 30.0
UNSUITABLE_PAUSE_S: Final = 60.0
STOP_WITHIN_S: Final = 5.0
STORE_WITHIN_S: Final = 0.25
STORE_SOON_S: Final = 0.05
"""For how long a change waits for the disk, and for others to share a transaction with; last known good values wait as
long."""
DEAF_BATCHES: Final = 2
MOST_DEAF_SESSIONS: Final = 3
HEARING_S: Final = 60.0
"""A session that delivers after so long is no deaf one; the next that seems to be is left early again."""


_CHANGES: Final = frozenset({DeltaRow, HistoryRow})
_HEADS: Final = frozenset({IndexRow, SegmentRow})


class Listener(Protocol):
    """Whoever wants to know, in the agent's thread, what a burst brought. It must not block."""

    def on_session(self, event: SessionUp | SessionDown) -> None:
        """A session began or ended."""

    def on_burst(self, notices: Sequence[Notice]) -> None:
        """These things happened, in this order; the registers are as they are after all of them."""

    def on_message(self, received: Received) -> None:
        """A message on a topic that the replicator does not follow (presence, schemas)."""


class Agent:
    """One thread, one session with one broker, one replicator.

    *transport* may be None: then there is no network at all, only the replica.
    """

    def __init__(
        self,
        replicator: Replicator,
        transport: Transport | None,
        replica: ReplicaStore,
        clock: Clock,
        *,
        extra_topics: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.replicator = replicator
        self.clock = clock
        self.counters: Counter[str] = Counter()
        self.connected = False
        self.ever_connected = False
        self.disconnect_reason = ""
        self.unstored = ""
        self._transport = transport
        self._replica = replica
        self._is_extra = extra_topics
        # Before any other listener: what happened is told before what came of it.
        self.board = NoticeBoard(self.counters)
        self._listeners: list[Listener] = [self.board]
        self._jobs: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._own_refs = itertools.count(-1, -1)
        marker = replicator.marker_topic
        self._replays = Replays(lambda payload: self.publish(marker, payload, retain=False))
        self._notices: list[Notice] = []
        self._audit = AuditTrail(replicator.peer, self.record, clock.wall, clock.token(4).hex())
        self._unwritten = Unwritten()
        self._store_waits = False
        self._stopping = False
        self._has_will = False
        self._deaf_sessions = 0
        self._up_s = 0.0
        self._attempts = 0
        self._connect_s = 0.0
        self._tick_s = 0.0
        self._watched = (-1, 0)
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        _agents.add(self)

    # --- from any thread ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread (a daemon: an interpreter that ends does not wait for it)."""
        self._thread = threading.Thread(target=self._run, name="tars-settings", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Have *job* run in the agent's thread, soon.

        Raises:
            ClosedError: the agent was stopped.
            ForkedError: it belongs to the parent process.
        """
        if os.getpid() != self._pid:
            raise ForkedError("this connection belongs to the process before the fork; open another in this one")
        if self._stopping:
            raise ClosedError("this connection to the fleet was closed")
        self._jobs.append(job)
        self._wake()

    def call(self, job: Callable[[], None], timeout_s: float = STOP_WITHIN_S) -> bool:
        """Have *job* run in the agent's thread and wait for it; return whether it ran in time."""
        if threading.current_thread() is self._thread:
            job()
            return True
        done = threading.Event()

        def run() -> None:
            job()
            done.set()

        self.submit(run)
        return done.wait(timeout_s)

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """End the session and the thread; harmless twice, and from the agent's own thread."""
        if self._stopping or os.getpid() != self._pid:
            return
        self._stopping = True
        self._wake()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(within_s)

    @property
    def stopping(self) -> bool:
        """Whether the agent was stopped, or belongs to a parent process."""
        return self._stopping

    def _wake(self) -> None:
        # A full pipe means that a wake is already on its way; a closed one, that the thread has ended.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_out.send(b"\0")

    # --- in the agent's thread, for listeners ------------------------------------------------------------------------

    def add_listener(self, listener: Listener) -> None:
        """Add a listener; call it before start(), or in a job."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Remove a listener; call it in a job."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run *action* in the agent's thread after a while."""
        heapq.heappush(self._timers, (self.clock.now_s() + delay_s, next(self._sequence), action))

    def feed(self, event: Event) -> None:
        """Give an event to the replicator and carry out what it wants."""
        self._carry_out(self.replicator.handle(event, self.clock.now_s()))

    def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Publish something of our own (presence, a schema); without a session it is dropped."""
        self._send(Publish(next(self._own_refs), topic, payload, retain))

    def subscribe(self, filters: tuple[str, ...], on_replayed: Callable[[], None] | None = None) -> None:
        """Subscribe, with a replay, to something that the replicator does not follow.

        *on_replayed* is called, in this thread, when all that was retained has arrived; never where the session ends
        before, or the broker lets no marker through.
        """
        ref = next(self._own_refs)
        if on_replayed is not None:
            self._replays.expect(ref, on_replayed)
        self._send(Subscribe(ref, filters, qos=1, replay=True))

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Unsubscribe from what :meth:`subscribe` subscribed to."""
        self._send(Unsubscribe(filters))

    def note(self, notice: Notice) -> None:
        """Have something told to the listeners with the rest of this burst: what the replicator does not see."""
        self._notices.append(notice)

    def set_will(self, topic: str, payload: bytes) -> None:
        """Set the last will of sessions to come, unless there is one."""
        if self._transport is not None and not self._has_will:
            self._has_will = True
            self._transport.set_will(topic, payload)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take in what the replica holds; call it once, before start()."""
        try:
            rows = tuple(self._replica.load())
        except ReplicaError as error:
            self._note_unstored(error)
            rows = ()
        self.feed(Loaded(rows))
        self._finish_burst(loading=True)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._guarded_turn()
        finally:
            self._end()

    def _guarded_turn(self) -> None:
        try:
            self._turn()
        except Exception:  # noqa: BLE001 - the one place
            # The top of the loop: a bug met here must not end the only thread that keeps settings true, and must not
            # spin. The session is begun anew, so that nothing half done stays.
            _log.exception("a turn of the agent failed; the session is begun anew")
            self.counters["agent failures"] += 1
            self._drop_session("a failure of our own")

    def _turn(self) -> None:
        self._connect_if_due()
        transport = self._transport
        timeout_s = 0.0 if self._jobs else self._timeout_s()
        if transport is not None and transport.pending():
            timeout_s = 0.0
        self._watch_socket()
        mask = 0
        for key, found in self._selector.select(timeout_s):
            if key.fileobj is self._wake_in:
                self._drain_wakes()
            else:
                mask = found
        self._serve_transport(mask)
        self._run_jobs()
        self._run_timers()
        # Before what was put off, too: whoever waits for readiness waits for no signature that is checked behind it.
        self._finish_burst()
        if self.replicator.next_wake_s() <= self.clock.now_s():
            self.feed(Wake())
            self._leave_if_deaf()
            self._finish_burst()
        if transport is not None and transport.wants_write():
            self._take(transport.write())

    def _leave_if_deaf(self) -> None:
        """Begin a session anew in which the broker answers pings and delivers nothing, not even our own markers.

        Only a few times: where no marker may be published, silence is all that there will be. Each time with more
        patience, for the broker may be slow, and would have all of it to do once more: a NATS cluster that lacks a
        member spends five seconds on a third of its subscriptions, and refuses whoever comes back before it is through;
        amqtt looks through all that it retains for each topic that it is asked for.
        """
        patience = DEAF_BATCHES * 2**self._deaf_sessions
        if self.connected and self.replicator.unheard >= patience and self._deaf_sessions < MOST_DEAF_SESSIONS:
            self._deaf_sessions += 1
            self.counters["deaf sessions"] += 1
            _log.warning("the broker delivers nothing on this connection; it is begun anew")
            self._drop_session("the broker delivers nothing")

    def _serve_transport(self, mask: int) -> None:
        transport = self._transport
        if transport is None:
            return
        if mask & selectors.EVENT_READ or transport.pending():
            self._take(transport.read())
            self._tell()  # before anything else: what came is to be seen
        if mask & selectors.EVENT_WRITE:
            self._take(transport.write())
        now_s = self.clock.now_s()
        if now_s >= self._tick_s:
            self._tick_s = now_s + TICK_S
            self._take(transport.tick(now_s))

    def _timeout_s(self) -> float:
        now_s = self.clock.now_s()
        due_s = min(self.replicator.next_wake_s(), self._timers[0][0] if self._timers else float("inf"))
        if self._transport is not None:
            due_s = min(due_s, self._tick_s if self._transport.fileno() >= 0 else self._connect_s)
        return max(0.0, min(due_s - now_s, 3600.0))

    def _watch_socket(self) -> None:
        if self._transport is None:
            return
        fd = self._transport.fileno()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if fd >= 0 and self._transport.wants_write() else 0)
        if (fd, events) == self._watched:
            return
        self._forget_socket()
        if fd >= 0:
            self._selector.register(fd, events)
        self._watched = (fd, events)

    def _forget_socket(self) -> None:
        # By the saved number: the library closes its socket itself, and a closed one has no number any more. Before
        # every connect, too: the new socket may get the number of the old one, which the kernel has forgotten.
        if self._watched[0] >= 0:
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._selector.unregister(self._watched[0])
        self._watched = (-1, 0)

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_in.recv(4096)) == 4096:
                pass

    def _run_jobs(self) -> None:
        for _ in range(len(self._jobs)):
            self._jobs.popleft()()

    def _run_timers(self) -> None:
        now_s = self.clock.now_s()
        while self._timers and self._timers[0][0] <= now_s:
            heapq.heappop(self._timers)[2]()

    # --- session -----------------------------------------------------------------------------------------------------

    def _connect_if_due(self) -> None:
        transport = self._transport
        if transport is None or transport.fileno() >= 0 or self.clock.now_s() < self._connect_s:
            return
        self._forget_socket()
        try:
            transport.connect()
        except BrokerUnsuitableError as error:
            self._retry(str(error), UNSUITABLE_PAUSE_S)
        except BrokerUnreachableError as error:
            self._retry(str(error), 0.0)
        else:
            # Until it is accepted the next attempt is already put off: a broker that accepts and hangs up at once must
            # not be hammered.
            self._put_off(0.0)

    def _retry(self, reason: str, least_s: float) -> None:
        level = logging.WARNING if self._attempts == 0 else logging.DEBUG
        _log.log(level, "no connection to the broker: %s", reason, extra={"tars_attempts": self._attempts})
        self.disconnect_reason = reason
        self.counters["failed connects"] += 1
        self._put_off(least_s)

    def _put_off(self, least_s: float) -> None:
        # Full jitter: after a broker's restart a fleet comes back spread over the window, not at once.
        window_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(self._attempts, 10))
        self._attempts += 1
        self._connect_s = self.clock.now_s() + least_s + self.clock.random() * window_s

    def _drop_session(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.close()
        if self.connected:
            self._take([SessionDown(reason)])
        self._put_off(0.0)

    def _take(self, events: Sequence[SessionEvent]) -> None:
        if self._deaf_sessions:
            self._forget_deafness(events)
        for event in events:
            match event:
                case Received():
                    self._on_received(event)
                case SessionUp():
                    self._on_up(event)
                case SessionDown():
                    self._on_down(event)
                case Subscribed(ref) if ref < 0:
                    self._replays.on_subscribed(ref)
                case _:
                    self.feed(event)

    def _on_received(self, event: Received) -> None:
        if event.topic == self.replicator.marker_topic and self._replays.on_marker(event.payload):
            return
        if self._is_extra(event.topic):
            for listener in tuple(self._listeners):
                listener.on_message(event)
        else:
            self.feed(event)

    def _forget_deafness(self, events: Sequence[SessionEvent]) -> None:
        if self.clock.now_s() < self._up_s + HEARING_S:
            return
        if any(isinstance(event, Received) for event in events):
            self._deaf_sessions = 0

    def _on_up(self, event: SessionUp) -> None:
        self._attempts = 0
        self._up_s = self.clock.now_s()
        self.connected = self.ever_connected = True
        self.disconnect_reason = ""
        self._replays.reset()
        self.counters["sessions"] += 1
        _log.info("connected, MQTT %s", "5" if event.protocol == 5 else "3.1.1")
        self.feed(event)
        for listener in tuple(self._listeners):
            listener.on_session(event)

    def _on_down(self, event: SessionDown) -> None:
        was, self.connected = self.connected, False
        self.disconnect_reason = event.reason
        _log.log(logging.WARNING if was else logging.DEBUG, "connection lost: %s", event.reason or "closed")
        self._forget_socket()
        if was:
            self._put_off(0.0)
        self.feed(event)
        for listener in tuple(self._listeners):
            listener.on_session(event)

    # --- the record --------------------------------------------------------------------------------------------------

    def record(self, row: HistoryRow | AuditRow) -> None:
        """Have a row of the record written with this burst."""
        self._unwritten.note((row,))

    def history(self, scope: str) -> tuple[bytes, ...]:
        """Return the envelopes that the replica keeps besides what the registers hold; none where it can't be read."""
        self._store()
        try:
            return remembered_raws(self._replica, scope)
        except ReplicaError as error:
            self._note_unstored(error)
            return ()

    # --- effects -----------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        withheld = False
        for effect in effects:
            match effect:
                case Persist(put, drop, durable):
                    self._unwritten.note(put, drop)
                    if durable:
                        self._audit.note_trust(effects)
                        is_stored = self._store()
                        withheld = withheld or (not is_stored and any(isinstance(row, OutboxRow) for row in put))
                case Merged():
                    self._notices.append(effect)
                case Publish() | Subscribe() | Unsubscribe():
                    if not (withheld and isinstance(effect, Publish)):
                        self._send(effect)
                case Stage(ref) if withheld:
                    self._notices.append(Stage(ref, "refused", self.unstored, "ReplicaError"))
                case _:
                    self._notices.append(effect)

    def _send(self, command: Publish | Subscribe | Unsubscribe) -> None:
        if self._transport is not None:
            self._transport.carry_out(command)

    def _store(self) -> bool:
        """Write what waits; return whether it is on the disk. Registers in memory are true whether it is or not."""
        if not self._unwritten:
            return True
        put, drop = self._unwritten.take()
        try:
            with disk_quiet:
                self._replica.apply(put, drop)
        except ReplicaError as error:
            self._note_unstored(error)
            return False
        self.unstored = ""
        self.counters["transactions"] += 1
        return True

    def _note_unstored(self, error: ReplicaError) -> None:
        if not self.unstored:
            _log.warning("settings are not stored, and go on from memory: %s", error)
        self.unstored = str(error)
        self.counters["unstored"] += 1

    def _finish_burst(self, *, loading: bool = False) -> None:
        self._tell(loading=loading)
        if self._unwritten:
            self._store_when_due()

    def _tell(self, *, loading: bool = False) -> None:
        """Tell the listeners what came: they validate and swap."""
        if not self._notices:
            return
        notices, self._notices = self._notices, []
        for notice in notices:
            self._count(notice)
        for listener in tuple(self._listeners):
            listener.on_burst(notices)
        self._audit.on_burst(notices, self.clock.now_s(), loading=loading)

    def _store_when_due(self) -> None:
        """Store what a burst brought, or a little later what the broker has and would give again.

        Changes wait for those that follow, and for other workers on this host, which are to swap before anybody's disk
        is waited for. Heads wait while catching up: a join is a handful of round trips, and the trust document's
        transaction is the only one that must come before what rests on it.
        """
        within_s = self._may_wait_s()
        if not within_s:
            self._store()
        elif not self._store_waits:
            self._store_waits = True
            self.later(within_s, self.store)

    def _may_wait_s(self) -> float:
        if not self.connected:
            return 0.0
        kinds = self._unwritten.kinds()
        if kinds <= _CHANGES:
            return STORE_SOON_S
        return STORE_WITHIN_S if kinds <= _HEADS and self.replicator.is_catching_up else 0.0

    def store(self) -> None:
        """Write what waits, now: before anybody is told that it was applied."""
        self._store_waits = False
        self._store()

    def _count(self, notice: Notice) -> None:
        match notice:
            case Merged(fate=fate):
                self.counters[fate] += 1
            case Rejected(topic, reason):
                self.counters[f"rejected {reason}"] += 1
                if self.counters[f"rejected {reason}"] in (1, 10, 100, 1000, 10_000):
                    _log.warning(
                        "rejected on %s: %s (%d so far)",
                        ascii(topic)[:160],
                        reason,
                        self.counters[f"rejected {reason}"],
                    )
            case HeldBack():
                self.counters["held"] += 1
            case _:
                self.counters[type(notice).__name__] += 1

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._run_jobs()
        if self._transport is not None:
            if self._transport.fileno() >= 0:
                self._transport.write()
            self._transport.close()
        self._audit.flush()
        self.board.close()
        self._store()
        self._replica.close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def abandon(self) -> None:
        """In a forked child: let go of everything that is the parent's, without a word to the broker."""
        self._stopping = True
        self.connected = False
        if self._transport is not None:
            self._transport.abandon()
        self._selector.close()
        for end in (self._wake_in, self._wake_out):
            end.close()
        # For good: collecting it would close the parent's SQLite connection here, which SQLite forbids.
        _abandoned.append(self)


_abandoned: Final[list[Agent]] = []
_agents: Final[weakref.WeakSet[Agent]] = weakref.WeakSet()


class _DiskQuiet:
    """Held while something is written to the disk, and by whoever forks.

    A child that is born in the middle of a transaction holds a copy of it, and would roll it back on the parent's file.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        self._lock.acquire(timeout=STOP_WITHIN_S)

    def after_in_parent(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was not had in time
            self._lock.release()

    def after_in_child(self) -> None:
        self._lock = threading.RLock()


disk_quiet: Final = _DiskQuiet()


def _after_fork() -> None:
    disk_quiet.after_in_child()
    for agent in list(_agents):
        agent.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=disk_quiet.before_fork, after_in_parent=disk_quiet.after_in_parent, after_in_child=_after_fork
    )
