"""Envelopes, validity, grants: who may say what."""

from __future__ import annotations

import pytest

from tars_settings.core.wire import decode_envelope
from tars_settings.errors import BadSignatureError, MalformedError, RejectedError
from tars_settings.trust.document import Retirement
from tars_settings.trust.envelope import check_signature
from tars_settings.trust.grants import covers, is_grant, touches
from tars_settings.trust.validity import Verdict, read_delta, read_index
from tests.fleets import ALICE, BOB, FLEET, MALLORY, SCOPE, delta_payload, document, index_payload, set_, writer

PAYLOAD = delta_payload(ALICE, 3, set_("vad", 0.5), reason="test")


def test_every_flip_of_every_bit_of_an_envelope_is_rejected() -> None:
    trust = document()
    assert read_delta(PAYLOAD, trust)[1].verdict is Verdict.VALID
    passed = []
    for at in range(len(PAYLOAD)):
        for bit in range(8):
            changed = bytearray(PAYLOAD)
            changed[at] ^= 1 << bit
            try:
                _, judgement = read_delta(bytes(changed), trust)
            except RejectedError:
                continue
            if judgement.verdict is not Verdict.VOID:  # a changed kid names nobody: void, never valid
                passed.append((at, bit))
    assert passed == []


def test_every_truncation_and_extension_is_rejected() -> None:
    trust = document()
    for payload in [PAYLOAD[:size] for size in range(len(PAYLOAD))] + [PAYLOAD + b" ", PAYLOAD + b"\n", PAYLOAD * 2]:
        with pytest.raises(RejectedError):
            read_delta(payload, trust)


def test_a_signature_counts_for_one_purpose_fleet_body_and_key() -> None:
    envelope = decode_envelope(PAYLOAD)
    check_signature(envelope, "delta", FLEET, ALICE.public)
    for purpose, fleet, public in (
        ("head", FLEET, ALICE.public),
        ("trust", FLEET, ALICE.public),
        ("floor", FLEET, ALICE.public),
        ("delta", "0" * 32, ALICE.public),
        ("delta", FLEET, BOB.public),
    ):
        with pytest.raises(BadSignatureError):
            check_signature(envelope, purpose, fleet, public)  # type: ignore[arg-type]


def test_another_fleets_delta_is_rejected_though_the_writer_is_the_same() -> None:
    with pytest.raises(BadSignatureError):
        read_delta(delta_payload(ALICE, 1, fleet="0" * 32), document())


def test_an_index_is_no_delta_and_a_delta_no_index() -> None:
    trust = document()
    with pytest.raises(RejectedError):
        read_delta(index_payload(ALICE, 1, {}), trust)
    with pytest.raises(RejectedError):
        read_index(PAYLOAD, trust)


def verdict(payload: bytes, **trust: object) -> tuple[Verdict, str]:
    _, judgement = read_delta(payload, document(**trust))
    return judgement.verdict, judgement.reason


RETIRED = {SCOPE: Retirement(1, 3, 5)}


@pytest.mark.parametrize(
    ("alice", "made", "expected"),
    [
        ({}, {"epoch": 3}, (Verdict.VALID, "")),
        ({}, {"epoch": 3, "gen": 0}, (Verdict.VALID, "")),
        ({}, {"epoch": 3, "gen": 2}, (Verdict.VOID, "gen-ahead")),
        ({}, {"epoch": 3, "gen": 2, "trust": 2}, (Verdict.HELD, "trust-behind")),
        ({}, {"epoch": 2**53 - 1}, (Verdict.VALID, "")),
        ({"grants": ("tts-worker",)}, {"epoch": 3}, (Verdict.VOID, "not-granted")),
        ({"grants": (f"{SCOPE}.other",)}, {"epoch": 3}, (Verdict.VOID, "not-granted")),
        ({"grants": (f"{SCOPE}.vad",)}, {"epoch": 3}, (Verdict.VALID, "")),
        ({"status": "retired", "retired": RETIRED}, {"epoch": 3}, (Verdict.VALID, "")),
        ({"status": "retired", "retired": RETIRED}, {"epoch": 4}, (Verdict.VOID, "retired")),
        ({"status": "retired", "retired": RETIRED}, {"epoch": 9, "gen": 0}, (Verdict.VALID, "")),
        ({"status": "retired"}, {"epoch": 1}, (Verdict.VOID, "retired")),
        ({"status": "compromised"}, {"epoch": 1}, (Verdict.VOID, "compromised")),
    ],
)
def test_verdicts_follow_from_bytes_and_trust_document_alone(
    alice: dict,
    made: dict,
    expected: tuple[Verdict, str],  # type: ignore[type-arg]
) -> None:
    grants = alice.pop("grants", ("*",)) if "grants" in (alice := dict(alice)) else ("*",)
    assert verdict(delta_payload(ALICE, **made), writers=(writer(ALICE, grants, **alice),)) == expected


def test_an_endorsement_saves_the_bytes_of_a_compromised_writer_and_never_a_head() -> None:
    delta, _ = read_delta(PAYLOAD, document())
    index = index_payload(ALICE, 1, {})
    burnt = writer(ALICE, status="compromised")
    endorsing = {"writers": (burnt,), "endorsed": (delta.stamp.digest.hex(),)}
    assert verdict(PAYLOAD, **endorsing) == (Verdict.VALID, "")
    assert verdict(delta_payload(ALICE, 4), **endorsing) == (Verdict.VOID, "compromised")
    assert read_index(index, document(**endorsing))[1].verdict is Verdict.VOID


def test_an_endorsement_does_not_widen_a_grant() -> None:
    delta, _ = read_delta(PAYLOAD, document())
    narrow = writer(ALICE, ("tts-worker",), status="compromised")
    assert verdict(PAYLOAD, writers=(narrow,), endorsed=(delta.stamp.digest.hex(),)) == (Verdict.VOID, "not-granted")


def test_an_unknown_writer_is_void_or_waits_for_the_trust_document_it_names() -> None:
    assert verdict(delta_payload(MALLORY, 1)) == (Verdict.VOID, "unknown-writer")
    assert verdict(delta_payload(MALLORY, 1, trust=2)) == (Verdict.HELD, "trust-behind")


def test_one_assignment_outside_the_grant_voids_the_whole_delta() -> None:
    both = delta_payload(ALICE, 1, set_("vad"), set_("model"))
    assert verdict(both, writers=(writer(ALICE, (f"{SCOPE}.vad",)),)) == (Verdict.VOID, "not-granted")


@pytest.mark.parametrize(("counter", "expected"), [(5, Verdict.VALID), (6, Verdict.VOID)])
def test_a_retired_writers_index_counts_up_to_its_counter(counter: int, expected: Verdict) -> None:
    trust = document(writers=(writer(ALICE, status="retired", retired=RETIRED),))
    assert read_index(index_payload(ALICE, counter, {}), trust)[1].verdict is expected


def test_the_index_of_a_scope_outside_the_grant_is_void() -> None:
    trust = document(writers=(writer(ALICE, ("tts-worker",)),))
    assert read_index(index_payload(ALICE, 1, {}), trust)[1].verdict is Verdict.VOID


@pytest.mark.parametrize(
    ("grant", "scope", "key", "expected"),
    [
        ("*", "billing", "a", True),
        ("*", "billing@pi-3", "a", True),
        ("*", "_all", "a", False),
        ("_all", "_all", "a", True),
        ("_all", "billing", "a", False),
        ("_all.a", "_all", "a.b", True),
        ("_all.a", "_all", "ab", False),
        ("billing", "billing", "a", True),
        ("billing", "billing@pi-3", "a", True),
        ("billing", "billing-admin", "a", False),
        ("bill*", "billing", "a", True),
        ("bill*", "billing-admin", "a", True),
        ("bill*", "xbilling", "a", False),
        ("billing@pi-3", "billing", "a", False),
        ("billing@pi-3", "billing@pi-3", "a", True),
        ("billing@pi-3", "billing@pi-34", "a", False),
        ("billing@pi-*", "billing@pi-34", "a", True),
        ("billing@*", "billing", "a", False),
        ("*@pi-3", "tts@pi-3", "a", True),
        ("billing.audio", "billing", "audio", True),
        ("billing.audio", "billing", "audio.gain", True),
        ("billing.audio", "billing", "audiobook", False),
        ("billing.audio.gain", "billing", "audio", False),
        ("billing.audio.g*", "billing", "audio.gain.left", True),
        ("billing.*.gain", "billing", "audio.gain", True),
        ("billing.*.gain", "billing", "audio.rate", False),
        ("billing.*.gain", "billing", "gain", False),
    ],
)
def test_grants_match_parsed_segments(grant: str, scope: str, key: str, expected: bool) -> None:
    assert is_grant(grant)
    assert covers(grant, scope, key) is expected
    assert not expected or touches(grant, scope)


@pytest.mark.parametrize(
    "text", ["", "a/*", "**", "*a", "a*b", "_all@x", "_al*", "A", "a@", "a@B", "a.", "a..b", "a\n"]
)
def test_what_is_no_grant_is_not_listed(text: str) -> None:
    assert not is_grant(text)
    with pytest.raises(MalformedError):
        document(writers=(writer(ALICE, (text,)),))
