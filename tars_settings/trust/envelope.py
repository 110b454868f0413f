"""Checking an envelope's signature over the exact bytes of its body."""

from __future__ import annotations

from tars_settings.core.wire import Envelope, Frame, Purpose, digest_of, pae
from tars_settings.errors import BadSignatureError
from tars_settings.trust import sodium
from tars_settings.trust.keys import kid_of

Claim = tuple[bytes, bytes, bytes]
"""Encoding, signature and public key: what is to be checked of an envelope."""


def check_signature(envelope: Envelope, purpose: Purpose, fleet: str, public: bytes) -> bytes:
    """Return the envelope's digest when its own signature fits.

    Raises:
        BadSignatureError: other bytes, purpose, fleet or key, or *public* does not hash to the envelope's kid.
    """
    return digest_of(verified(envelope, purpose, fleet, public))


def verified(envelope: Envelope, purpose: Purpose, fleet: str, public: bytes) -> bytes:
    """Return the encoding that was signed, when the envelope's own signature fits it; raises as check_signature."""
    claim = claim_of(envelope, purpose, fleet, public)
    sodium.verify(*claim)
    return claim[0]


def claim_of(envelope: Envelope, purpose: Purpose, fleet: str, public: bytes) -> Claim:
    """Return what an envelope's own signature claims, which is not checked.

    Raises:
        BadSignatureError: the public key is not the one that the envelope names.
    """
    if kid_of(public) != envelope.kid:
        raise BadSignatureError("the public key does not hash to the envelope's key id")
    return pae(purpose, fleet, envelope.kid, bytes(envelope.body)), envelope.sig, public


def is_vouched(frame: Frame, purpose: Purpose, fleet: str, public: bytes) -> bool:
    """Return whether the holder of *public* signed this frame, in a version whose bodies may be unknown here."""
    encoding = pae(purpose, fleet, frame.kid, bytes(frame.body), version=frame.v)
    return kid_of(public) == frame.kid and _fits(encoding, frame.sig, public)


def signers(envelope: Envelope, purpose: Purpose, fleet: str, publics: dict[str, bytes]) -> frozenset[str]:
    """Return the key ids, of those in *publics*, whose signature over the envelope fits. Each counts once."""
    encoding = pae(purpose, fleet, envelope.kid, bytes(envelope.body))
    claims = {envelope.kid: envelope.sig} | {more.kid: more.sig for more in envelope.cosig if more.kid != envelope.kid}
    return frozenset(kid for kid, sig in claims.items() if kid in publics and _fits(encoding, sig, publics[kid]))


def _fits(encoding: bytes, signature: bytes, public: bytes) -> bool:
    try:
        sodium.verify(encoding, signature, public)
    except BadSignatureError:
        return False
    return True
