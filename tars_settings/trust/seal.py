"""Sealing: HMAC-SHA256 on and off. A seal shows that content is ours and unchanged; it hides nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from tars_settings.errors import KeyFileError, SealBrokenError
from tars_settings.trust.keys import SEED_BYTES, _Guarded

_MAGIC: Final = b"TARSSEAL1"
_TAG_BYTES: Final = 32
_ID_BYTES: Final = 8


class SealKey(_Guarded):
    """A 32-byte key from which one key per fleet, service and purpose is derived.

    *older* is one that opens what it sealed and seals nothing any more.
    """

    __slots__ = ("_material", "older")

    def __init__(self, material: bytes, older: SealKey | None = None) -> None:
        if len(material) != SEED_BYTES:
            raise KeyFileError(f"a seal key has {SEED_BYTES} bytes, not {len(material)}")
        self._material = material
        self.older = older

    def __repr__(self) -> str:
        return "<SealKey>"

    @classmethod
    def from_text(cls, text: str) -> SealKey:
        """Return the key in base64; after a rotation a second one follows, which opens only.

        Raises:
            KeyFileError: it is none. The message does not show it.
        """
        try:
            first, *others = (base64.b64decode(word, validate=True) for word in text.split())
        except (binascii.Error, ValueError):
            raise KeyFileError("not a seal key: expected base64 of 32 bytes") from None
        if len(others) > 1:
            raise KeyFileError("not a seal key: expected one, and after a rotation the one before it")
        return cls(first, cls(others[0]) if others else None)

    def to_text(self) -> str:
        """Return the key in base64, the one before it on a second line. It is the secret."""
        own = base64.b64encode(self._material).decode()
        return own if self.older is None else f"{own}\n{self.older.to_text()}"

    def followed_by(self, material: bytes) -> SealKey:
        """Return a new key that takes this one's place, and opens what this one sealed."""
        return SealKey(material, SealKey(self._material))

    def derive(self, purpose: str, fleet: str, service: str) -> bytes:
        """Return the 32-byte key for one purpose (HKDF-SHA256, RFC 5869, without salt, one block)."""
        fields = (purpose, fleet, service)
        label = " ".join(f"{len(field)} {field}" for field in fields).encode()
        extracted = hmac.digest(bytes(32), self._material, "sha256")
        return hmac.digest(extracted, label + b"\x01", "sha256")


def seal(content: bytes, key: SealKey, *, purpose: str, fleet: str, service: str) -> bytes:
    """Return *content* with a header and a tag over both.

    The header names the key by the first 8 bytes of its derived key's hash, so that rotation can tell "another key"
    from "changed".
    """
    derived = key.derive(purpose, fleet, service)
    header = _MAGIC + hashlib.sha256(derived).digest()[:_ID_BYTES]
    return header + content + hmac.digest(derived, header + content, "sha256")


def unseal(sealed: bytes, key: SealKey, *, purpose: str, fleet: str, service: str) -> bytes:
    """Return the content that was sealed for *purpose* of this fleet and service.

    The tag is compared in constant time, before anything is decoded.

    Raises:
        SealBrokenError: another key, another purpose, or changed bytes. Nothing was decoded.
    """
    derived = key.derive(purpose, fleet, service)
    start = len(_MAGIC) + _ID_BYTES
    if len(sealed) < start + _TAG_BYTES or not sealed.startswith(_MAGIC):
        raise SealBrokenError("the seal is broken: not sealed content")
    body, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    if not hmac.compare_digest(hmac.digest(derived, body, "sha256"), tag):
        other = sealed[len(_MAGIC) : start] != hashlib.sha256(derived).digest()[:_ID_BYTES]
        if other and key.older is not None:
            return unseal(sealed, key.older, purpose=purpose, fleet=fleet, service=service)
        raise SealBrokenError(
            "the seal is broken: " + ("made with another key" if other else "the content was changed")
        )
    return sealed[start:-_TAG_BYTES]
