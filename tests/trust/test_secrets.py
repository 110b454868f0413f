"""Keys, secret values, seals: what opens where, and what never shows."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.delta import Algorithm
from tars_settings.errors import DecryptionError, KeyFileError, SealBrokenError, SecretKeyMissingError
from tars_settings.trust import sodium
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_text, parse_fleet
from tars_settings.trust.seal import SealKey, seal, unseal
from tars_settings.trust.secrets import NONCE_BYTES, decrypt, encrypt
from tests.fleets import ALICE, FLEET, ROOT, SCOPE

CANARY = b'"canary-7f3a"'
KEY = SecretKey("stt-1", bytes([21]) * 32)
OTHER = SecretKey("stt-2", bytes([22]) * 32)
PLACE = {"fleet": FLEET, "scope": SCOPE, "key": "api_key"}
HELD = {KEY.id: KEY, OTHER.id: OTHER}


@pytest.fixture(params=["xchacha20poly1305", "aes256gcm"])
def alg(request: pytest.FixtureRequest) -> Algorithm:
    algorithm: Algorithm = request.param
    return algorithm


def made(alg: Algorithm = "xchacha20poly1305") -> object:
    return encrypt(CANARY, KEY, **PLACE, nonce=bytes(NONCE_BYTES[alg]), alg=alg)


def test_a_secret_opens_where_it_was_put(alg: Algorithm) -> None:
    assert decrypt(made(alg), HELD, **PLACE) == CANARY


@pytest.mark.parametrize(
    "elsewhere", [{"fleet": "0" * 32}, {"scope": "tts-worker"}, {"scope": f"{SCOPE}@pi"}, {"key": "other"}], ids=str
)
def test_a_transplanted_secret_does_not_open(alg: Algorithm, elsewhere: dict[str, str]) -> None:
    with pytest.raises(DecryptionError):
        decrypt(made(alg), HELD, **{**PLACE, **elsewhere})


def test_a_secret_under_another_key_id_or_algorithm_does_not_open(alg: Algorithm) -> None:
    ciphertext = made(alg)
    twin = SecretKey(OTHER.id, KEY.material)
    with pytest.raises(DecryptionError):
        decrypt(msgspec.structs.replace(ciphertext, id=OTHER.id), {OTHER.id: twin}, **PLACE)
    with pytest.raises(DecryptionError):
        decrypt(ciphertext, {KEY.id: SecretKey(KEY.id, OTHER.material)}, **PLACE)
    other: Algorithm = "aes256gcm" if alg == "xchacha20poly1305" else "xchacha20poly1305"
    with pytest.raises(DecryptionError):
        decrypt(msgspec.structs.replace(ciphertext, alg=other), HELD, **PLACE)


def test_every_flipped_byte_of_a_secret_is_noticed(alg: Algorithm) -> None:
    ciphertext = made(alg)
    for at in range(len(ciphertext.ct)):
        changed = bytearray(ciphertext.ct)
        changed[at] ^= 1
        with pytest.raises(DecryptionError):
            decrypt(msgspec.structs.replace(ciphertext, ct=bytes(changed)), HELD, **PLACE)


def test_a_missing_secret_key_is_named() -> None:
    with pytest.raises(SecretKeyMissingError, match="'stt-1'"):
        decrypt(made(), {}, **PLACE)


def test_a_nonce_of_another_size_is_refused(alg: Algorithm) -> None:
    with pytest.raises(ValueError, match="nonce"):
        encrypt(CANARY, KEY, **PLACE, nonce=b"short", alg=alg)


@pytest.mark.parametrize("key", [ALICE, KEY, SealKey(bytes([7]) * 32)], ids=lambda key: type(key).__name__)
def test_keys_show_nothing_and_refuse_to_be_copied(key: object) -> None:
    text = getattr(key, "to_text")()  # noqa: B009
    secret = text.split()[-1].split(":")[-1]
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert secret not in shown
        assert secret[:8] not in shown
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            way(key)


def test_key_texts_come_back() -> None:
    again = SigningKey.from_text(ALICE.to_text())
    assert (again.kid, again.name, again.role) == (ALICE.kid, ALICE.name, ALICE.role)
    assert SecretKey.from_text(KEY.to_text()).material == KEY.material
    assert parse_fleet(fleet_text(ROOT.public)) == ROOT.public


@pytest.mark.parametrize("text", ["", "x", "tars-settings-key-v1 writer a !!!!", "tars-settings-key-v1 writer a QUJD"])
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    for read in (SigningKey.from_text, SecretKey.from_text, SealKey.from_text, parse_fleet):
        with pytest.raises(KeyFileError) as caught:
            read(text)
        assert "QUJD" not in str(caught.value)


def test_a_signature_of_the_wrong_length_or_a_small_order_key_never_fits() -> None:
    signature = sodium.sign(b"message", ALICE._secret)
    sodium.verify(b"message", signature, ALICE.public)
    for bad in (b"", signature[:-1], signature + b"\0"):
        with pytest.raises(sodium.BadSignatureError):
            sodium.verify(b"message", bad, ALICE.public)
    for public in (bytes(32), b"\1" + bytes(31), b"\xff" * 32):
        with pytest.raises(sodium.BadSignatureError):
            sodium.verify(b"message", bytes(64), public)


# --- seals -------------------------------------------------------------------------------------------------------

SEAL = SealKey(bytes([31]) * 32)
WHERE = {"purpose": "lkg", "fleet": FLEET, "service": "stt-worker"}


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_a_seal_comes_off_again(content: bytes) -> None:
    sealed = seal(content, SEAL, **WHERE)
    assert unseal(sealed, SEAL, **WHERE) == content
    assert content in sealed, "a seal hides nothing, and must not look as if it did"


@pytest.mark.parametrize("elsewhere", [{"purpose": "x"}, {"fleet": "0" * 32}, {"service": "tts"}], ids=str)
def test_a_seal_is_broken_anywhere_else(elsewhere: dict[str, str]) -> None:
    with pytest.raises(SealBrokenError, match="another key"):
        unseal(seal(b"content", SEAL, **WHERE), SEAL, **{**WHERE, **elsewhere})


def test_every_flip_and_every_length_breaks_a_seal() -> None:
    sealed = seal(b"content", SEAL, **WHERE)
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for bad in [*changed, *(sealed[:size] for size in range(len(sealed))), sealed + b"x", b""]:
        with pytest.raises(SealBrokenError):
            unseal(bad, SEAL, **WHERE)


def test_another_seal_key_is_told_from_a_change() -> None:
    sealed = seal(b"content", SEAL, **WHERE)
    with pytest.raises(SealBrokenError, match="another key"):
        unseal(sealed, SealKey(bytes([32]) * 32), **WHERE)
    with pytest.raises(SealBrokenError, match="changed"):
        unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), SEAL, **WHERE)
