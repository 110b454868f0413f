"""The edge as Protocols: what the agent needs of a broker, a disk and a clock. Adapters fulfil them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from tars_settings.core.records import AuditRow, HistoryRow, Row
from tars_settings.core.session import Publish, SessionEvent, Subscribe, Unsubscribe


class Transport(Protocol):
    """One session at a time with one broker, driven from the agent's selector loop. It has no thread of its own."""

    def connect(self) -> None:
        """Start a session; blocks at most for the connect deadline. SessionUp comes later, from read().

        Raises:
            BrokerUnreachableError: no connection within the deadline. The transport can be tried again.
            BrokerUnsuitableError: the broker refuses for good (credentials, TLS); trying again soon is no use.
        """

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1 when there is none."""

    def pending(self) -> bool:
        """Return whether bytes wait in a buffer that a selector cannot see (TLS)."""

    def wants_write(self) -> bool:
        """Return whether packets wait to be written."""

    def read(self) -> Sequence[SessionEvent]:
        """Read until nothing is left (or a fair share was taken) and return what it brought, in order."""

    def write(self) -> Sequence[SessionEvent]:
        """Write what waits, as far as the socket takes it."""

    def tick(self, now_s: float) -> Sequence[SessionEvent]:
        """Do what is due by time: keepalive, the CONNACK deadline. Called about once a second."""

    def carry_out(self, command: Subscribe | Unsubscribe | Publish) -> None:
        """Hand a command to the session; without a session it is dropped."""

    def set_will(self, topic: str, payload: bytes) -> None:
        """Set the last will (retained, QoS 1) for sessions that are started from now on."""

    def close(self) -> None:
        """End the session politely and free its descriptors. Harmless when there is none."""

    def abandon(self) -> None:
        """Free everything without a word to the broker: for a forked child, whose parent owns the session."""


class ReplicaStore(Protocol):
    """A peer's durable rows. Several processes may have it open."""

    def load(self, scopes: Iterable[str] | None = None) -> Sequence[Row]:
        """Return the rows of *scopes* (all where None) and every TrustRow; trust first, by version.

        Raises:
            ReplicaError: it can't be read. A damaged file was moved aside, and an empty one begun, where possible.
        """

    def apply(self, put: Sequence[Row], drop: Sequence[Row] = (), *, durable: bool = True) -> None:
        """Put and drop rows in one transaction; with *durable* it is on the disk when this returns.

        Raises:
            ReplicaError: nothing was changed.
        """

    def history(self, scope: str, since: int = 0) -> Sequence[HistoryRow]:
        """Return what is kept of a scope's past besides its DeltaRows, of epochs above *since*, newest first.

        Raises:
            ReplicaError: as load.
        """

    def audit(self) -> Sequence[AuditRow]:
        """Return the audit trail, in no order.

        Raises:
            ReplicaError: as load.
        """

    def close(self) -> None:
        """Close it; harmless twice."""


class LkgStore(Protocol):
    """Two slots of sealed bytes for one service."""

    def read(self, slot: int) -> bytes | None:
        """Return the content of slot 0 (newest) or 1 (the one before), None where it is empty.

        Raises:
            LkgError: it can't be read, or holds something that we never write.
        """

    def write(self, sealed: bytes, *, keep_previous: bool | Callable[[bytes], bool]) -> None:
        """Put *sealed* into slot 0; with *keep_previous* what was there moves to slot 1.

        *keep_previous* may be a question about what is there, asked where no other process can write in between.

        Raises:
            LkgError: it can't be written; what was there is still there.
        """

    def close(self) -> None:
        """Close it; harmless twice."""


class Clock(Protocol):
    """Time and randomness as arguments."""

    def now_s(self) -> float:
        """Return seconds on a clock that never goes back."""

    def wall(self) -> datetime:
        """Return the time of day in UTC: for people, and as a hint how old something is. It may be wrong."""

    def random(self) -> float:
        """Return a random number in [0, 1)."""

    def token(self, size: int) -> bytes:
        """Return *size* random bytes fit for keys and nonces."""
