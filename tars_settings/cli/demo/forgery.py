"""What a stranger can do: sign with a key of his own and claim to be the writer."""

from __future__ import annotations

import os

from tars_settings.core.wire import Envelope, decode_envelope, encode_envelope
from tars_settings.trust.keys import SigningKey, fleet_id, parse_fleet


def forged(payload: bytes, fleet: str) -> bytes:
    """Return a push like that in *payload*, with a greater epoch and another value, signed by nobody who may.

    It claims the true writer's key id.
    """
    envelope = decode_envelope(payload)
    body = bytes(envelope.body).replace(b'"set":0.62', b'"set":0.01').replace(b'"epoch":', b'"epoch":9', 1)
    stranger = SigningKey("writer", "stranger", os.urandom(32))
    signed = decode_envelope(stranger.sign("delta", fleet_id(parse_fleet(fleet)), body))
    return encode_envelope(Envelope(1, envelope.kid, signed.sig, signed.body))
