"""A transport driven as the agent's loop drives it, until something happened or the deadline passed."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tars_settings.core.session import SessionEvent, SessionUp
from tars_settings.ports import Transport
from tests.brokers import DEADLINE_S

E = TypeVar("E")


def pump(transport: Transport, done: Callable[[Sequence[SessionEvent]], object]) -> list[SessionEvent]:
    """Drive *transport* until *done* holds of the events so far, and return them.

    Raises:
        AssertionError: it did not within the deadline.
    """
    events: list[SessionEvent] = []
    end_s = time.monotonic() + DEADLINE_S
    while not done(events):
        assert time.monotonic() < end_s, f"in vain; {len(events)} events, at the end {events[-3:]!r:.500}"
        events += turn(transport)
    return events


def turn(transport: Transport, wait_s: float = 0.05) -> list[SessionEvent]:
    """Go once around the loop."""
    events: list[SessionEvent] = []
    with selectors.DefaultSelector() as selector:
        if transport.fileno() >= 0:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if transport.wants_write() else 0)
            selector.register(transport.fileno(), wanted)
        ready = selector.select(0 if transport.pending() else wait_s)
        masks = [mask for _, mask in ready]
        if transport.pending() or any(mask & selectors.EVENT_READ for mask in masks):
            events += transport.read()
        if any(mask & selectors.EVENT_WRITE for mask in masks):
            events += transport.write()
    return [*events, *transport.tick(time.monotonic())]


def some(kind: type[E], count: int = 1) -> Callable[[Sequence[object]], bool]:
    """Return a condition: at least *count* events of *kind* were seen."""
    return lambda events: len(of(kind, events)) >= count


def of(kind: type[E], events: Sequence[object]) -> list[E]:
    """Return the events of *kind*."""
    return [event for event in events if isinstance(event, kind)]


def connected(transport: Transport) -> SessionUp:
    """Connect *transport* and return the SessionUp."""
    transport.connect()
    return of(SessionUp, pump(transport, some(SessionUp)))[0]
