"""Keys, trust documents and signed bytes for tests: everything from fixed seeds."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from tars_settings.core.delta import Assignment, Delta, DeltaBody
from tars_settings.core.head import IndexBody, Segment, SegmentRef, encode_segment, segment_digest
from tars_settings.core.question import HistoryQuestion, QuestionBody
from tars_settings.core.topics import KeyTopic, Topics
from tars_settings.core.wire import decode_envelope, encode, pae
from tars_settings.trust import sodium
from tars_settings.trust.document import TrustBody, TrustDocument, Writer, follow, pin
from tars_settings.trust.keys import SigningKey
from tars_settings.trust.validity import read_delta

SCOPE = "stt-worker"
TOPICS = Topics()
ROOT = SigningKey("root", "root", bytes([1]) * 32)
ROOT_2 = SigningKey("root", "root-2", bytes([2]) * 32)
ROOT_3 = SigningKey("root", "root-3", bytes([3]) * 32)
ALICE = SigningKey("writer", "alice", bytes([11]) * 32)
BOB = SigningKey("writer", "bob", bytes([12]) * 32)
MALLORY = SigningKey("writer", "mallory", bytes([13]) * 32)
FLEET = ROOT.kid
ALL_GRANTS = ("*", "_all")


def writer(key: SigningKey, grants: tuple[str, ...] = ALL_GRANTS, **more: Any) -> Writer:
    return Writer(key.name, key.public, grants, **more)


def trust_payload(
    version: int = 1,
    gen: int = 1,
    writers: tuple[Writer, ...] = (writer(ALICE), writer(BOB)),
    *,
    roots: tuple[SigningKey, ...] = (ROOT,),
    threshold: int = 1,
    signed_by: tuple[SigningKey, ...] | None = None,
    fleet: str = FLEET,
    **more: Any,
) -> bytes:
    body = TrustBody(version, gen, tuple(root.public for root in roots), threshold, writers, **more)
    first, *others = signed_by or roots
    payload = first.sign("trust", fleet, encode(body))
    for other in others:
        payload = other.cosign("trust", fleet, decode_envelope(payload))
    return payload


def document(**wanted: Any) -> TrustDocument:
    return follow(pin(ROOT.public), trust_payload(**wanted))


def set_(key: str, value: Any = 1, **more: Any) -> Assignment:
    return Assignment(key, set=value, **more)


def unset(key: str) -> Assignment:
    return Assignment(key, unset=True)


def delta_body(epoch: int, *assign: Assignment, scope: str = SCOPE, gen: int = 1, trust: int = 1, **more: Any) -> bytes:
    return encode(DeltaBody(scope, gen, epoch, trust, assign or (set_("vad"),), **more))


def delta_payload(signer: SigningKey, epoch: int, *assign: Assignment, fleet: str = FLEET, **more: Any) -> bytes:
    return signer.sign("delta", fleet, delta_body(epoch, *assign, **more))


def delta(signer: SigningKey, epoch: int, *assign: Assignment, **more: Any) -> Delta:
    return read_delta(delta_payload(signer, epoch, *assign, **more), document())[0]


def segment_payload(*payloads: bytes) -> bytes:
    return encode_segment(Segment(1, tuple(msgspec.Raw(one) for one in payloads)))


def index_payload(
    signer: SigningKey, counter: int, segments: dict[int, bytes], *, scope: str = SCOPE, fleet: str = FLEET, **more: Any
) -> bytes:
    refs = tuple(SegmentRef(n, segment_digest(one)) for n, one in segments.items())
    fields: dict[str, Any] = {"gen": 1, "epoch": counter, "trust": 1, **more}
    return signer.sign("head", fleet, encode(IndexBody(scope=scope, counter=counter, segments=refs, **fields)))


def question_payload(signer: SigningKey, *, scope: str = SCOPE, **more: Any) -> bytes:
    asked = more if "history" in more or "propose" in more else {"history": HistoryQuestion(10), **more}
    fields: dict[str, Any] = {"trust": 1, "nonce": "5" * 32, **asked}
    return signer.sign("question", FLEET, encode(QuestionBody(scope=scope, **fields)))


def key_topic(key: str, scope: str = SCOPE) -> str:
    return TOPICS.format(KeyTopic(scope, key))


def later_payload(key: SigningKey, body: bytes, *, fleet: str = FLEET, version: int = 2, claimed: int = 2) -> bytes:
    """Return an envelope of a version to come, signed as *version* and labelled as *claimed*."""
    _, secret = sodium.keypair(key._seed)
    signature = sodium.sign(pae("delta", fleet, key.kid, body, version=version), secret)
    head = f'{{"v":{claimed},"kid":"{key.kid}","sig":"{base64.b64encode(signature).decode()}",'
    return head.encode() + b'"more":1,"body":' + body + b"}"
