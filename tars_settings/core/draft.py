"""Drafts: what travels between those who cosign a delta and the one who is going to sign it.

A draft is the delta's body with what cosignatures there are, and whose signature is to follow. It is a file, and never
on a broker.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from tars_settings.core.delta import DeltaBody, read_delta_body, uncosigned, with_cosig
from tars_settings.core.wire import MAX_ENVELOPE_BYTES, Cosignature, Kid, decode_canonical, encode
from tars_settings.errors import MalformedError


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the key id ``kid`` is going to sign in a fleet."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    fleet: Kid
    kid: Kid
    draft: msgspec.Raw

    @property
    def raw_body(self) -> bytes:
        """The exact bytes of the body."""
        return bytes(self.draft)

    @property
    def body(self) -> DeltaBody:
        """The body; its form was checked when the draft was read."""
        return read_delta_body(self.raw_body)

    @property
    def text(self) -> bytes:
        """The draft as a file holds it."""
        return encode(self)

    def with_consent(self, cosignature: Cosignature) -> bytes:
        """Return the draft with one more cosignature, in place of an earlier one of the same key."""
        body = self.body
        others = tuple(one for one in body.cosig if one.kid != cosignature.kid)
        return drafted(self.fleet, self.kid, with_cosig(uncosigned(self.raw_body, body.cosig), (*others, cosignature)))


_decoder: Final = msgspec.json.Decoder(Draft)


def drafted(fleet: str, author: str, raw_body: bytes) -> bytes:
    """Return the draft of a body that the key id *author* is going to sign."""
    return encode(Draft(1, fleet, author, msgspec.Raw(raw_body)))


def read_draft(text: bytes, fleet: str) -> Draft:
    """Return the draft in a file's content, form checked. Whether its cosignatures fit is looked at when it is used.

    Raises:
        MalformedError: it is none, or not of this fleet.
    """
    if len(text) > MAX_ENVELOPE_BYTES:
        raise MalformedError(f"malformed draft: {len(text)} bytes, the limit is {MAX_ENVELOPE_BYTES}")
    draft = decode_canonical(_decoder, text, what="draft")
    read_delta_body(draft.raw_body)
    if draft.fleet != fleet:
        raise MalformedError(f"the draft is of fleet {draft.fleet}, and this is {fleet}")
    return draft
