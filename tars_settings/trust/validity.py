"""Validity: a pure function of bytes, trust document and floor.

Never of local maxima, arrival order, clocks or anyone's schema: such a check makes peers disagree for ever (a local
bound on epochs diverged in 300 runs of 300). What cannot be judged yet is *held*: neither stored nor repaired over.
"""

from __future__ import annotations

import enum

import msgspec

from tars_settings.core.delta import Delta, parse_delta
from tars_settings.core.head import Index, index_of
from tars_settings.core.wire import Envelope, decode_envelope
from tars_settings.trust.document import TrustDocument, Writer
from tars_settings.trust.envelope import check_signature


class Verdict(enum.Enum):
    """What the trust document says of something signed."""

    VALID = "valid"
    HELD = "held"
    VOID = "void"


class Judgement(msgspec.Struct, frozen=True):
    """A verdict and, where it is not VALID, its reason: a word that counters and audit entries use."""

    verdict: Verdict
    reason: str = ""


VALID = Judgement(Verdict.VALID)


def read_delta(payload: bytes, document: TrustDocument) -> tuple[Delta, Judgement]:
    """Return the delta in *payload* and the verdict on it, its signature checked where its writer is listed.

    Raises:
        MalformedError: it is no delta.
        BadSignatureError: its writer is listed and did not sign these bytes.
    """
    envelope, delta = parse_delta(payload, document.fleet)
    writer = document.writer(envelope.kid)
    if writer is None:
        return delta, _of_unknown(delta.body.trust, document)
    check_signature(envelope, "delta", document.fleet, writer.public)
    return delta, judge(delta, document)


def _of_unknown(named_trust: int, document: TrustDocument) -> Judgement:
    # A newer document may list the writer: wait for it. Whoever lies about the version is held only until the chain
    # was asked for, then void (gossip decides when that is).
    if named_trust > document.version:
        return Judgement(Verdict.HELD, "trust-behind")
    return Judgement(Verdict.VOID, "unknown-writer")


def judge(delta: Delta, document: TrustDocument) -> Judgement:
    """Return the verdict on a delta whose signature was checked before."""
    writer = document.writer(delta.stamp.kid)
    if writer is None:
        return _of_unknown(delta.body.trust, document)
    if delta.stamp.gen > document.gen:
        return Judgement(Verdict.HELD, "gen-ahead")
    if not all(writer.may_write(delta.scope, item.key) for item in delta.body.assign):
        return Judgement(Verdict.VOID, "not-granted")
    if writer.status == "active" or document.is_endorsed(delta.stamp.digest):
        return VALID
    if writer.status == "retired":
        return VALID if _before_retirement(delta, writer) else Judgement(Verdict.VOID, "retired")
    return Judgement(Verdict.VOID, "compromised")


def _before_retirement(delta: Delta, writer: Writer) -> bool:
    limit = writer.retired.get(delta.scope)
    return limit is not None and (delta.stamp.gen, delta.stamp.epoch) <= (limit.gen, limit.epoch)


def read_index(payload: bytes, document: TrustDocument) -> tuple[Index, Judgement]:
    """Return the index in *payload* and the verdict on it.

    An endorsement vouches for a delta's bytes, never for a head.

    Raises:
        MalformedError: it is no index.
        BadSignatureError: its writer is listed and did not sign these bytes.
    """
    envelope: Envelope = decode_envelope(payload)
    writer = document.writer(envelope.kid)
    if writer is None:
        index = index_of(envelope, payload, b"")
        return index, _of_unknown(index.body.trust, document)
    digest = check_signature(envelope, "head", document.fleet, writer.public)
    index = index_of(envelope, payload, digest)
    return index, judge_index(index, document)


def judge_index(index: Index, document: TrustDocument) -> Judgement:
    """Return the verdict on an index whose signature was checked before."""
    writer = document.writer(index.kid)
    if writer is None:
        return _of_unknown(index.body.trust, document)
    if not writer.touches(index.body.scope):
        return Judgement(Verdict.VOID, "not-granted")
    if writer.status == "compromised":
        return Judgement(Verdict.VOID, "compromised")
    if writer.status == "retired":
        limit = writer.retired.get(index.body.scope)
        if limit is None or index.body.counter > limit.counter:
            return Judgement(Verdict.VOID, "retired")
    return VALID
