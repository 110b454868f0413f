"""The golden vectors: made again they are the same bytes, and the library reads them as they say."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tars_settings.core.delta import parse_delta
from tars_settings.core.floor import parse_floor_segment
from tars_settings.core.head import parse_segment, segment_digest
from tars_settings.core.presence import encode_presence, parse_presence
from tars_settings.core.question import HistoryQuestion, QuestionBody, parse_answer
from tars_settings.core.register import Registers, effective
from tars_settings.core.topics import Topics
from tars_settings.core.wire import decode_envelope, digest_of, pae
from tars_settings.errors import RejectedError
from tars_settings.gossip.effects import Effect, HeldBack, Rejected
from tars_settings.gossip.loading import Loading
from tars_settings.gossip.peer import Peer
from tars_settings.trust import sodium
from tars_settings.trust.document import follow, pin
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_id, parse_fleet
from tars_settings.trust.secrets import decrypt
from tars_settings.trust.validity import read_question
from tests.vectors.make import FILES, HERE, text_of


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


@pytest.mark.parametrize("case", vectors("merges"), ids=lambda case: case["name"])
def test_merges(case: dict[str, Any]) -> None:
    fleet = vectors("keys")["fleet"]["id"]
    for order in itertools.permutations(case["deltas"]):
        registers = Registers()
        for payload in order:
            registers.offer(parse_delta(payload.encode(), fleet)[1])
        (scope,) = registers.scopes()
        winners = registers.winners(scope)
        assert {key: one.delta.stamp.digest.hex() for key, one in winners.items()} == case["winners"]
        assert {one.key: one.assignment.set for one in effective(winners.values())} == case["says"]
        assert registers.digest(scope) == case["digest"]


def test_presence() -> None:
    made = vectors("presence")
    assert encode_presence(parse_presence(made["bytes"].encode())).decode() == made["bytes"]
    assert json.loads(made["bytes"]) == made["report"]


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
        "below-floor", "floor-incomplete", "chain-missing", "wrong-topic", "empty",
    }  # fmt: skip
