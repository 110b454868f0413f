"""Seal keys rotate: the one before opens what it sealed, the one before that does not."""

from __future__ import annotations

from typing import Any

import pytest

from tars_settings.errors import KeyFileError, SealBrokenError
from tars_settings.trust.seal import SealKey, seal, unseal

FOR: dict[str, Any] = {"purpose": "lkg", "fleet": "f" * 32, "service": "stt-worker"}
FIRST = SealKey(bytes([1]) * 32)
SECOND = FIRST.followed_by(bytes([2]) * 32)
THIRD = SECOND.followed_by(bytes([3]) * 32)


def test_two_keys_open_and_the_newest_seals() -> None:
    old, new = seal(b"values", FIRST, **FOR), seal(b"values", SECOND, **FOR)
    assert unseal(old, SECOND, **FOR) == unseal(new, SECOND, **FOR) == b"values"
    with pytest.raises(SealBrokenError, match="another key"):
        unseal(new, FIRST, **FOR)
    with pytest.raises(SealBrokenError, match="another key"):
        unseal(old, THIRD, **FOR)


def test_what_was_changed_opens_with_neither() -> None:
    for key in (FIRST, SECOND):
        sealed = bytearray(seal(b"values", key, **FOR))
        sealed[-33] ^= 1
        with pytest.raises(SealBrokenError, match="changed"):
            unseal(bytes(sealed), SECOND, **FOR)


def test_both_travel_as_text_and_a_third_does_not() -> None:
    again = SealKey.from_text(SECOND.to_text())
    assert unseal(seal(b"values", FIRST, **FOR), again, **FOR) == b"values"
    assert again.older is not None
    for text in (f"{SECOND.to_text()}\n{FIRST.to_text()}", "", "x", f"{FIRST.to_text()} x"):
        with pytest.raises(KeyFileError):
            SealKey.from_text(text)
