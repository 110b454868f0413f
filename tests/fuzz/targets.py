"""What is done with bytes from outside, from the first look to the last: one function for each kind."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Final, NamedTuple

from tars_settings.adapters.address import BrokerAddress
from tars_settings.cli.profiles import parse_profile
from tars_settings.cli.values import assignments, checked_keys, guess
from tars_settings.core.delta import Trial
from tars_settings.core.draft import drafted, read_draft
from tars_settings.core.floor import FloorMark, parse_floor_segment
from tars_settings.core.head import parse_segment
from tars_settings.core.lastgood import parse_last_good, parse_starts
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence, encode_presence, parse_presence
from tars_settings.core.question import Fit, answers, fit_answer, parse_answer
from tars_settings.core.records import (
    AuditRow,
    DeltaRow,
    FloorRow,
    FloorSegmentRow,
    HistoryRow,
    IndexRow,
    MarkRow,
    OutboxRow,
    SegmentRow,
    TrustRow,
)
from tars_settings.core.register import FleetView, Registers, nothing_tried
from tars_settings.core.session import Received
from tars_settings.core.topics import IndexTopic, TrustTopic
from tars_settings.core.trial import Countdowns, TrialMark, TrialMarks, parse_marks, trial_of
from tars_settings.core.wire import Purpose, decode_envelope, decode_single, encode
from tars_settings.errors import TarsSettingsError
from tars_settings.gossip.effects import Follow, Loaded, Offered
from tars_settings.gossip.replicator import Replicator
from tars_settings.schema import check, coerce, is_secret, keys_of
from tars_settings.schema.shape import is_schema
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import PURPOSE, opened_lkg
from tars_settings.sources.stored import follow_all
from tars_settings.sources.trials import age_s
from tars_settings.trust.cosign import consent, lacking
from tars_settings.trust.document import follow, pin, version_of
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_text, parse_fleet
from tars_settings.trust.locked import is_locked, lock, unlock
from tars_settings.trust.seal import SealKey, seal, unseal
from tars_settings.trust.validity import read_delta, read_floor, read_index, read_question
from tars_settings.writer.remembering import verified
from tests.fleets import (
    ALICE,
    BOB,
    FLEET,
    ROOT,
    SCOPE,
    TOPICS,
    cosigned_body,
    delta_body,
    delta_payload,
    demand,
    document,
    index_payload,
    key_topic,
    later_payload,
    question_payload,
    segment_payload,
    set_,
    trust_payload,
    unset,
    writer,
)

Use = Callable[[bytes], object]
SEAL: Final = SealKey(bytes([9]) * 32)
TRUST: Final = document()
DEMANDING: Final = (writer(ALICE, cosign=(demand("*", 1, BOB),)), writer(BOB))
STRICT: Final = document(writers=DEMANDING)
TRIED: Final = delta_payload(
    ALICE, 4, set_("vad", 0.9), unset("model"), trial=Trial(600, (set_("vad", 0.5), set_("model", "a")), "0" * 32)
)
DELTA: Final = delta_payload(ALICE, 3, set_("vad", 0.5), unset("model"), reason="noisy", by="ops")
SEGMENT: Final = segment_payload(DELTA)
INDEX: Final = index_payload(ALICE, 2, {1: SEGMENT})
FLOOR_BODY: Final = b'{"scope":"stt-worker","gen":1,"epoch":5,"trust":1,"live":["' + b"0" * 64 + b'"]}'
SCHEMA: Final = (
    b'{"$defs":{"a":{"properties":{"gain":{"type":"number","minimum":0}}}},"properties":{"vad":{"anyOf":[{"type":"number"},'
    b'{"type":"null"}]},"model":{"enum":["a","b"],"type":"string"},"audio":{"$ref":"#/$defs/a"},"words":{"items":'
    b'{"pattern":"^a+$","type":"string"},"type":"array"}},"required":["vad"]}'
)


class Target(NamedTuple):
    """A kind of input: good examples of it, and what reads it."""

    seeds: list[bytes]
    use: Use


def _text(payload: bytes) -> str:
    """Return bytes as Python gives variables and arguments."""
    return payload.decode(errors="surrogateescape")


def envelope(payload: bytes) -> None:
    decode_envelope(payload)
    decode_single(payload)


def signed(purpose: Purpose, read: Use) -> Use:
    """Return a reader of bodies that a listed key signed: what lies behind the signature."""
    signer = ROOT if purpose == "trust" else ALICE
    return lambda body: read(signer.sign(purpose, FLEET, body))


def delta_used(payload: bytes) -> None:
    """Read a delta, and use it as a worker does: on trial, and when that is over."""
    found, _ = read_delta(payload, TRUST)
    registers, runs = Registers(), Countdowns()
    registers.offer(found)
    runs.meet(found, 0.0, age_s=age_s(found, datetime.now(timezone.utc)))
    for is_undone in (runs.is_undone, nothing_tried):
        FleetView.of(registers, [found.scope], is_undone)
    trial_of(found.body.assign, 600, registers.winners(found.scope))


def trust(payload: bytes) -> None:
    version_of(payload, FLEET)
    follow(pin(ROOT.public), payload)


@functools.cache
def _replicator(*, strict: bool = False) -> list[Replicator]:
    one = Replicator(TOPICS, ROOT.public, nonce="0" * 31 + "1", random=lambda: 0.5)
    one.handle(Follow(SCOPE), 0.0)
    one.handle(Offered((trust_payload(writers=DEMANDING) if strict else trust_payload(),)), 0.0)
    return [one]


def received(topic: str, *, strict: bool = False) -> Use:
    """Return a reader of what arrives on a topic; nothing at all may escape a replicator."""
    return lambda payload: _replicator(strict=strict)[0].handle(Received(topic, payload, True), 1.0)


def from_file(payload: bytes) -> None:
    _replicator()[0].handle(Offered((payload,)), 1.0)


def draft(payload: bytes) -> None:
    found = read_draft(payload, FLEET)
    lacking(found.kid, found.raw_body, found.body, STRICT.writers()[ALICE.kid], STRICT)
    read_draft(consent(found, BOB), FLEET)


def locked(payload: bytes) -> None:
    text = _text(payload)
    cost = re.search(r" (\d{1,5}):(\d{1,5}):", text)
    # What a file may ask for at most takes seconds and a gibibyte: bounded, and not to be had ten million times.
    if is_locked(text) and (cost is None or int(cost[1]) * int(cost[2]) <= 4):
        unlock(text, "correct horse")


def topic(payload: bytes) -> None:
    text = _text(payload)
    parsed = TOPICS.parse(text)
    assert parsed is None or TOPICS.format(parsed) == text
    _replicator()[0].handle(Received(text, DELTA, False), 1.0)


def schema(payload: bytes) -> None:
    if is_schema(payload):
        for key in (*keys_of(payload)[:4], "vad", "a.b.c"):
            is_secret(payload, key)
            check(payload, key, {"a": [1, "x", None]})
            _survive(lambda key=key: coerce(payload, key, "0.5"))  # type: ignore[misc]


def last_good(payload: bytes) -> None:
    parse_last_good(payload)
    held = opened_lkg(seal(payload, SEAL, purpose=PURPOSE, fleet=FLEET, service=SCOPE), SEAL, FLEET, SCOPE)
    found, _ = follow_all(pin(ROOT.public), [bytes(raw) for raw in held.trust])
    for raw in held.deltas:
        read_delta(bytes(raw), found)


def rows(payload: bytes) -> None:
    # As the replica reads its columns: broken text is replaced, integers have 64 bits and a sign.
    scope, digest = payload[:20].decode(errors="replace"), payload[-32:]
    number = int.from_bytes(payload[:8], "big", signed=True)
    one = Replicator(TOPICS, ROOT.public, nonce="0" * 31 + "1", random=lambda: 0.5)
    for where in (SCOPE, scope):
        found = (
            TrustRow(number, digest, payload), TrustRow(1, digest, trust_payload()), DeltaRow(where, digest, payload),
            IndexRow(where, scope, number, digest, payload), SegmentRow(where, ALICE.kid, number, payload),
            FloorRow(where, scope, number, number, digest, payload), FloorSegmentRow(where, scope, payload),
            MarkRow(where, scope, number, number), OutboxRow(where, digest, payload),
            HistoryRow(where, number, number, scope, digest, payload),
            AuditRow("conflict", scope, scope, scope, number, evidence=payload),
        )  # fmt: skip
        one.handle(Loaded(found), 0.0)


def profile(payload: bytes) -> None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return  # a signed delta never carries it
    parse_profile(value)


def key_text(payload: bytes) -> None:
    for read in (SigningKey.from_text, SecretKey.from_text, SealKey.from_text, parse_fleet):
        _survive(lambda read=read: read(_text(payload)))  # type: ignore[misc]


VARIABLES: Final = (
    "broker", "fleet", "instance", "secret_keys", "seal_key", "prefix", "health_prefix", "protocol", "repair",
    "repair_delay_s", "audit_s", "probation_s", "state_dir", "writer_key",
)  # fmt: skip


def environment(payload: bytes) -> None:
    name = VARIABLES[payload[0] % len(VARIABLES)] if payload else "broker"
    text = _text(payload[1:])
    _survive(lambda: BrokerAddress.parse(text))
    found = Environment.read(**{"fleet": fleet_text(ROOT.public), "state_dir": "/nowhere", name: text})
    uses: tuple[Callable[[], object], ...] = (
        found.secret_keys, found.writer_key, lambda: found.fleet_id, lambda: found.replica_path, lambda: repr(found),
        lambda: found.seal_key(create=False),
    )  # fmt: skip
    for use in uses:
        _survive(use)


def command_line(payload: bytes) -> None:
    text = _text(payload)
    guess(text)
    for use in (lambda: assignments([text]), lambda: checked_keys([text]), lambda: Scope.parse(text)):
        _survive(use)
    for key in ("vad", "model", "audio", "words"):
        _survive(lambda key=key: coerce(SCHEMA, key, text))  # type: ignore[misc]


def _survive(use: Callable[[], object]) -> None:
    try:
        use()
    except TarsSettingsError:
        return


_PROFILE: Final = b'{"v":1,"scopes":{"stt-worker":{"vad":0.5}},"secret":["stt-worker api_key"]}'
PRESENCE: Final = encode_presence(
    Presence(1, SCOPE, "pi-3", "ready", acked={"0" * 64: "applied"}, counters={"a": 1}, ext={"session": "0"})
)
_LAST_GOOD: Final = encode(
    {"v": 1, "fleet": FLEET, "service": SCOPE, "schema": "", "counter": 1, "trust": [], "deltas": []}
).replace(b"[]", b"[" + trust_payload() + b"]", 1).replace(b'"deltas":[]', b'"deltas":[' + DELTA + b"]")  # fmt: skip
_LATER: Final = later_payload(ALICE, delta_body(4))
_SIGNED: Final = [DELTA, TRIED, INDEX, trust_payload(), ALICE.sign("floor", FLEET, FLOOR_BODY), _LATER]
_TEXTS: Final = [
    ALICE.to_text().encode(), SecretKey("stt", bytes(32)).to_text().encode(), SEAL.to_text().encode(),
    fleet_text(ROOT.public).encode(),
]  # fmt: skip
_ADDRESSES: Final = [
    b"mqtt://user:pw@[::1]:1883/?cafile=/x",
    b"unix:///run/m.sock",
    b"wss://host/path",
    b"mqtts://h:8883",
]
_VALUES: Final = [
    *_TEXTS,
    *_ADDRESSES,
    b"/etc/key",
    b"pi-3",
    b"system/config",
    b"5",
    b"all",
    b"0.5",
    b"stt:AAAA,tts:BBBB",
]
_TOPICS: Final = [
    key_topic("vad").encode(), b"system/config/stt-worker@pi-3/audio__gain", b"system/config/_trust/3",
    b"system/config/_all/_floor/" + b"0" * 32, TOPICS.format(IndexTopic(SCOPE, ALICE.kid)).encode() + b"/12",
    b"system/health/stt/pi-3", b"system/health/_marker/" + b"0" * 32 + b"/m", b"system/config/a/_schema/" + b"0" * 32,
]  # fmt: skip

_COSIGNED: Final = cosigned_body(ALICE, (BOB,), 3, set_("vad", 0.5), unset("m"))
_STRICT: Final = [*_SIGNED, ALICE.sign("delta", FLEET, _COSIGNED), trust_payload(writers=DEMANDING)]

TARGETS: Final[dict[str, Target]] = {
    "envelope": Target(_SIGNED, envelope),
    "delta": Target(_SIGNED, lambda payload: read_delta(payload, TRUST)),
    "delta body": Target(
        [delta_body(3, set_("vad", 0.5), unset("m")), bytes(decode_single(TRIED).body)], signed("delta", delta_used)
    ),
    "trust": Target([trust_payload(), trust_payload(2)], trust),
    "trust body": Target(
        [bytes(decode_single(one).body) for one in (trust_payload(), _STRICT[-1])], signed("trust", trust)
    ),
    "cosigned body": Target([_COSIGNED], signed("delta", lambda p: read_delta(p, STRICT))),
    "draft for cosigners": Target(
        [drafted(FLEET, ALICE.kid, _COSIGNED), drafted(FLEET, ALICE.kid, delta_body(1))], draft
    ),
    "received where consent is needed": Target(_STRICT, received(key_topic("vad"), strict=True)),
    "file of signed bytes": Target([*_STRICT, SEGMENT], from_file),
    "index": Target(_SIGNED, lambda payload: read_index(payload, TRUST)),
    "index body": Target([bytes(decode_single(INDEX).body)], signed("head", lambda p: read_index(p, TRUST))),
    "segment": Target([SEGMENT, segment_payload()], parse_segment),
    "floor": Target(_SIGNED, lambda payload: read_floor(payload, TRUST)),
    "floor body": Target([FLOOR_BODY], signed("floor", lambda p: read_floor(p, TRUST))),
    "floor segment": Target([b'{"v":1,"live":["' + b"0" * 64 + b'"]}'], parse_floor_segment),
    "presence": Target([PRESENCE], parse_presence),
    "question": Target([question_payload(ALICE), DELTA], lambda payload: read_question(payload, TRUST)),
    "question body": Target(
        [
            bytes(decode_single(one).body)
            for one in (question_payload(ALICE), question_payload(ALICE, propose=(unset("a"),)))
        ],
        signed("question", lambda payload: read_question(payload, TRUST)),
    ),
    "answer": Target(
        [*answers("stt", "pi-3", [DELTA, INDEX], more=True), fit_answer("stt", "pi-3", Fit("fits"))], parse_answer
    ),
    "schema": Target([SCHEMA], schema),
    "last known good": Target([_LAST_GOOD], last_good),
    "sealed": Target(
        [seal(_LAST_GOOD, SEAL, purpose=PURPOSE, fleet=FLEET, service=SCOPE)],
        lambda p: unseal(p, SEAL, purpose=PURPOSE, fleet=FLEET, service=SCOPE),
    ),
    "trial marks": Target(
        [encode(TrialMarks(1, (TrialMark("0" * 64, 500, 5),))), b'{"v":1,"trials":[]}'],
        lambda payload: Countdowns(parse_marks(payload).trials),
    ),
    "start marks": Target([b'{"v":1,"set_name":"a","starts":[{"pid":1,"at_ms":5}]}'], parse_starts),
    "what a worker remembers": Target(_SIGNED, lambda p: verified(SCOPE, {"stt-worker@pi-3": [p]}, TRUST, FloorMark())),
    "profile": Target([_PROFILE], profile),
    "rows of the replica": Target([*_SIGNED, SEGMENT], rows),
    "received on a key": Target(_SIGNED, received(key_topic("vad"))),
    "received as trust": Target(_SIGNED, received(TOPICS.format(TrustTopic()))),
    "received as an index": Target(_SIGNED, received(TOPICS.format(IndexTopic(SCOPE, ALICE.kid)))),
    "received as a segment": Target([*_SIGNED, SEGMENT], received(TOPICS.format(IndexTopic(SCOPE, ALICE.kid)) + "/1")),
    "received as a floor": Target(_SIGNED, received(f"system/config/{SCOPE}/_floor")),
    "topic": Target(_TOPICS, topic),
    "key file": Target(_TEXTS, key_text),
    "locked key file": Target(
        [lock(ROOT, "correct horse", salt=bytes(16), nonce=bytes(24), ops=1, mib=1).encode()], locked
    ),
    "environment": Target([bytes([n]) + value for n in range(len(VARIABLES)) for value in _VALUES], environment),
    "command line": Target([b"vad=0.5", b"model=a", b'words=["a"]', b"audio.gain=1", b"stt-worker@pi-3"], command_line),
}


def attempt(name: str, payload: bytes) -> bool:
    """Give *payload* to a target; return whether it passed. Whatever is no error of ours escapes."""
    try:
        TARGETS[name].use(payload)
    except TarsSettingsError:
        return False
    return True
