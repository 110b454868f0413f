"""The chain of trust documents: what follows what."""

from __future__ import annotations

import contextlib

import pytest

from tars_settings.core.wire import decode_envelope
from tars_settings.errors import MalformedError, RejectedError, UntrustedError
from tars_settings.trust.document import TrustDocument, follow, pin
from tests.fleets import ALICE, BOB, FLEET, MALLORY, ROOT, ROOT_2, ROOT_3, document, trust_payload, writer

PIN = pin(ROOT.public)


def refused(held: TrustDocument, payload: bytes, match: str = "trust document") -> None:
    with pytest.raises(UntrustedError, match=match):
        follow(held, payload)


def test_nothing_is_valid_under_the_pin_and_version_1_follows_it() -> None:
    assert PIN.is_pin
    assert PIN.version == 0
    assert PIN.writers_of("stt-worker") == ()
    first = follow(PIN, trust_payload())
    assert (first.version, first.fleet, first.is_pin) == (1, FLEET, False)


def test_versions_may_be_skipped_while_the_roots_stay() -> None:
    assert follow(document(), trust_payload(version=7)).version == 7
    assert follow(PIN, trust_payload(version=7)).version == 7


def test_a_lower_version_is_refused() -> None:
    refused(document(version=7), trust_payload(version=6), "does not come after")


def test_the_same_document_again_is_refused_as_no_news() -> None:
    held = document()
    refused(held, held.raw, "does not come after")


def test_of_two_documents_with_one_version_the_higher_digest_is_in_force_on_every_peer() -> None:
    one, other = trust_payload(version=2, reason="one"), trust_payload(version=2, reason="other")
    ends = []
    for first, second in ((one, other), (other, one)):
        held = follow(document(), first)
        with contextlib.suppress(UntrustedError):
            held = follow(held, second)
        ends.append(held.raw)
    assert ends[0] == ends[1]


def test_a_stranger_a_writer_and_another_fleet_can_not_sign_it() -> None:
    refused(PIN, trust_payload(signed_by=(MALLORY,)))
    refused(document(), trust_payload(version=2, signed_by=(ALICE,)))
    refused(PIN, trust_payload(fleet="0" * 32))
    refused(pin(ROOT_2.public), trust_payload())


def test_a_document_can_not_name_its_own_new_roots_without_the_old_ones() -> None:
    refused(document(), trust_payload(version=2, roots=(MALLORY,)), "version 1 demand")


def test_new_roots_need_both_thresholds() -> None:
    both = trust_payload(version=2, roots=(ROOT_2,), signed_by=(ROOT, ROOT_2))
    assert follow(document(), both).body.roots == (ROOT_2.public,)
    refused(document(), trust_payload(version=2, roots=(ROOT_2,), signed_by=(ROOT,)), "version 2 demand")


def test_roots_that_changed_need_every_step_of_the_chain() -> None:
    second = trust_payload(version=2, roots=(ROOT_2,), signed_by=(ROOT, ROOT_2))
    third = trust_payload(version=3, roots=(ROOT_3,), signed_by=(ROOT_2, ROOT_3))
    refused(document(), third, "version 1 demand")
    assert follow(follow(document(), second), third).version == 3


def test_a_threshold_counts_each_root_once() -> None:
    held = document(roots=(ROOT, ROOT_2, ROOT_3), threshold=2, signed_by=(ROOT, ROOT_2))
    new = {"version": 2, "roots": (ROOT, ROOT_2, ROOT_3), "threshold": 2}
    assert follow(held, trust_payload(**new, signed_by=(ROOT_3, ROOT))).version == 2
    refused(held, trust_payload(**new, signed_by=(ROOT_3,)), "1 of 2")
    refused(held, trust_payload(**new, signed_by=(ROOT_3, ROOT_3)), "1 of 2")
    refused(held, trust_payload(**new, signed_by=(ROOT_3, MALLORY)), "1 of 2")


def test_a_writer_once_listed_stays_listed() -> None:
    refused(document(), trust_payload(version=2, writers=(writer(ALICE),)), "drops writers.*bob")
    burnt = trust_payload(version=2, writers=(writer(ALICE), writer(BOB, status="compromised")))
    assert follow(document(), burnt).writers_of("stt-worker") == (ALICE.kid,)


def test_gen_never_goes_back() -> None:
    refused(document(gen=2), trust_payload(version=2, gen=1), "lowers gen")


@pytest.mark.parametrize(
    "bad",
    [
        {"writers": (writer(ALICE), writer(ALICE))},
        {"roots": (ROOT, ROOT)},
        {"threshold": 2},
        {"threshold": 0},
        {"version": 0},
        {"gen": 2**32},
        {"writers": (writer(ALICE, retired={"Not A Scope": (0, 0, 0)}),)},
        {"endorsed": ("xyz",)},
    ],
    ids=str,
)
def test_documents_without_form_are_malformed(bad: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(RejectedError):
        follow(PIN, trust_payload(**bad))


def test_two_writers_can_not_share_a_name_nor_a_writer_a_root_key() -> None:
    twin = type(ALICE)("writer", "alice", bytes([99]) * 32)
    with pytest.raises(MalformedError):
        document(writers=(writer(ALICE), writer(twin)))
    with pytest.raises(MalformedError):
        document(writers=(writer(ROOT),))


def test_every_flip_of_every_byte_is_rejected() -> None:
    payload = trust_payload()
    follow(PIN, payload)
    for at in range(len(payload)):
        changed = bytearray(payload)
        changed[at] ^= 0x15
        with pytest.raises(RejectedError):
            follow(PIN, bytes(changed))


def test_more_signatures_than_a_document_may_carry_are_malformed() -> None:
    payload = trust_payload()
    for n in range(17):
        signer = type(ROOT)("root", "extra", bytes([n + 100]) * 32)
        payload = signer.cosign("trust", FLEET, decode_envelope(payload)) if n < 16 else payload
    follow(PIN, payload)
    with pytest.raises(RejectedError):
        decode_envelope(ROOT.cosign("trust", FLEET, decode_envelope(payload)))
