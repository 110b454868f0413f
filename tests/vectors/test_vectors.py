"""The golden vectors: made again they are the same bytes, and the library reads them as they say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tars_settings.core.delta import parse_delta
from tars_settings.core.floor import parse_floor_segment
from tars_settings.core.head import parse_segment, segment_digest
from tars_settings.core.presence import encode_presence, parse_presence
from tars_settings.core.question import HistoryQuestion, QuestionBody, parse_answer
from tars_settings.core.register import FleetView, Registers, effective
from tars_settings.core.topics import Topics
from tars_settings.core.wire import decode_envelope, digest_of, encode, pae
from tars_settings.errors import MalformedError, RejectedError
from tars_settings.gossip.effects import Effect, HeldBack, Rejected
from tars_settings.gossip.loading import Loading
from tars_settings.gossip.peer import Peer
from tars_settings.trust import sodium
from tars_settings.trust.document import follow, pin
from tars_settings.trust.grants import covers, covers_scope, is_grant
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_id, parse_fleet
from tars_settings.trust.secrets import associated, decrypt
from tars_settings.trust.validity import read_question
from tests.fleets import ALICE, FLEET, delta_body, set_
from tests.vectors.make import FILES, GOOD, HERE, text_of


def vectors(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text(encoding="ascii"))


@pytest.mark.parametrize("name", FILES)
def test_made_again_they_are_the_same_bytes(name: str) -> None:
    assert (HERE / f"{name}.json").read_bytes() == text_of(name).encode("ascii")


def test_keys() -> None:
    made = vectors("keys")
    for key in made["keys"]:
        signing = SigningKey("writer", key["name"], bytes.fromhex(key["seed"]))
        assert (signing.public.hex(), signing.kid) == (key["public"], key["kid"])
    assert fleet_id(parse_fleet(made["fleet"]["text"])) == made["fleet"]["id"]


def test_topics() -> None:
    topics = Topics()
    for one in vectors("topics")["addressed"]:
        parsed = topics.parse(one["text"])
        assert type(parsed).__name__ == one["kind"]
        assert {name: getattr(parsed, name) for name in one["fields"]} == one["fields"]
    assert [text for text in vectors("topics")["nothing"] if topics.parse(text) is not None] == []


def test_envelopes() -> None:
    publics = {key["kid"]: bytes.fromhex(key["public"]) for key in vectors("keys")["keys"]}
    fleet = vectors("keys")["fleet"]["id"]
    for one in vectors("envelopes")["signed"]:
        envelope = decode_envelope(one["envelope"].encode())
        encoding = pae(one["purpose"], fleet, envelope.kid, one["body"].encode())
        assert encoding.decode() == one["pae"]
        assert digest_of(encoding).hex() == one["digest"]
        assert envelope.sig.hex() == one["signature"]
        sodium.verify(encoding, envelope.sig, publics[envelope.kid])
    for one in vectors("envelopes")["consents"]:
        sodium.verify(one["pae"].encode(), bytes.fromhex(one["signature"]), publics[one["kid"]])
    for one in vectors("envelopes")["segments"]:
        assert segment_digest(one["bytes"].encode()) == one["digest"]
        parse_segment(one["bytes"].encode())
    assert sum(len(parse_floor_segment(part.encode())) for part in vectors("envelopes")["floor_parts"]) == 500


def test_questions() -> None:
    made = vectors("questions")
    for one in made["asked"]:
        trust = pin(parse_fleet(vectors("keys")["fleet"]["text"]))
        for held in one["held"]:
            trust = follow(trust, held.encode())
        try:
            reason = read_question(one["payload"].encode(), trust)[1].reason
        except RejectedError as error:
            reason = error.reason
        assert ("rejected" if reason else "valid", reason) == (one["verdict"], one["reason"]), one["name"]
    for share in made["shares"]:
        body = QuestionBody("stt-worker", 1, share["nonce"], share["of"], history=HistoryQuestion(1))
        assert body.asks(*share["worker"].split("@")) is share["asked"]
    assert {share["asked"] for share in made["shares"]} == {True, False}
    assert [parse_answer(text.encode()).worker for text in made["answers"]] == ["stt-worker@pi-3"] * 2


def test_the_encrypted_value_opens() -> None:
    made = vectors("envelopes")
    secret = made["secret"]
    payload = next(one["envelope"] for one in made["signed"] if one["name"] == "an encrypted value")
    fleet = vectors("keys")["fleet"]["id"]
    (item,) = parse_delta(payload.encode(), fleet)[1].body.assign
    key = SecretKey(secret["id"], bytes.fromhex(secret["key"]))
    assert item.secret.ct.hex() == secret["ct"]  # type: ignore[union-attr]
    assert (
        associated(secret["alg"], key.id, fleet, secret["scope"], secret["key_path"]).decode() == secret["associated"]
    )
    opened = decrypt(item.secret, {key.id: key}, fleet=fleet, scope=secret["scope"], key=secret["key_path"])  # type: ignore[arg-type]
    assert opened.decode() == secret["plain"]


@pytest.mark.parametrize("case", vectors("verdicts"), ids=lambda case: case["name"])
def test_verdicts(case: dict[str, Any]) -> None:
    effects: list[Effect] = []
    peer = Peer(Topics(), parse_fleet(vectors("keys")["fleet"]["text"]), effects.append)
    loading = Loading(peer, None, effects.append)
    for held in case["held"]:
        loading.offer(held.encode())
    assert not [one for one in effects if isinstance(one, Rejected | HeldBack)]
    topic = peer.topics.parse(case["topic"])
    assert topic is not None
    effects.clear()
    peer.receive(topic, case["payload"].encode("utf-8", "surrogateescape"), "live")
    found = [
        ("held" if isinstance(one, HeldBack) else "rejected", one.reason)
        for one in effects
        if isinstance(one, Rejected | HeldBack)
    ]
    assert (found or [("valid", "")]) == [(case["verdict"], case["reason"])]


def _in_every_order(deltas: Sequence[str]) -> Iterator[Registers]:
    fleet = vectors("keys")["fleet"]["id"]
    for order in itertools.permutations(deltas):
        registers = Registers()
        for payload in order:
            registers.offer(parse_delta(payload.encode(), fleet)[1])
        yield registers


@pytest.mark.parametrize("case", vectors("merges"), ids=lambda case: case["name"])
def test_merges(case: dict[str, Any]) -> None:
    for registers in _in_every_order(case["deltas"]):
        (scope,) = registers.scopes()
        winners = registers.winners(scope)
        assert {key: one.delta.stamp.digest.hex() for key, one in winners.items()} == case["winners"]
        assert {one.key: one.assignment.set for one in effective(winners.values())} == case["says"]
        assert registers.digest(scope) == case["digest"]


@pytest.mark.parametrize("case", vectors("trials"), ids=lambda case: case["name"])
def test_trials(case: dict[str, Any]) -> None:
    for registers in _in_every_order(case["deltas"]):
        (scope,) = registers.scopes()
        assert {key: one.delta.stamp.digest.hex() for key, one in registers.winners(scope).items()} == case["winners"]
        assert registers.digest(scope) == case["digest"]
        for over, says in ((False, case["says"]), (True, case["says_when_over"])):
            view = FleetView.of(registers, [scope], lambda _, over=over: over)  # type: ignore[misc]
            assert {one.key: one.assignment.set for one in view.scopes[0].registers} == says


def test_presence() -> None:
    made = vectors("presence")
    assert encode_presence(parse_presence(made["bytes"].encode())).decode() == made["bytes"]
    assert json.loads(made["bytes"]) == made["report"]


def _with_value(text: str) -> bytes:
    return delta_body(5, set_("vad", "V")).replace(b'"V"', text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("text", vectors("values")["canonical"])
def test_canonical_values(text: str) -> None:
    payload = ALICE.sign("delta", FLEET, _with_value(text))
    assert encode(parse_delta(payload, FLEET)[1].body.assign[0].set).decode() == text


@pytest.mark.parametrize("case", vectors("values")["refused"], ids=lambda case: case["text"][:40])
def test_values_in_another_form_are_malformed(case: dict[str, str]) -> None:
    body = _with_value(case["text"])
    payload = GOOD.replace(bytes(decode_envelope(GOOD).body), body)
    with pytest.raises(MalformedError):
        parse_delta(payload, FLEET)


def test_grants() -> None:
    made = vectors("grants")
    for one in made["covers"]:
        assert is_grant(one["grant"])
        assert [place for place in made["places"] if covers(one["grant"], *place.split())] == one["covered"]
        scopes = dict.fromkeys(place.split()[0] for place in made["places"])
        assert [scope for scope in scopes if covers_scope(one["grant"], scope)] == one["scopes"]
    assert [text for text in made["no grants"] if is_grant(text)] == []


def test_every_reason_of_a_refusal_has_a_vector() -> None:
    reasons = {case["reason"] for case in vectors("verdicts")}
    kinds: set[str] = set()
    todo: list[type[RejectedError]] = [RejectedError]
    while todo:
        kind = todo.pop()
        kinds.add(kind.reason)
        todo += kind.__subclasses__()
    wanted = {"malformed", "newer-version", "bad-signature", "untrusted"}
    assert wanted <= reasons & kinds
    assert reasons >= {
        "unknown-writer", "not-granted", "retired", "compromised", "gen-ahead", "trust-behind", "no-trust",
        "below-floor", "floor-incomplete", "chain-missing", "wrong-topic", "empty", "not-cosigned",
    }  # fmt: skip
