"""What is kept of the last known good values: signed deltas verbatim, and the trust documents that judge them.

Beside them, while a set of values is on probation, when processes started on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from tars_settings.core.wire import Raw, decode_plain, encode, short_hash


class LastGood(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fleet values of a service as signed deltas, never as resolved values: secrets in it stay encrypted.

    ``schema`` is the hash of the class that they validated with; ``counter`` grows by one with each writing; ``trust``
    are trust documents from the first root's on. ``set_name`` names the deltas (:func:`set_of`); ``proven`` says that a
    worker stayed healthy on them for the time of its probation, or said that they are good.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    fleet: str
    service: str
    schema: str
    counter: int
    trust: tuple[msgspec.Raw, ...]
    deltas: tuple[msgspec.Raw, ...]
    set_name: str = ""
    proven: bool = False


_decoder: Final = msgspec.json.Decoder(LastGood)


def set_of(digests: Iterable[bytes]) -> str:
    """Return the name of a set of deltas: 32 hex digits, whatever the order."""
    return short_hash(b"".join(sorted(digests)))


def encode_last_good(
    *,
    fleet: str,
    service: str,
    schema: str,
    counter: int,
    trust: tuple[bytes, ...],
    deltas: tuple[bytes, ...],
    set_name: str = "",
    proven: bool = False,
) -> bytes:
    """Return the content to seal; *trust* and *deltas* are envelopes, each one line of JSON."""
    raws = tuple(map(Raw, trust)), tuple(map(Raw, deltas))
    return encode(LastGood(1, fleet, service, schema, counter, *raws, set_name, proven))


def parse_last_good(content: bytes) -> LastGood:
    """Return what *content* says; its envelopes are not looked into.

    Raises:
        MalformedError: it is of another form or version.
    """
    return decode_plain(_decoder, content, what="last known good values")


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process that began to run on a set: its number, and when (milliseconds since 1970)."""

    pid: int
    at_ms: int


class Starts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The starts on a set that is on probation, oldest first; those that ended in order are taken away."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    set_name: str
    starts: Annotated[tuple[Start, ...], msgspec.Meta(max_length=64)] = ()


_starts_decoder: Final = msgspec.json.Decoder(Starts)


def parse_starts(content: bytes) -> Starts:
    """Return what *content* says.

    Raises:
        MalformedError: it is of another form or version.
    """
    return decode_plain(_starts_decoder, content, what="start marks")
