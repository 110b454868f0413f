"""Floors: what is at or below one and not listed is void everywhere, so tombstones go and nobody brings a key back."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from tars_settings.core.delta import Delta
from tars_settings.core.floor import FloorBody, FloorMark, cut, parse_floor_segment
from tars_settings.core.records import FloorRow, FloorSegmentRow
from tars_settings.core.register import Registers, effective
from tars_settings.core.topics import FloorSegmentTopic, FloorTopic, KeyTopic, Topics
from tars_settings.core.wire import encode, short_hash
from tars_settings.gossip.compact import plan
from tars_settings.gossip.effects import Compact, Compacted, Effect, Persist
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.replicator import Policy
from tars_settings.gossip.waiting import Standing
from tars_settings.testing.mesh import SCOPE as MESH_SCOPE
from tars_settings.testing.mesh import Mesh
from tars_settings.trust.keys import SigningKey
from tests.fleets import ALICE, BOB, FLEET, MALLORY, ROOT, SCOPE, TOPICS, delta, delta_payload, document, set_, unset
from tests.fleets import writer as listed


def new_peer(**trust: Any) -> tuple[Peer, list[Effect]]:
    effects: list[Effect] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    peer.adopt_trust(document(**trust))
    return peer, effects


def floor_payload(signer: SigningKey, epoch: int, *live: Delta, gen: int = 1, trust: int = 1, **more: Any) -> bytes:
    digests = tuple(sorted(one.stamp.digest.hex() for one in live))
    return signer.sign("floor", FLEET, encode(FloorBody(SCOPE, gen, epoch, trust, digests, **more)))


def give(peer: Peer, *deltas: Delta) -> list[Standing]:
    return [peer.receive(KeyTopic(SCOPE, one.body.assign[0].key), one.raw, "live") for one in deltas]


def values(registers: Registers) -> dict[str, Any]:
    return {one.key: one.assignment.set for one in effective(registers.winners(SCOPE).values())}


def test_what_a_floor_does_not_list_is_void_and_does_not_come_back() -> None:
    peer, effects = new_peer()
    old, gone, kept, above = (
        delta(BOB, 1, set_("a", "old")),
        delta(ALICE, 2, unset("a")),
        delta(ALICE, 3, set_("b")),
        delta(ALICE, 9, set_("c")),
    )
    give(peer, gone, kept, above)
    peer.receive(FloorTopic(SCOPE), floor_payload(ALICE, 3, kept), "live")
    assert values(peer.registers) == {"b": 1, "c": 1}
    dropped = {row.digest for one in effects if isinstance(one, Persist) for row in one.drop}  # type: ignore[union-attr]
    assert gone.stamp.digest in dropped
    assert give(peer, old, gone) == [Standing.COMPACTED, Standing.COMPACTED]
    assert "a" not in peer.registers.winners(SCOPE)


def test_a_floor_never_goes_back_while_trust_stays() -> None:
    peer, _ = new_peer()
    high, low = floor_payload(ALICE, 9), floor_payload(BOB, 8)
    assert peer.receive(FloorTopic(SCOPE), high, "live") is Standing.CURRENT
    assert peer.receive(FloorTopic(SCOPE), low, "live") is Standing.WORSE
    assert peer.floors.mark(SCOPE).epoch == 9
    assert peer.desired(FloorTopic(SCOPE)) == high


def test_of_two_floors_at_one_place_the_digest_decides_in_any_order() -> None:
    first, second = floor_payload(ALICE, 5), floor_payload(BOB, 5)
    ends = set()
    for order in itertools.permutations((first, second)):
        peer, _ = new_peer()
        for one in order:
            peer.receive(FloorTopic(SCOPE), one, "live")
        ends.add(peer.desired(FloorTopic(SCOPE)))
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("grants", "counts"),
    [(("*",), True), ((SCOPE,), True), ((f"{SCOPE}.*",), True), ((f"{SCOPE}.vad",), False), (("tts-worker",), False)],
)
def test_it_takes_a_grant_of_the_whole_scope(grants: tuple[str, ...], counts: bool) -> None:
    peer, _ = new_peer(writers=(listed(ALICE, grants), listed(BOB)))
    victim = delta(BOB, 1, set_("a"))
    give(peer, victim)
    standing = peer.receive(FloorTopic(SCOPE), floor_payload(ALICE, 5), "live")
    assert (standing is Standing.CURRENT) == counts
    assert ("a" not in peer.registers.winners(SCOPE)) == counts


@pytest.mark.parametrize("change", ["stranger", "forged", "moved", "compromised", "gen ahead", "another kind"])
def test_floors_that_do_not_count(change: str) -> None:
    alice = listed(ALICE, status="compromised") if change == "compromised" else listed(ALICE)
    peer, _ = new_peer(writers=(alice, listed(BOB)))
    give(peer, delta(BOB, 1, set_("a")))
    payload = floor_payload(ALICE, 5)
    topic = FloorTopic(SCOPE)
    if change == "stranger":
        payload = floor_payload(MALLORY, 5)
    elif change == "forged":
        payload = payload.replace(b'"epoch":5', b'"epoch":6')
    elif change == "moved":
        topic = FloorTopic("tts-worker")
    elif change == "gen ahead":
        payload = floor_payload(ALICE, 5, gen=2)
    elif change == "another kind":
        payload = delta_payload(ALICE, 5)
    assert peer.receive(topic, payload, "live") is not Standing.CURRENT
    assert "a" in peer.registers.winners(SCOPE)


def test_a_floor_of_a_compromised_writer_loses_its_force() -> None:
    peer, _ = new_peer()
    peer.receive(FloorTopic(SCOPE), floor_payload(BOB, 2), "live")
    peer.receive(FloorTopic(SCOPE), floor_payload(ALICE, 2**53 - 1), "live")
    victim = delta(BOB, 7, set_("a"))
    assert give(peer, victim) == [Standing.COMPACTED]
    peer.adopt_trust(document(version=2, writers=(listed(ALICE, status="compromised"), listed(BOB))))
    assert peer.floors.mark(SCOPE).epoch == 2
    assert give(peer, victim) == [Standing.CURRENT]


# --- a list in parts -----------------------------------------------------------------------------------------------


def long_floor(epoch: int, listed_too: Delta) -> tuple[bytes, dict[str, bytes]]:
    inline, parts = cut([n.to_bytes(32, "big") for n in range(1, 1200)] + [listed_too.stamp.digest])
    assert not inline
    assert len(parts) > 1
    return floor_payload(ALICE, epoch, segments=tuple(parts)), parts


def test_a_long_list_is_held_until_all_of_it_is_here() -> None:
    peer, effects = new_peer()
    lives, dies, was_here = delta(ALICE, 2, set_("a")), delta(ALICE, 3, set_("b")), delta(BOB, 1, set_("c"))
    give(peer, was_here)
    raw, parts = long_floor(5, lives)
    peer.receive(FloorTopic(SCOPE), raw, "live")
    assert give(peer, lives, dies) == [Standing.ALONE, Standing.ALONE], "held: not stored, not repaired over"
    assert values(peer.registers) == {"c": 1}, "what was valid before stays until the list can judge it"
    *most, last = parts.items()
    for name, part in most:
        peer.receive(FloorSegmentTopic(SCOPE, name), part, "probe")
    assert "c" in peer.registers.winners(SCOPE)
    assert peer.floors.missing(SCOPE) == (last[0],)
    peer.receive(FloorSegmentTopic(SCOPE, last[0]), last[1], "probe")
    assert values(peer.registers) == {"a": 1}
    stored = [row for one in effects if isinstance(one, Persist) for row in one.put]
    assert sum(isinstance(row, FloorRow) for row in stored) == 1
    assert sum(isinstance(row, FloorSegmentRow) for row in stored) == len(parts)


def test_a_part_must_be_what_its_name_says() -> None:
    peer, _ = new_peer()
    raw, parts = long_floor(5, delta(ALICE, 2, set_("a")))
    peer.receive(FloorTopic(SCOPE), raw, "live")
    (first, _), (_, other) = list(parts.items())[:2]
    assert peer.receive(FloorSegmentTopic(SCOPE, first), other, "probe") is Standing.ALONE
    assert peer.receive(FloorSegmentTopic(SCOPE, "0" * 32), other, "probe") is Standing.ALONE
    assert len(peer.floors.missing(SCOPE)) == len(parts)


def test_a_list_is_cut_and_put_together() -> None:
    digests = {random.Random(n).randbytes(32) for n in range(1500)}
    inline, parts = cut(digests)
    together = set().union(*(parse_floor_segment(part) for part in parts.values()))
    assert inline == ()
    assert together == digests
    assert all(short_hash(part) == name and len(part) <= 32 * 1024 for name, part in parts.items())


# --- which tombstones may go -----------------------------------------------------------------------------------------


def held(*deltas: Delta) -> Registers:
    registers = Registers()
    for one in deltas:
        registers.offer(one)
    return registers


def test_a_tombstone_of_nothing_older_goes() -> None:
    found = plan(held(delta(ALICE, 1, set_("a")), delta(ALICE, 2, unset("a")), delta(ALICE, 3, set_("b"))), SCOPE)
    assert found is not None
    assert (found.gen, found.epoch, found.gone, found.live) == (1, 2, ("a",), frozenset())


@pytest.mark.parametrize(
    "history",
    [
        (delta(ALICE, 1, set_("a.b")), delta(ALICE, 2, unset("a"))),
        (delta(ALICE, 1, set_("a", {"b": 1})), delta(ALICE, 2, unset("a.b"))),
        (delta(ALICE, 1, set_("a"), set_("z")), delta(BOB, 2, unset("a"))),
        (delta(ALICE, 1, set_("a.b"), set_("z")), delta(BOB, 2, unset("a.b"))),
    ],
    ids=["a value below", "a value above", "the same delta stays for another key", "the same, nested"],
)
def test_a_tombstone_that_hides_something_stays(history: tuple[Delta, ...]) -> None:
    assert plan(held(*history), SCOPE) is None


def history(seed: int) -> list[Delta]:
    order = random.Random(seed)
    keys = ["a", "a.b", "a.b.c", "a.d", "e", "f.g"]
    made = []
    for epoch in range(1, order.randrange(3, 14)):
        chosen: list[str] = []
        for key in order.sample(keys, order.randrange(1, 4)):
            if not any((one + ".").startswith(key + ".") or (key + ".").startswith(one + ".") for one in chosen):
                chosen.append(key)
        assign = [unset(key) if order.random() < 0.5 else set_(key, {"n": epoch}) for key in chosen]
        made.append(delta(order.choice((ALICE, BOB)), epoch, *assign))
    return made


def test_no_floor_changes_what_a_scope_says() -> None:
    """Whatever was written, and whatever an old peer brings back (a model without the rule: 302 of 1,000)."""
    gone = 0
    for seed in range(400):
        made = history(seed)
        before = held(*made)
        found = plan(before, SCOPE)
        if found is None:
            continue
        gone += len(found.gone)
        mark = FloorMark(found.gen, found.epoch, found.live)
        lives = [one for one in made if mark.fate(one.stamp.gen, one.stamp.epoch, one.stamp.digest) == "lives"]
        assert values(held(*lives)) == values(before), seed
    assert gone > 100, "hardly a tombstone ever went: nothing was tried"


# --- a fleet ----------------------------------------------------------------------------------------------------------


def stages(mesh: Mesh, writer: str, ref: int) -> list[str]:
    return [one.stage for one in mesh.peers[writer].stages.get(ref, [])]


def notices(mesh: Mesh, kind: type) -> list[Any]:
    seen: list[Any] = []
    mesh.observers.append(lambda _peer, effect: seen.append(effect) if isinstance(effect, kind) else None)
    return seen


def compacted(mesh: Mesh, count: int = 12) -> None:
    mesh.run(10)
    for n in range(count):
        mesh.push("writer-0", {f"k{n}": n, f"keep{n}": n})
        mesh.run(1)
    mesh.push("writer-1", {}, unset=tuple(f"k{n}" for n in range(count)))
    mesh.run(5)


def test_compaction_clears_the_topics_and_everybody_agrees() -> None:
    mesh = Mesh(3, workers=3, policy=Policy(compact_above=0, audit_s=60.0))
    compacted(mesh)
    # Every old delta lives for another key and says something of the unset one: the tombstones must stay.
    mesh.tell(mesh.peers["writer-0"], Compact(901, MESH_SCOPE))
    assert stages(mesh, "writer-0", 901) == ["refused"]
    for n in range(12):
        mesh.push("writer-0", {f"keep{n}": n})
        mesh.run(1)
    done = notices(mesh, Compacted)
    mesh.tell(mesh.peers["writer-0"], Compact(902, MESH_SCOPE))
    mesh.run(30)
    assert stages(mesh, "writer-0", 902) == ["signed", "accepted", "retained"]
    assert [len(one.keys) for one in done] == [12]
    assert not [topic for topic in mesh.broker.retained if "/k" in topic and "keep" not in topic]
    assert mesh.replicas_agree()
    assert mesh.broker_agrees()
    repairs = mesh.counters["repairs"]
    mesh.run(300)
    assert mesh.counters["repairs"] == repairs, "cleared topics are no damage"


def test_an_old_peer_brings_nothing_back() -> None:
    mesh = Mesh(5, workers=3, policy=Policy(compact_above=0, audit_s=60.0))
    mesh.run(10)
    for n in range(6):
        mesh.push("writer-0", {f"k{n}": n})
        mesh.run(1)
    sleeper = mesh.peers["worker-0"]
    mesh.partition(sleeper)
    mesh.push("writer-1", {"alive": 1}, unset=tuple(f"k{n}" for n in range(6)))
    mesh.run(5)
    mesh.push("writer-1", {"alive": 2})
    mesh.run(5)
    mesh.tell(mesh.peers["writer-0"], Compact(901, MESH_SCOPE))
    mesh.run(30)
    assert stages(mesh, "writer-0", 901)[-1] == "retained"
    assert sleeper.view(MESH_SCOPE).keys() >= {"k0", "k5"}, "the fault: it still holds what was deleted"
    mesh.heal()
    mesh.run(300)
    assert mesh.replicas_agree()
    assert sleeper.view(MESH_SCOPE).keys() == {"alive"}
    assert mesh.broker_agrees()


def test_a_push_that_a_floor_overtook_is_told_so() -> None:
    mesh = Mesh(7, workers=2, policy=Policy(compact_above=0, audit_s=60.0))
    mesh.run(10)
    mesh.push("writer-1", {"a": 1})
    mesh.run(5)
    mesh.partition(mesh.peers["writer-1"])
    for n in range(4):
        mesh.push("writer-0", {"b": n})
        mesh.run(1)
    ref = mesh.push("writer-0", {}, unset=("b",))
    mesh.run(5)
    assert stages(mesh, "writer-0", ref)[-1] == "retained"
    cut_off = mesh.peers["writer-1"]
    mesh.heal()
    mesh.run(0.01)
    late = mesh.push("writer-1", {"late": 1})
    mesh.tell(mesh.peers["writer-0"], Compact(901, MESH_SCOPE))
    mesh.run(120)
    assert stages(mesh, "writer-1", late)[-1] in ("retained", "superseded")
    kept = "late" in cut_off.view(MESH_SCOPE)
    assert kept == (stages(mesh, "writer-1", late)[-1] == "retained")
    assert mesh.replicas_agree()


def test_compaction_is_automatic_where_tombstones_abound() -> None:
    mesh = Mesh(9, workers=2, policy=Policy(compact_above=8, audit_s=30.0))
    mesh.run(10)
    for n in range(12):
        mesh.push("writer-0", {f"k{n}": n})
        mesh.run(0.5)
    mesh.push("writer-0", {}, unset=tuple(f"k{n}" for n in range(12)))
    done = notices(mesh, Compacted)
    mesh.run(200)
    assert len(done) == 1
    assert mesh.replicas_agree()
    assert all(not peer.view(MESH_SCOPE) for peer in mesh.running())


def test_compacting_is_refused_without_a_grant_or_when_not_caught_up() -> None:
    mesh = Mesh(11, workers=1)
    mesh.run(10)
    mesh.partition(mesh.peers["writer-0"])
    mesh.tell(mesh.peers["writer-0"], Compact(901, MESH_SCOPE))
    (stage,) = mesh.peers["writer-0"].stages[901]
    assert (stage.stage, stage.error) == ("refused", "NotSyncedError")
    mesh.tell(mesh.peers["worker-0"], Compact(902, MESH_SCOPE))
    assert mesh.peers["worker-0"].stages[902][-1].error == "NotGrantedError"


def test_topics_of_floors_are_their_own_inverse() -> None:
    topics = Topics()
    for topic in (FloorTopic(SCOPE), FloorSegmentTopic(SCOPE, "0" * 32)):
        assert topics.parse(topics.format(topic)) == topic
