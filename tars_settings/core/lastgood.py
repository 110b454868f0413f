"""What is kept of the last known good values: signed deltas verbatim, and the trust documents that judge them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from tars_settings.core.wire import DECODE_ERRORS, Raw, encode
from tars_settings.errors import MalformedError


class LastGood(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fleet values of a service as signed deltas, never as resolved values: secrets in it stay encrypted.

    ``schema`` is the hash of the class that they validated with; ``counter`` grows by one with each writing; ``trust``
    are trust documents from the first root's on.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    fleet: str
    service: str
    schema: str
    counter: int
    trust: tuple[msgspec.Raw, ...]
    deltas: tuple[msgspec.Raw, ...]


_decoder: Final = msgspec.json.Decoder(LastGood)


def encode_last_good(
    *, fleet: str, service: str, schema: str, counter: int, trust: tuple[bytes, ...], deltas: tuple[bytes, ...]
) -> bytes:
    """Return the content to seal; *trust* and *deltas* are envelopes, each one line of JSON."""
    return encode(LastGood(1, fleet, service, schema, counter, tuple(map(Raw, trust)), tuple(map(Raw, deltas))))


def parse_last_good(content: bytes) -> LastGood:
    """Return what *content* says; its envelopes are not looked into.

    Raises:
        MalformedError: it is of another form or version.
    """
    try:
        return _decoder.decode(content)
    except DECODE_ERRORS as error:
        raise MalformedError(f"malformed last known good values: {type(error).__name__}") from None
