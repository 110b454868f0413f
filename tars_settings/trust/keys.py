"""Key types and their one-line text forms. Their ``repr`` never shows a secret, and they refuse to be pickled."""

from __future__ import annotations

import base64
import binascii
import functools
from typing import Final, Literal, NoReturn

from tars_settings.core.names import is_service
from tars_settings.core.wire import Cosignature, Envelope, Purpose, Raw, encode_envelope, pae, short_hash
from tars_settings.errors import KeyFileError
from tars_settings.trust import sodium

Role = Literal["root", "writer"]
KEY_FORMAT: Final = "tars-settings-key-v1"
SEED_BYTES: Final = 32


class _Guarded:
    """Refuses every way in which Python copies an object's content by itself (REVIEW G3)."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and can't be pickled or copied")

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(0)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(0)


@functools.lru_cache(maxsize=1024)
def kid_of(public: bytes) -> str:
    """Return the key id of a public key: its BLAKE2b-128 in hex."""
    return short_hash(public)


class SigningKey(_Guarded):
    """An Ed25519 key of a root or a writer.

    *seed* is 32 bytes from a cryptographic source of randomness; the same seed gives the same key.
    """

    __slots__ = ("_secret", "_seed", "kid", "name", "public", "role")

    def __init__(self, role: Role, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise KeyFileError(f"the key {name!r} has a seed of {len(seed)} bytes; expected {SEED_BYTES}")
        self.role = role
        self.name = name
        self._seed = seed
        self.public, self._secret = sodium.keypair(seed)
        self.kid = kid_of(self.public)

    def __repr__(self) -> str:
        return f"<SigningKey {self.role} {self.name}>"

    @property
    def seed(self) -> bytes:
        """The 32 bytes that it is made of. It is the secret."""
        return self._seed

    def sign(self, purpose: Purpose, fleet: str, body: bytes) -> bytes:
        """Return the envelope of *body*: its exact bytes, signed for one purpose in one fleet.

        Raises:
            TooLargeError: the envelope would exceed 48 KiB.
        """
        signature = sodium.sign(pae(purpose, fleet, self.kid, body), self._secret)
        return encode_envelope(Envelope(1, self.kid, signature, Raw(body)))

    def cosign(self, purpose: Purpose, fleet: str, envelope: Envelope) -> bytes:
        """Return *envelope* with this key's signature added over the same encoding."""
        signature = sodium.sign(pae(purpose, fleet, envelope.kid, bytes(envelope.body)), self._secret)
        cosig = (*envelope.cosig, Cosignature(self.kid, signature))
        return encode_envelope(Envelope(1, envelope.kid, envelope.sig, envelope.body, cosig))

    def countersign(self, fleet: str, author: str, body: bytes) -> Cosignature:
        """Return this key's consent to the *body* of a delta that the key id *author* is going to sign."""
        return Cosignature(self.kid, sodium.sign(pae("cosign", fleet, author, body), self._secret))

    def to_text(self) -> str:
        """Return the content of the key's file. It is the secret."""
        return (
            f"# The {self.role} key {self.name!r} of a tars-settings fleet. Whoever reads this can sign with it.\n"
            f"{KEY_FORMAT} {self.role} {self.name} {base64.b64encode(self._seed).decode()}\n"
        )

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Return the key in a key file's content.

        Raises:
            KeyFileError: it holds no key, or more than one.
        """
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        parts = lines[0].split() if len(lines) == 1 else []
        match parts:
            case [fmt, ("root" | "writer") as role, name, seed] if fmt == KEY_FORMAT and is_service(name):
                return cls(role, name, _decode(seed))
        raise KeyFileError(f"not a key: expected one line '{KEY_FORMAT} root|writer NAME SEED'")


class SecretKey(_Guarded):
    """A 32-byte key that encrypts values; *id* names it in ciphertexts."""

    __slots__ = ("id", "material")

    def __init__(self, id: str, material: bytes) -> None:  # noqa: A002 - the glossary's word
        if not is_service(id):
            raise KeyFileError(f"{ascii(id)[:80]} is no key id: expected [a-z][a-z0-9_-]*")
        if len(material) != SEED_BYTES:
            raise KeyFileError(f"the secret key {id!r} has {len(material)} bytes; expected {SEED_BYTES}")
        self.id = id
        self.material = material

    def __repr__(self) -> str:
        return f"<SecretKey {self.id}>"

    def to_text(self) -> str:
        """Return ``id:base64``, the form that ``TARS_SETTINGS_SECRET_KEYS`` takes. It is the secret."""
        return f"{self.id}:{base64.b64encode(self.material).decode()}"

    @classmethod
    def from_text(cls, text: str) -> SecretKey:
        """Return the key in ``id:base64``.

        Raises:
            KeyFileError: it is none. The message does not show it.
        """
        name, colon, material = text.strip().partition(":")
        if not colon:
            raise KeyFileError("not a secret key: expected ID:BASE64")
        return cls(name, _decode(material))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileError("not a key: its base64 does not decode") from None


FLEET_FORM: Final = "ed25519:"


def fleet_text(public: bytes) -> str:
    """Return the text of a root's public key, as in ``TARS_SETTINGS_FLEET``.

    >>> fleet_text(bytes(32))
    'ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
    """
    return FLEET_FORM + base64.urlsafe_b64encode(public).decode().rstrip("=")


def parse_fleet(text: str) -> bytes:
    """Return the root's public key in the text form.

    Raises:
        KeyFileError: it is none.
    """
    body = text.strip().removeprefix(FLEET_FORM)
    try:
        public = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if len(public) != SEED_BYTES or fleet_text(public) != text.strip():
        raise KeyFileError("not a fleet's public root key: expected 'ed25519:' and 43 characters of base64url")
    return public


def fleet_id(root_public: bytes) -> str:
    """Return the fleet's id: the hash of its first root key. It stays when roots rotate."""
    return kid_of(root_public)
