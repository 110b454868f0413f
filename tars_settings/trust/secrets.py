"""Encryption of secret values: AEAD, bound to the place where the value stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tars_settings.core.delta import Algorithm, Ciphertext
from tars_settings.errors import SecretKeyMissingError
from tars_settings.trust import sodium
from tars_settings.trust.keys import SecretKey

NONCE_BYTES: Final[dict[Algorithm, int]] = {"xchacha20poly1305": 24, "aes256gcm": 12}
DEFAULT_ALGORITHM: Final[Algorithm] = "xchacha20poly1305"


def associated(alg: str, key_id: str, fleet: str, scope: str, key: str) -> bytes:
    """Return what is authenticated beside a ciphertext: where it stands, and what opens it."""
    # AEADs of libsodium do not commit to their key: the key id is part of what is authenticated. Scope and key stop a
    # ciphertext from being transplanted to another setting.
    fields = ("TARSv1-secret", alg, key_id, fleet, scope, key)
    return " ".join(f"{len(field)} {field}" for field in fields).encode("ascii")


def choose_key(keys: Mapping[str, SecretKey], service: str | None) -> SecretKey | None:
    """Return the key that encrypts for a service (None for every service): of those that may, the first that is held.

    A service's own are ``<service>`` and ``<service>-k<n>``; where it has none, the fleet's, ``all`` and ``k<n>``; else
    whichever is first.
    """
    for name in (service, None):
        own = re.compile(r"(all|k\d+)" if name is None else rf"{re.escape(name)}(-k\d+)?")
        for key in keys.values():
            if own.fullmatch(key.id):
                return key
    return next(iter(keys.values()), None)


def encrypt(
    value: bytes,
    secret_key: SecretKey,
    *,
    fleet: str,
    scope: str,
    key: str,
    nonce: bytes,
    alg: Algorithm = DEFAULT_ALGORITHM,
) -> Ciphertext:
    """Return *value* (JSON bytes) encrypted for one key of one scope.

    *nonce* is fresh randomness: 24 bytes for XChaCha20-Poly1305, 12 for AES-256-GCM.
    """
    if len(nonce) != NONCE_BYTES[alg]:
        raise ValueError(f"{alg} takes a nonce of {NONCE_BYTES[alg]} bytes")
    aad = associated(alg, secret_key.id, fleet, scope, key)
    seal = sodium.xchacha_encrypt if alg == "xchacha20poly1305" else sodium.aesgcm_encrypt
    return Ciphertext(alg, secret_key.id, nonce + seal(value, aad, nonce, secret_key.material))


def decrypt(ciphertext: Ciphertext, secret_keys: dict[str, SecretKey], *, fleet: str, scope: str, key: str) -> bytes:
    """Return the value (JSON bytes) that was encrypted for this key of this scope.

    Raises:
        SecretKeyMissingError: no key with the id that the ciphertext names is held; the message names the id.
        DecryptionError: the ciphertext was made with another key or for another place, or was changed.
    """
    secret_key = secret_keys.get(ciphertext.id)
    if secret_key is None:
        raise SecretKeyMissingError(
            f"{scope} {key}: encrypted under the secret key {ciphertext.id!r}, which this process does not hold; "
            "add it to TARS_SETTINGS_SECRET_KEYS"
        )
    size = NONCE_BYTES[ciphertext.alg]
    aad = associated(ciphertext.alg, ciphertext.id, fleet, scope, key)
    unseal = sodium.xchacha_decrypt if ciphertext.alg == "xchacha20poly1305" else sodium.aesgcm_decrypt
    return unseal(ciphertext.ct[size:], aad, ciphertext.ct[:size], secret_key.material)
