"""What passes between a peer and its session with a broker: events upward, commands downward. Values only."""

from __future__ import annotations

from typing import Literal

import msgspec


class SessionUp(msgspec.Struct, frozen=True):
    """A connection was accepted. Nothing is subscribed.

    ``retain_as_published`` says whether live messages carry the publisher's retain flag (MQTT 5 only; believed only
    once an exact probe confirmed it). ``max_packet_bytes`` is what the broker accepts at most, 0 where it did not say.
    """

    protocol: Literal[4, 5] = 5
    retain_as_published: bool = True
    max_packet_bytes: int = 0


class SessionDown(msgspec.Struct, frozen=True):
    """The connection is gone; whatever was not acknowledged may or may not have arrived."""

    reason: str = ""


class Received(msgspec.Struct, frozen=True):
    """A message arrived. ``retain`` is the flag as it stood on the packet."""

    topic: str
    payload: bytes
    retain: bool = False


class Subscribed(msgspec.Struct, frozen=True):
    """The broker answered a Subscribe. ``granted`` is False when it refused any of its filters."""

    ref: int
    granted: bool = True


class Acknowledged(msgspec.Struct, frozen=True):
    """The broker answered a Publish of QoS 1. On MQTT 3.1.1 ``ok`` says nothing of permission."""

    ref: int
    ok: bool = True
    reason: str = ""


SessionEvent = SessionUp | SessionDown | Received | Subscribed | Acknowledged


class Subscribe(msgspec.Struct, frozen=True):
    """Subscribe to filters in one packet.

    ``replay`` asks for retained messages (Retain Handling 0); without it only live ones come (2).
    On MQTT 3.1.1 a replay always comes. The answer is a Subscribed with the same ``ref``.
    """

    ref: int
    filters: tuple[str, ...]
    qos: Literal[0, 1] = 1
    replay: bool = False


class Unsubscribe(msgspec.Struct, frozen=True):
    """Unsubscribe from filters; no answer is awaited."""

    filters: tuple[str, ...]


class Publish(msgspec.Struct, frozen=True):
    """Publish; at QoS 1 the answer is an Acknowledged with the same ``ref``."""

    ref: int
    topic: str
    payload: bytes
    retain: bool = True
    qos: Literal[0, 1] = 1


SessionCommand = Subscribe | Unsubscribe | Publish
