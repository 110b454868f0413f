"""The two-person rule: what a grant demands others to sign is void without them, whatever way it came."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.delta import Assignment, read_delta_body, uncosigned
from tars_settings.core.draft import drafted, read_draft
from tars_settings.core.wire import Cosignature, decode_single, encode
from tars_settings.errors import MalformedError, RefusedError, RejectedError
from tars_settings.trust.cosign import consent, in_words
from tars_settings.trust.document import Demand, Retirement, Writer
from tars_settings.trust.grants import covers, reaches
from tars_settings.trust.validity import Verdict, read_delta, read_floor
from tests.fleets import (
    ALICE,
    BOB,
    CAROL,
    FLEET,
    MALLORY,
    ROOT,
    SCOPE,
    cosigned_body,
    cosigned_payload,
    delta_body,
    delta_payload,
    demand,
    document,
    set_,
    trust_payload,
    unset,
    writer,
)

VALID = (Verdict.VALID, "")
VOID = (Verdict.VOID, "not-cosigned")
ONE = demand(SCOPE, 1, BOB, CAROL)
TWO = demand(SCOPE, 2, BOB, CAROL)


def writers(*demands: Demand, bob: dict[str, Any] | None = None) -> tuple[Writer, ...]:
    return (writer(ALICE, cosign=demands), writer(BOB, **(bob or {})), writer(CAROL, ()), writer(MALLORY))


def verdict(payload: bytes, *demands: Demand, bob: dict[str, Any] | None = None, **trust: Any) -> tuple[Verdict, str]:
    _, found = read_delta(payload, document(writers=writers(*(demands or (ONE,)), bob=bob), **trust))
    return found.verdict, found.reason


@pytest.mark.parametrize(
    ("cosigners", "demands", "expected"),
    [
        ((), (ONE,), VOID),
        ((BOB,), (ONE,), VALID),
        ((CAROL,), (ONE,), VALID),  # who cosigns needs no grant of her own
        ((BOB, CAROL), (ONE,), VALID),
        ((BOB,), (TWO,), VOID),
        ((BOB, CAROL), (TWO,), VALID),
        ((MALLORY,), (ONE,), VOID),
        ((ALICE,), (ONE,), VOID),
        ((ROOT,), (ONE,), VOID),
        ((BOB, MALLORY), (ONE,), VALID),
        ((BOB, MALLORY, ALICE), (TWO,), VOID),
        ((BOB,), (ONE, demand(SCOPE, 1, CAROL)), VOID),
        ((BOB, CAROL), (ONE, demand(SCOPE, 1, CAROL)), VALID),
        ((), (demand("tts-*", 1, BOB),), VALID),
    ],
)
def test_a_delta_counts_with_as_many_of_the_set_as_are_demanded(
    cosigners: tuple[Any, ...], demands: tuple[Demand, ...], expected: tuple[Verdict, str]
) -> None:
    assert verdict(cosigned_payload(ALICE, cosigners, 5), *demands) == expected


def test_nothing_changes_for_writers_without_a_demand() -> None:
    assert verdict(delta_payload(BOB, 5)) == VALID
    assert trust_payload() == trust_payload(writers=(Writer("alice", ALICE.public, ("*", "_all")), writer(BOB)))
    assert b"cosig" not in delta_payload(ALICE, 5) + trust_payload()


@pytest.mark.parametrize(
    ("bob", "expected"),
    [
        ({"status": "compromised"}, VOID),
        ({"status": "retired"}, VOID),
        ({"status": "retired", "retired": {SCOPE: Retirement(1, 4, 0)}}, VOID),
        ({"status": "retired", "retired": {SCOPE: Retirement(1, 5, 0)}}, VALID),
        ({"status": "retired", "retired": {"tts": Retirement(1, 9, 9)}}, VOID),
    ],
)
def test_a_cosigner_counts_while_active_and_up_to_a_retirement(
    bob: dict[str, Any], expected: tuple[Verdict, str]
) -> None:
    assert verdict(cosigned_payload(ALICE, (BOB,), 5), bob=bob) == expected


def test_an_endorsed_delta_needs_no_cosignature() -> None:
    payload = delta_payload(ALICE, 5)
    digest = read_delta(payload, document())[0].stamp.digest.hex()
    assert verdict(payload) == VOID
    assert verdict(payload, endorsed=(digest,)) == VALID


def test_what_is_void_for_want_of_cosignatures_waits_for_the_trust_document_it_names() -> None:
    assert verdict(delta_payload(ALICE, 5, trust=2)) == (Verdict.HELD, "trust-behind")


PLAIN = delta_body(5)
GOOD = BOB.countersign(FLEET, ALICE.kid, PLAIN)


@pytest.mark.parametrize(
    "signature",
    [
        BOB.countersign("0" * 32, ALICE.kid, PLAIN),
        BOB.countersign(FLEET, CAROL.kid, PLAIN),
        BOB.countersign(FLEET, ALICE.kid, delta_body(6)),
        BOB.countersign(FLEET, ALICE.kid, delta_body(5, set_("vad", 2))),
        Cosignature(BOB.kid, decode_single(BOB.sign("delta", FLEET, PLAIN)).sig),
        Cosignature(CAROL.kid, GOOD.sig),
        Cosignature(BOB.kid, bytes(64)),
    ],
    ids=["fleet", "author", "epoch", "value", "purpose", "someone else's", "none"],
)
def test_a_consent_counts_for_one_fleet_author_and_body(signature: Cosignature) -> None:
    def signed(one: Cosignature) -> bytes:
        return ALICE.sign("delta", FLEET, PLAIN[:-1] + b',"cosig":' + encode((one,)) + b"}")

    assert verdict(signed(GOOD)) == VALID
    assert verdict(signed(signature)) == VOID


def test_a_consent_is_no_signature_of_a_delta() -> None:
    consented = BOB.countersign(FLEET, BOB.kid, PLAIN)
    text = delta_payload(BOB, 5)
    good = json.dumps(json.loads(text)["sig"]).encode()
    assert verdict(text) == VALID
    with pytest.raises(RejectedError):
        read_delta(text.replace(good, encode(consented.sig)), document())


@pytest.mark.parametrize("disorder", ["reordered", "doubled", "empty", "crowded"])
def test_cosignatures_have_one_order_and_each_key_one_place(disorder: str) -> None:
    body = cosigned_body(ALICE, (BOB, CAROL), 5)
    first, second = read_delta_body(body).cosig
    found = {
        "reordered": (second, first),
        "doubled": (first, first),
        "empty": (),
        "crowded": tuple(Cosignature(f"{n:032x}", bytes(64)) for n in range(17)),
    }[disorder]
    with pytest.raises(MalformedError):
        read_delta_body(PLAIN[:-1] + b',"cosig":' + encode(found) + b"}")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_flipped_bit_of_a_cosigned_delta_is_valid(data: st.DataObject) -> None:
    payload = cosigned_payload(ALICE, (BOB, CAROL), 5)
    at = data.draw(st.integers(0, len(payload) * 8 - 1))
    changed = bytearray(payload)
    changed[at // 8] ^= 1 << at % 8
    trust = document(writers=writers(TWO))
    assert read_delta(payload, trust)[1].verdict is Verdict.VALID
    try:
        found = read_delta(bytes(changed), trust)[1]
    except RejectedError:
        return
    assert found.verdict is Verdict.VOID


def test_no_flipped_bit_is_valid_when_the_author_signs_it_again() -> None:
    """The author is the attacker: he signs whatever he likes, and has the consent to one body."""
    trust = document(writers=writers(demand("*", 2, BOB, CAROL)))
    body = cosigned_body(ALICE, (BOB, CAROL), 5, set_("vad", 0.5), reason="noisy")
    found: Counter[str] = Counter()
    for at in range(len(body) * 8):
        changed = bytearray(body)
        changed[at // 8] ^= 1 << at % 8
        try:
            judgement = read_delta(ALICE.sign("delta", FLEET, bytes(changed)), trust)[1]
        except MalformedError:
            continue
        assert judgement.verdict is not Verdict.VALID, (at, bytes(changed))
        found[judgement.reason] += 1
    assert found["not-cosigned"] > 1_000
    assert read_delta(ALICE.sign("delta", FLEET, body), trust)[1].verdict is Verdict.VALID


# --- around it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "scope", "item", "expected"),
    [
        (f"{SCOPE}.audio.gain", SCOPE, set_("audio.gain"), VOID),
        (f"{SCOPE}.audio.gain", SCOPE, set_("audio.gain.left"), VOID),
        (f"{SCOPE}.audio.gain", SCOPE, set_("audio", {"gain": 9}), VOID),
        (f"{SCOPE}.audio.gain", SCOPE, unset("audio"), VOID),
        (f"{SCOPE}.audio.gain", SCOPE, set_("audio.rate"), VALID),
        (f"{SCOPE}.audio.gain", SCOPE, set_("audiobook"), VALID),
        (f"{SCOPE}.audio", "_all", set_("audio"), VOID),
        (f"{SCOPE}.audio", "_all", set_("video"), VALID),
        (f"{SCOPE}@pi-3.audio", SCOPE, set_("audio"), VOID),
        (f"{SCOPE}@pi-3.audio", f"{SCOPE}@pi-4", set_("audio"), VALID),
        (f"{SCOPE}@pi-3.audio", "tts-worker", set_("audio"), VALID),
        (SCOPE, f"{SCOPE}@pi-3", set_("audio"), VOID),
        ("_all", SCOPE, set_("audio"), VALID),
        ("_all", "_all", set_("audio"), VOID),
    ],
)
def test_no_key_above_and_no_wider_scope_leads_around_a_demand(
    grant: str, scope: str, item: Assignment, expected: tuple[Verdict, str]
) -> None:
    assert verdict(delta_payload(ALICE, 5, item, scope=scope), demand(grant, 1, BOB)) == expected
    assert reaches(grant, scope, item.key) is (expected == VOID)
    assert not covers(grant, scope, item.key) or expected == VOID


def test_one_assignment_under_a_demand_binds_the_whole_delta() -> None:
    assert verdict(delta_payload(ALICE, 5, set_("other"), set_("vad")), demand(f"{SCOPE}.vad", 1, BOB)) == VOID


@pytest.mark.parametrize(
    ("grant", "expected"), [(SCOPE, VOID), (f"{SCOPE}.vad", VOID), (f"{SCOPE}@pi-3", VOID), ("tts", VALID)]
)
def test_a_floor_of_a_writer_who_needs_consent_does_not_count(grant: str, expected: tuple[Verdict, str]) -> None:
    """A floor voids what it does not list."""
    body = encode({"scope": SCOPE, "gen": 1, "epoch": 9, "trust": 1})
    _, found = read_floor(ALICE.sign("floor", FLEET, body), document(writers=writers(demand(grant, 1, BOB))))
    assert (found.verdict, found.reason) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        demand(SCOPE, 2, BOB),
        demand(SCOPE, 1, ALICE),
        demand(SCOPE, 1, BOB, BOB),
        demand(SCOPE, 0, BOB),
        demand(SCOPE, 1),
        demand("a/b", 1, BOB),
        Demand(SCOPE, 1, ("0" * 32,)),
        Demand(SCOPE, 1, (ROOT.kid,)),
    ],
)
def test_a_demand_that_nobody_could_meet_is_malformed(wrong: Demand) -> None:
    document(writers=writers(ONE))
    with pytest.raises(MalformedError):
        document(writers=writers(wrong))


# --- drafts -----------------------------------------------------------------------------------------------------------


def test_a_draft_collects_consents_and_ends_as_the_delta_that_was_seen() -> None:
    plain = delta_body(5, set_("vad", 0.5), reason="noisy")
    text = drafted(FLEET, ALICE.kid, plain)
    for key in (CAROL, BOB, CAROL):
        text = consent(read_draft(text, FLEET), key)
    draft = read_draft(text, FLEET)
    assert uncosigned(draft.raw_body, draft.body.cosig) == plain
    assert draft.raw_body == cosigned_body(ALICE, (BOB, CAROL), 5, set_("vad", 0.5), reason="noisy")
    assert verdict(ALICE.sign("delta", FLEET, draft.raw_body), TWO) == VALID


def test_no_key_that_could_not_count_cosigns() -> None:
    draft = read_draft(drafted(FLEET, ALICE.kid, PLAIN), FLEET)
    for key, why in ((ALICE, "'alice' is its author"), (ROOT, "'root' is a root key")):
        with pytest.raises(RefusedError, match=f"{why}: it can't cosign"):
            consent(draft, key)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}", PLAIN, delta_payload(ALICE, 5), drafted(FLEET, ALICE.kid, b"{}"),
        drafted("0" * 32, ALICE.kid, PLAIN), drafted(FLEET, ALICE.kid, PLAIN) + b" ", drafted(FLEET, "alice", PLAIN),
        drafted(FLEET, ALICE.kid, delta_body(5, set_("vad", "x" * 50_000))),
    ],
)  # fmt: skip
def test_what_is_no_draft_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedError):
        read_draft(text, FLEET)


def test_demands_are_told_by_name() -> None:
    told = in_words((ONE, Demand("x", 1, ("0" * 32,))), document(writers=writers(ONE)))
    assert told == f"1 of bob, carol for {SCOPE} and 1 of {'0' * 32} for x"
