"""Makes the golden vectors: ``python -m tests.vectors.make`` writes them, and a test checks them byte for byte.

All keys come from fixed seeds. Payloads stand as text: they are ASCII JSON, and their bytes are what counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tars_settings.core.delta import Ack, Assignment
from tars_settings.core.floor import FloorBody, cut
from tars_settings.core.head import LargeRef, Segment, encode_segment, segment_digest
from tars_settings.core.presence import Presence, ScopeReport, encode_presence
from tars_settings.core.question import Fit, HistoryQuestion, QuestionBody, answers, fit_answer
from tars_settings.core.register import Registers, effective
from tars_settings.core.topics import (
    AnswerTopic,
    FloorSegmentTopic,
    FloorTopic,
    IndexTopic,
    KeyTopic,
    PresenceTopic,
    QuestionTopic,
    SchemaTopic,
    SegmentTopic,
    Topics,
    TrustTopic,
)
from tars_settings.core.wire import Purpose, decode_envelope, digest_of, encode, pae
from tars_settings.trust.document import Retirement
from tars_settings.trust.keys import SecretKey, fleet_id, fleet_text
from tars_settings.trust.secrets import encrypt
from tests.fleets import (
    ALICE,
    BOB,
    FLEET,
    MALLORY,
    ROOT,
    ROOT_2,
    ROOT_3,
    SCOPE,
    TOPICS,
    delta,
    delta_body,
    delta_payload,
    index_payload,
    key_topic,
    later_payload,
    question_payload,
    segment_payload,
    set_,
    trust_payload,
    unset,
)
from tests.fleets import writer as listed

HERE = Path(__file__).parent
SEEDS = {
    ROOT.name: 1,
    ROOT_2.name: 2,
    ROOT_3.name: 3,
    ALICE.name: 11,
    BOB.name: 12,
    MALLORY.name: 13,
}


def keys() -> Any:
    """Seeds, public keys, key ids, and the fleet's text and id."""
    made = [
        {"name": key.name, "seed": bytes([SEEDS[key.name]] * 32).hex(), "public": key.public.hex(), "kid": key.kid}
        for key in (ROOT, ROOT_2, ROOT_3, ALICE, BOB, MALLORY)
    ]
    return {"keys": made, "fleet": {"text": fleet_text(ROOT.public), "id": fleet_id(ROOT.public)}}


def topics() -> Any:
    """Topics with what they address, and texts that address nothing."""
    kid, other = ALICE.kid, "0123456789abcdef" * 2
    addressed = [
        TrustTopic(), TrustTopic(7), KeyTopic("stt-worker", "vad"), KeyTopic("_all", "audio.vad_threshold"),
        KeyTopic("stt-worker@pi-3", "a.b.c"), IndexTopic(SCOPE, kid), SegmentTopic(SCOPE, kid, 12), FloorTopic(SCOPE),
        FloorSegmentTopic(SCOPE, other), SchemaTopic(SCOPE, other), PresenceTopic("stt-worker", "pi-3"),
        QuestionTopic("stt-worker@pi-3"), AnswerTopic(other, "stt-worker", "pi-3"),
    ]  # fmt: skip
    nothing = [
        "", "system/config", "system/config/", "system/config/stt-worker", "system/config/Stt/vad",
        "system/config/stt-worker/audio.vad", "system/config/stt-worker/_vad", "system/config/stt-worker/vad_",
        "system/config/stt-worker/vad\n", "system/config/stt-worker/v\u0430d", "system/config/stt-worker@/vad",
        "system/config/_trust/0", "system/config/_trust/01", "system/config/stt-worker/_head/ABC",
        f"system/config/stt-worker/_head/{kid}/0", f"system/config/stt-worker/_head/{kid.upper()}",
        "system/config/stt-worker/" + "k" * 129, "system/config/stt-worker/a/b", "$system/config/stt-worker/vad",
    ]  # fmt: skip
    return {
        "addressed": [
            {"kind": type(one).__name__, "fields": {n: getattr(one, n) for n in one.__struct_fields__}, "text": text}
            for one in addressed
            for text in [Topics().format(one)]
        ],
        "nothing": nothing,
    }


def _signed(name: str, purpose: Purpose, payload: bytes) -> dict[str, Any]:
    envelope = decode_envelope(payload)
    body = bytes(envelope.body)
    encoding = pae(purpose, FLEET, envelope.kid, body)
    return {
        "name": name,
        "purpose": purpose,
        "body": body.decode(),
        "pae": encoding.decode(),
        "signature": envelope.sig.hex(),
        "digest": digest_of(encoding).hex(),
        "envelope": payload.decode(),
    }


TRUST = trust_payload()
LARGE = delta(ALICE, 9, set_("motd", "x" * 9000), set_("other"))
SECRET = SecretKey("stt-1", bytes(range(32)))


def _floors() -> dict[str, bytes]:
    lives = delta(ALICE, 2, set_("vad", 0.6))
    body = FloorBody(SCOPE, 1, 5, 1, (lives.stamp.digest.hex(),), at="2026-01-01T00:00:00Z")
    digests = [bytes([n % 251, n // 251]) * 16 for n in range(500)]
    inline, parts = cut(digests)
    long = FloorBody(SCOPE, 1, 6, 1, inline, tuple(parts))
    return {
        "short": ALICE.sign("floor", FLEET, encode(body)),
        "in parts": ALICE.sign("floor", FLEET, encode(long)),
        **{f"part {n}": part for n, part in enumerate(parts.values(), 1)},
    }


FLOORS = _floors()


def envelopes() -> Any:
    """Bodies, what is signed of them, signatures, digests and envelopes; then the unsigned parts and their digests."""
    ciphertext = encrypt(
        b'"hunter2"', SECRET, alg="xchacha20poly1305", nonce=bytes(24), fleet=FLEET, scope=SCOPE, key="api_key"
    )
    everything = delta_payload(
        ALICE, 3, set_("audio.gain", [1, 2.5, None, "\u00e4", {"b": True}]), unset("vad"),
        at="2026-01-01T00:00:00Z", by="alice", reason="noisy kitchen", ack=Ack(10, 1.0),
    )  # fmt: skip
    first = delta_payload(ALICE, 1, set_("vad", 0.5))
    over = delta(ALICE, 1, set_("vad", 0.5)).stamp.digest.hex()
    second = delta_payload(ALICE, 2, set_("vad", 0.6, over=over))
    segment = segment_payload(first, second)
    large = encode_segment(Segment(1, (), (LargeRef.of(LARGE),)))
    rotated = trust_payload(2, roots=(ROOT_2, ROOT_3), threshold=2, signed_by=(ROOT, ROOT_2, ROOT_3))
    index = index_payload(ALICE, 4, {1: segment, 2: large}, seen={BOB.kid: 7}, epoch=9)
    secret = ALICE.sign("delta", FLEET, delta_body(4, _secret("api_key", ciphertext)))
    return {
        "signed": [
            _signed("a delta that sets one key", "delta", first),
            _signed("one that replaces it", "delta", second),
            _signed("set and unset, all fields", "delta", everything),
            _signed("an encrypted value", "delta", secret),
            _signed("an index", "head", index),
            _signed("a floor", "floor", FLOORS["short"]),
            _signed("a floor whose list is in parts", "floor", FLOORS["in parts"]),
            _signed("the first trust document", "trust", TRUST),
            _signed("one that rotates the roots", "trust", rotated),
            _signed("a question about history", "question", HISTORY_ASKED),
            _signed("a proposal", "question", PROPOSED),
        ],
        "segments": [{"bytes": one.decode(), "digest": segment_digest(one)} for one in (segment, large)],
        "floor_parts": [FLOORS["part 1"].decode(), FLOORS["part 2"].decode()],
        "secret": {
            "id": SECRET.id, "key": SECRET.material.hex(), "nonce": bytes(24).hex(), "alg": ciphertext.alg,
            "plain": '"hunter2"', "scope": SCOPE, "key_path": "api_key", "ct": ciphertext.ct.hex(),
        },
    }  # fmt: skip


def _secret(key: str, ciphertext: Any) -> Any:
    return Assignment(key, secret=ciphertext)


HISTORY_ASKED = question_payload(
    ALICE, history=HistoryQuestion(20, key="audio.gain", since=40), of=50, within_s=1.0, at="2026-01-01T00:00:00Z"
)
PROPOSED = question_payload(ALICE, propose=(set_("vad", 0.6), unset("model")), to=("stt-worker@pi-3",))
GOOD = delta_payload(ALICE, 5, set_("vad", 0.5))
GOOD_BODY = delta_body(5)
LATER = b'{"of":"a later form"}'
RETIRED = trust_payload(2, writers=(listed(ALICE, status="retired", retired={SCOPE: Retirement(1, 5, 3)}), listed(BOB)))
ENDORSING = trust_payload(
    2,
    gen=2,
    writers=(listed(ALICE, status="compromised"), listed(BOB)),
    endorsed=(delta(ALICE, 5, set_("vad", 0.5)).stamp.digest.hex(),),
)
NARROW = trust_payload(2, writers=(listed(ALICE, (f"{SCOPE}.audio", "tts-*")), listed(BOB)))


def _case(name: str, verdict: str, reason: str, payload: bytes, *, topic: str = "", held: Any = (TRUST,)) -> Any:
    return {
        "name": name,
        "held": [one.decode() for one in held],
        "topic": topic or key_topic("vad"),
        "payload": payload.decode("utf-8", "surrogateescape"),
        "verdict": verdict,
        "reason": reason,
    }


def verdicts() -> Any:
    """What a fresh peer that holds *held* (trust documents, floors) says of a payload on a topic."""
    index, trust = TOPICS.format(IndexTopic(SCOPE, ALICE.kid)), TOPICS.format(TrustTopic())
    floor = TOPICS.format(FloorTopic(SCOPE))
    listed_delta = delta_payload(ALICE, 2, set_("vad", 0.6))
    return [
        _case("valid", "valid", "", GOOD),
        _case("on the topic of any of its keys", "valid", "", delta_payload(ALICE, 5, set_("a"), set_("vad"))),
        _case("forged value", "rejected", "bad-signature", GOOD.replace(b"0.5", b"0.9")),
        _case("another fleet's", "rejected", "bad-signature", delta_payload(ALICE, 5, fleet="0" * 32)),
        _case("another kind's signature", "rejected", "bad-signature", ALICE.sign("head", FLEET, delta_body(5))),
        _case("another writer's signature", "rejected", "bad-signature",
              GOOD.replace(ALICE.kid.encode(), BOB.kid.encode())),
        _case("on another key's topic", "rejected", "wrong-topic", GOOD, topic=key_topic("other")),
        _case("on another scope's topic", "rejected", "wrong-topic", GOOD, topic=key_topic("vad", "tts-worker")),
        _case("a stranger", "rejected", "unknown-writer", delta_payload(MALLORY, 5)),
        _case("a stranger who names a later trust document", "held", "trust-behind",
              delta_payload(MALLORY, 5, trust=2)),
        _case("a gen that the document it names has not", "rejected", "gen-ahead", delta_payload(ALICE, 5, gen=2)),
        _case("a gen to come", "held", "trust-behind", delta_payload(ALICE, 5, gen=2, trust=2)),
        _case("an older gen", "valid", "", delta_payload(ALICE, 5, gen=0)),
        _case("without a trust document", "held", "no-trust", GOOD, held=()),
        _case("not granted", "rejected", "not-granted", delta_payload(ALICE, 5, trust=2), held=(TRUST, NARROW)),
        _case("granted below", "valid", "", delta_payload(ALICE, 5, set_("audio.gain"), trust=2),
              topic=key_topic("audio.gain"), held=(TRUST, NARROW)),
        _case("up to its retirement", "valid", "", GOOD, held=(TRUST, RETIRED)),
        _case("after its retirement", "rejected", "retired", delta_payload(ALICE, 6), held=(TRUST, RETIRED)),
        _case("compromised", "rejected", "compromised", delta_payload(ALICE, 4), held=(TRUST, ENDORSING)),
        _case("compromised and endorsed", "valid", "", GOOD, held=(TRUST, ENDORSING)),
        _case("below the floor and listed", "valid", "", listed_delta, held=(TRUST, FLOORS["short"])),
        _case("at the floor and not listed", "rejected", "below-floor", GOOD, held=(TRUST, FLOORS["short"])),
        _case("above the floor", "valid", "", delta_payload(BOB, 6), held=(TRUST, FLOORS["short"])),
        _case("below a floor whose list is not all here", "held", "floor-incomplete", GOOD,
              held=(TRUST, FLOORS["in parts"])),
        _case("empty", "rejected", "empty", b""),
        _case("garbage", "rejected", "malformed", b"{nonsense"),
        _case("a blank", "rejected", "malformed", GOOD.replace(b'"v":1,', b'"v":1, ')),
        _case("a key twice", "rejected", "malformed", GOOD.replace(b'"v":1,', b'"v":1,"v":1,')),
        _case("fields in another order", "rejected", "malformed",
              ALICE.sign("delta", FLEET, _reordered(delta_body(5)))),
        _case("an unknown field", "rejected", "malformed",
              ALICE.sign("delta", FLEET, delta_body(5)[:-1] + b',"zzz":1}')),
        _case("a number in another form", "rejected", "malformed",
              ALICE.sign("delta", FLEET, delta_body(5, set_("vad", 0.5)).replace(b"0.5", b"0.50"))),
        _case("an escape that is not needed", "rejected", "malformed",
              ALICE.sign("delta", FLEET, delta_body(5, set_("vad", "a")).replace(b'"a"', b'"\\u0061"'))),
        _case("a key and what lies below it", "rejected", "malformed",
              ALICE.sign("delta", FLEET, delta_body(5, set_("vad"), set_("vad.x")))),
        _case("the same key twice", "rejected", "malformed",
              ALICE.sign("delta", FLEET, delta_body(5, set_("vad"), set_("vad")))),
        _case("epoch 0", "rejected", "malformed", ALICE.sign("delta", FLEET, delta_body(0))),
        _case("an epoch beyond 2^53-1", "rejected", "malformed", ALICE.sign("delta", FLEET, delta_body(2**53))),
        _case("an illegal key", "rejected", "malformed", ALICE.sign("delta", FLEET, delta_body(5, set_("vad_")))),
        _case("a cosignature", "rejected", "malformed", MALLORY.cosign("delta", FLEET, decode_envelope(GOOD))),
        _case("a later version that a writer signed", "rejected", "newer-version", later_payload(ALICE, LATER)),
        _case("a later version that nobody signed", "rejected", "malformed", b'{"v":2,"anything":1}'),
        _case("a later version of a stranger", "rejected", "malformed", later_payload(MALLORY, LATER)),
        _case("a version relabelled", "rejected", "malformed", later_payload(ALICE, LATER, version=1)),
        _case("an index", "valid", "", index_payload(ALICE, 3, {}), topic=index),
        _case("another writer's index", "rejected", "wrong-topic", index_payload(BOB, 3, {}), topic=index),
        _case("an index up to its retirement", "valid", "",
              index_payload(ALICE, 3, {}), topic=index, held=(TRUST, RETIRED)),
        _case("an index after it", "rejected", "retired",
              index_payload(ALICE, 4, {}), topic=index, held=(TRUST, RETIRED)),
        _case("a floor", "valid", "", FLOORS["short"], topic=floor),
        _case("a floor without a grant of the scope", "rejected", "not-granted", FLOORS["short"],
              topic=floor, held=(TRUST, NARROW)),
        _case("a trust document", "valid", "", RETIRED, topic=trust),
        _case("an older one", "rejected", "untrusted", TRUST, topic=trust, held=(TRUST, RETIRED)),
        _case("of another root", "rejected", "untrusted", trust_payload(2, signed_by=(MALLORY,)), topic=trust),
        _case("of roots that nobody introduced", "held", "chain-missing",
              trust_payload(9, roots=(MALLORY,), signed_by=(MALLORY,)), topic=trust),
        _case("one that drops a writer", "rejected", "untrusted",
              trust_payload(2, writers=(listed(ALICE),)), topic=trust),
        _case("one that lowers gen", "rejected", "untrusted", trust_payload(2, gen=0), topic=trust),
        _case("one without enough signatures", "rejected", "untrusted",
              trust_payload(2, roots=(ROOT_2, ROOT_3), threshold=2, signed_by=(ROOT, ROOT_2)), topic=trust),
    ]  # fmt: skip


def _reordered(body: bytes) -> bytes:
    fields = json.loads(body)
    return encode({name: fields[name] for name in sorted(fields)})


def _merge(name: str, *made: Any) -> Any:
    registers = Registers()
    for one in made:
        registers.offer(one)
    winners = registers.winners(SCOPE)
    return {
        "name": name,
        "deltas": [one.raw.decode() for one in made],
        "winners": {key: one.delta.stamp.digest.hex() for key, one in sorted(winners.items())},
        "says": {one.key: one.assignment.set for one in effective(winners.values())},
        "digest": registers.digest(SCOPE),
    }


def merges() -> Any:
    """Deltas in any order, the winner of each key, what the scope says, and the digest over its winners."""
    return [
        _merge("the later epoch", delta(ALICE, 1, set_("a", 1)), delta(BOB, 2, set_("a", 2))),
        _merge("one epoch: the greater key id", delta(ALICE, 1, set_("a", 1)), delta(BOB, 1, set_("a", 2))),
        _merge("one epoch and key: the greater digest", delta(ALICE, 1, set_("a", 1)), delta(ALICE, 1, set_("a", 2))),
        _merge("the later gen", delta(ALICE, 2**53 - 1, set_("a", 1)), delta(ALICE, 1, set_("a", 2), gen=2)),
        _merge("several keys", delta(ALICE, 1, set_("a", 1), set_("b", 1)), delta(BOB, 2, set_("b", 2), set_("c", 2))),
        _merge("an unset", delta(ALICE, 1, set_("a", 1), set_("b", 1)), delta(ALICE, 2, unset("a"))),
        _merge("a whole model covers older leaves",
               delta(ALICE, 1, set_("m.a", 1)), delta(BOB, 2, set_("m", {"b": 2}))),
        _merge("a leaf over a model", delta(ALICE, 1, set_("m", {"a": 1})), delta(BOB, 2, set_("m.b", 2))),
        _merge("an unset covers what is below",
               delta(ALICE, 1, set_("m.a", 1), set_("n", 1)), delta(BOB, 2, unset("m"))),
        _merge("and nothing newer", delta(BOB, 2, unset("m")), delta(ALICE, 3, set_("m.a", 1))),
    ]  # fmt: skip


def questions() -> Any:
    """What a fresh peer that holds *held* says of a question, which of two workers it asks, and answers to it."""
    gone = trust_payload(2, writers=(listed(ALICE, status="retired"), listed(BOB)))
    cases = [
        ("about history", (TRUST,), HISTORY_ASKED, "valid", ""),
        ("a proposal", (TRUST,), PROPOSED, "valid", ""),
        ("a stranger", (TRUST,), question_payload(MALLORY), "rejected", "unknown-writer"),
        ("a retired writer", (TRUST, gone), question_payload(ALICE), "rejected", "retired"),
        ("about what no grant touches", (TRUST, NARROW), question_payload(ALICE, scope="llm"), "rejected",
         "not-granted"),
        ("about what a grant touches in part", (TRUST, NARROW), question_payload(ALICE), "valid", ""),
        ("proposing what is not granted", (TRUST, NARROW), PROPOSED, "rejected", "not-granted"),
        ("two questions at once", (TRUST,),
         question_payload(ALICE, history=HistoryQuestion(1), propose=(set_("vad"),)), "rejected", "malformed"),
        ("no question", (TRUST,), ALICE.sign("question", FLEET, GOOD_BODY), "rejected", "malformed"),
        ("a delta", (TRUST,), GOOD, "rejected", "bad-signature"),
    ]  # fmt: skip
    return {
        "asked": [
            {
                "name": name, "held": [one.decode() for one in held], "payload": payload.decode(), "verdict": verdict,
                "reason": reason,
            }
            for name, held, payload, verdict, reason in cases
        ],
        "shares": [
            {"nonce": f"{n:032x}", "of": 4, "worker": "stt-worker@pi-3", "asked": _asks(f"{n:032x}", 4)}
            for n in range(8)
        ],
        "answers": [
            *(one.decode() for one in answers("stt-worker", "pi-3", [GOOD, RETIRED], more=True)),
            fit_answer("stt-worker", "pi-3", Fit("refused", "vad: too high", ("vad",))).decode(),
        ],
    }  # fmt: skip


def _asks(nonce: str, of: int) -> bool:
    return QuestionBody(SCOPE, 1, nonce, of, history=HistoryQuestion(1)).asks("stt-worker", "pi-3")


def presence() -> Any:
    """A worker's report."""
    report = Presence(
        1, "stt-worker", "pi-3", "ready",
        scopes={SCOPE: ScopeReport(1, 5, "0" * 32)}, acked={"ab" * 32: "applied"},
        shadowed={"vad": "environment STT_VAD"}, unknown=("new.key",), counters={"rejected": 2},
    )  # fmt: skip
    return {"report": json.loads(encode_presence(report)), "bytes": encode_presence(report).decode()}


FILES = {
    "keys": keys,
    "topics": topics,
    "envelopes": envelopes,
    "verdicts": verdicts,
    "merges": merges,
    "questions": questions,
    "presence": presence,
}


def text_of(name: str) -> str:
    """Return a file's content as it should be."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write all files."""
    for name in FILES:
        (HERE / f"{name}.json").write_text(text_of(name), encoding="ascii")


if __name__ == "__main__":
    main()
