"""The next trust document: what a change makes of the held one, and which changes are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tars_settings.core.stamp import MAX_GEN
from tars_settings.core.wire import encode
from tars_settings.errors import IllegalNameError, RefusedError
from tars_settings.trust import succession
from tars_settings.trust.document import TrustBody, TrustDocument, follow, pin
from tars_settings.trust.validity import Verdict, judge
from tests.fleets import ALICE, BOB, FLEET, MALLORY, ROOT, ROOT_2, ROOT_3, SCOPE, delta, document, set_, writer

HELD = document()


def after(body: TrustBody, held: TrustDocument = HELD) -> TrustDocument:
    return follow(held, ROOT.sign("trust", FLEET, encode(body)))


def test_a_grant_lists_a_newcomer_and_the_document_follows() -> None:
    found = after(succession.grant(HELD, "mallory", MALLORY.public, ("stt-worker.vad",), reason="new"))
    assert (found.version, found.body.reason) == (2, "new")
    entry = found.writer(MALLORY.kid)
    assert entry is not None
    assert entry.may_write("stt-worker", "vad")
    assert not entry.may_write("stt-worker", "other")


def test_a_listed_writer_keeps_its_key_and_gets_these_grants_alone() -> None:
    found = after(succession.grant(HELD, "alice", None, ("tts-worker", "tts-worker")))
    entry = found.writer(ALICE.kid)
    assert entry is not None
    assert entry.grants == ("tts-worker",)


def test_a_retired_writer_counts_up_to_its_limit() -> None:
    found = after(succession.retire(HELD, "alice", {SCOPE: (1, 5, 3)}))
    assert judge(delta(ALICE, 5), found).verdict is Verdict.VALID
    assert judge(delta(ALICE, 6), found).reason == "retired"
    assert judge(delta(ALICE, 1, scope="tts-worker"), found).reason == "retired"


def test_a_compromised_writer_counts_where_the_roots_endorse_it_and_gen_rises() -> None:
    good, bad = delta(ALICE, 5), delta(ALICE, 6)
    found = after(succession.compromise(HELD, ALICE.kid, [good.stamp.digest.hex()]))
    assert found.gen == HELD.gen + 1
    assert judge(good, found).verdict is Verdict.VALID
    assert judge(bad, found).reason == "compromised"
    assert judge(delta(BOB, 6), found).verdict is Verdict.VALID


def test_endorsements_add_up() -> None:
    first = after(succession.compromise(HELD, "alice", ["ab" * 32]))
    second = after(succession.compromise(first, "bob", ["cd" * 32]), first)
    assert second.body.endorsed == ("ab" * 32, "cd" * 32)


def test_good_is_the_greatest_of_each_key_at_or_below_the_named_epoch() -> None:
    old, good, bad = delta(ALICE, 3, set_("a"), set_("b")), delta(ALICE, 5, set_("a")), delta(ALICE, 9, set_("a"))
    others = delta(BOB, 4, set_("c"))
    found = succession.good_digests((bad, good, others, old), ALICE.kid, {SCOPE: 5}, HELD)
    assert found == {(SCOPE, "a"): good, (SCOPE, "b"): old}
    assert succession.good_digests((bad, good, old), ALICE.kid, {"tts-worker": 9}, HELD) == {}


def test_roots_are_added_dropped_and_counted() -> None:
    body = succession.change_roots(HELD, add=(ROOT_2.public, ROOT_3.public), threshold=2)
    assert (len(body.roots), body.threshold) == (3, 2)
    rotated = succession.change_roots(HELD, add=(ROOT_2.public,), drop=(ROOT.public,))
    assert rotated.roots == (ROOT_2.public,)


@pytest.mark.parametrize(
    "change",
    [
        lambda: succession.grant(pin(ROOT.public), "mallory", MALLORY.public, ("*",)),
        lambda: succession.grant(HELD, "mallory", None, ("*",)),
        lambda: succession.grant(HELD, "alice", MALLORY.public, ("*",)),
        lambda: succession.grant(HELD, "mallory", ROOT.public, ("*",)),
        lambda: succession.grant(HELD, "mallory", ALICE.public, ("*",)),
        lambda: succession.grant(document(writers=(writer(ALICE, status="retired"),)), "alice", None, ("*",)),
        lambda: succession.retire(HELD, "nobody", {}),
        lambda: succession.retire(document(writers=(writer(ALICE, status="compromised"),)), "alice", {}),
        lambda: succession.compromise(document(writers=(writer(ALICE, status="compromised"),)), "alice", ()),
        lambda: succession.compromise(document(gen=MAX_GEN), "alice", ()),
        lambda: succession.change_roots(HELD, threshold=2),
        lambda: succession.change_roots(HELD, threshold=0),
        lambda: succession.change_roots(HELD),
        lambda: succession.change_roots(HELD, drop=(ROOT.public,)),
        lambda: succession.change_roots(HELD, drop=(ROOT_2.public,)),
        lambda: succession.change_roots(HELD, add=(ALICE.public,)),
        lambda: succession.change_roots(HELD, add=(ROOT.public,)),
        lambda: succession.grant(document(version=2**31), "mallory", MALLORY.public, ("*",)),
    ],
)
def test_what_no_peer_should_follow_is_not_made(change: Callable[[], object]) -> None:
    with pytest.raises(RefusedError):
        change()


@pytest.mark.parametrize(("name", "grants"), [("Mallory", ("*",)), ("mallory", ("STT",)), ("mallory", ("a/b", "*"))])
def test_names_and_grants_are_checked(name: str, grants: tuple[str, ...]) -> None:
    with pytest.raises(IllegalNameError):
        succession.grant(HELD, name, MALLORY.public, grants)
