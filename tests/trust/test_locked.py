"""Key files under a passphrase."""

from __future__ import annotations

import pytest

from tars_settings.errors import KeyFileError, PassphraseError
from tars_settings.trust.locked import is_locked, lock, unlock
from tests.fleets import ALICE, ROOT

SALT, NONCE = bytes(range(16)), bytes(range(24))
TEXT = lock(ROOT, "correct horse", salt=SALT, nonce=NONCE, ops=1, mib=1)


def test_the_passphrase_opens_what_it_locked_and_nothing_of_the_key_is_to_be_read() -> None:
    assert is_locked(TEXT)
    assert not is_locked(ROOT.to_text())
    opened = unlock(TEXT, "correct horse")
    assert (opened.kid, opened.role, opened.name) == (ROOT.kid, "root", "root")
    assert ROOT.to_text().split()[-1] not in TEXT


def test_another_passphrase_does_not_and_its_message_shows_neither() -> None:
    with pytest.raises(PassphraseError) as caught:
        unlock(TEXT, "battery staple")
    assert "battery" not in str(caught.value)
    with pytest.raises(PassphraseError):
        lock(ALICE, "", salt=SALT, nonce=NONCE)


@pytest.mark.parametrize(
    ("old", "new"), [(" root root ", " writer root "), (" root root ", " root other "), ("1:1:", "2:1:")]
)
def test_role_name_and_cost_are_part_of_what_is_locked(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(PassphraseError):
        unlock(TEXT.replace(old, new), "correct horse")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        TEXT + TEXT,
        TEXT.replace("1:1:", "1:99999:"),
        TEXT.replace("1:1:", "99:1:"),
        TEXT.replace("1:1:", "0:0:"),
        TEXT.replace("1:1:", "x:1:"),
        TEXT.replace("1:1:", "1:1:AAAA"),
        TEXT.rstrip() + "!",
        ROOT.to_text(),
    ],
)
def test_what_is_no_locked_key_or_asks_for_too_much_is_refused(text: str) -> None:
    with pytest.raises(KeyFileError):
        unlock(text, "correct horse")
