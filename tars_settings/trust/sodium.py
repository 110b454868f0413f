"""The door to libsodium: imported when the first signature is checked or made, not before."""

from __future__ import annotations

import functools
from types import ModuleType

from tars_settings.errors import BadSignatureError, DecryptionError, SurroundingsError


@functools.cache
def _bindings() -> ModuleType:
    from nacl import bindings  # noqa: PLC0415 - 17 ms that a process without signatures need not pay

    return bindings


@functools.cache
def _crypto_error() -> type[Exception]:
    from nacl.exceptions import CryptoError  # noqa: PLC0415

    return CryptoError


def keypair(seed: bytes) -> tuple[bytes, bytes]:
    """Return (public, secret) of the Ed25519 key with this 32-byte seed (RFC 8032)."""
    public, secret = _bindings().crypto_sign_seed_keypair(seed)
    return public, secret


def sign(message: bytes, secret: bytes) -> bytes:
    """Return the 64-byte Ed25519 signature of *message*."""
    signed: bytes = _bindings().crypto_sign(message, secret)
    return signed[:64]


def verify(message: bytes, signature: bytes, public: bytes) -> None:
    """Return when the signature fits.

    Raises:
        BadSignatureError: it does not, or the public key is none.
    """
    try:
        _bindings().crypto_sign_open(signature + message, public)
    except (_crypto_error(), ValueError):  # a signature of the wrong length is a ValueError of PyNaCl's own
        raise BadSignatureError(
            "the signature does not fit these bytes, this purpose, this fleet and this key"
        ) from None


def xchacha_encrypt(message: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return ciphertext with tag (XChaCha20-Poly1305-IETF, 24-byte nonce)."""
    sealed: bytes = _bindings().crypto_aead_xchacha20poly1305_ietf_encrypt(message, aad, nonce, key)
    return sealed


def xchacha_decrypt(ciphertext: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the message.

    Raises:
        DecryptionError: another key, other associated data, or changed bytes.
    """
    try:
        opened: bytes = _bindings().crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, aad, nonce, key)
    except (_crypto_error(), ValueError):
        raise DecryptionError("an encrypted value does not open with this key in this place") from None
    return opened


def argon2id(passphrase: str, salt: bytes, ops: int, mib: int) -> bytes:
    """Return 32 bytes derived from a passphrase (Argon2id 1.3, RFC 9106; *salt* is 16 bytes).

    Raises:
        SurroundingsError: there is not that much memory.
    """
    bindings = _bindings()
    alg = bindings.crypto_pwhash_ALG_ARGON2ID13
    try:
        derived: bytes = bindings.crypto_pwhash_alg(32, passphrase.encode(), salt, ops, mib * 2**20, alg)
    except (_crypto_error(), MemoryError):
        raise SurroundingsError(f"this host can't spare the {mib} MiB that the passphrase needs") from None
    return derived


def aesgcm_encrypt(message: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return ciphertext with tag (AES-256-GCM, 12-byte nonce).

    Raises:
        SurroundingsError: this CPU has no AES instructions, and libsodium no slow form.
    """
    try:
        sealed: bytes = _bindings().crypto_aead_aes256gcm_encrypt(message, aad, nonce, key)
    except _crypto_error():
        raise SurroundingsError("AES-256-GCM is not to be had on this CPU; use xchacha20poly1305") from None
    return sealed


def aesgcm_decrypt(ciphertext: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the message.

    Raises:
        DecryptionError: another key, other associated data, changed bytes, or a CPU without AES instructions.
    """
    try:
        opened: bytes = _bindings().crypto_aead_aes256gcm_decrypt(ciphertext, aad, nonce, key)
    except (_crypto_error(), ValueError):
        raise DecryptionError("an encrypted value does not open with this key in this place") from None
    return opened
