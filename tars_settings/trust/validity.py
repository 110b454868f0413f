"""Validity: a pure function of bytes, trust document and floor.

Never of local maxima, arrival order, clocks or anyone's schema: such a check makes peers disagree for ever (a local
bound on epochs diverged in 300 runs of 300). What cannot be judged yet is *held*: neither stored nor repaired over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tars_settings.core.delta import Delta, parse_delta
from tars_settings.core.floor import Floor, FloorMark, floor_of
from tars_settings.core.wire import Envelope, Purpose, decode_single, digest_of, pae
from tars_settings.errors import BadSignatureError, RejectedError
from tars_settings.trust import sodium
from tars_settings.trust.document import TrustDocument, Writer
from tars_settings.trust.envelope import Claim, check_signature, claim_of, verified

# Heads, questions and the two-person rule come with the first of them: a start judges deltas, most often nothing else.
if TYPE_CHECKING:
    from tars_settings.core.head import Index
    from tars_settings.core.question import Question


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
NO_FLOOR: Final = FloorMark()
Floors = Callable[[str], FloorMark]
"""What the floors of a scope say."""


def no_floors(scope: str) -> FloorMark:  # noqa: ARG001 - fits Floors
    """Return that nothing was compacted."""
    return NO_FLOOR


def read_delta(
    payload: bytes, document: TrustDocument, floors: Floors = no_floors, *, claimed: bytes = b""
) -> tuple[Delta, Judgement]:
    """Return the delta in *payload* and the verdict on it, its signature checked where its writer is listed.

    *claimed* as in :func:`~tars_settings.core.delta.parse_delta`.

    Raises:
        MalformedError: it is no delta.
        BadSignatureError: its writer is listed and did not sign these bytes.
    """
    envelope, delta = parse_delta(payload, document.fleet, claimed=claimed)
    writer = document.writer(envelope.kid)
    if writer is not None:
        verified(envelope, "delta", document.fleet, writer.public)
    return delta, judge(delta, document, floors(delta.scope))


Spread = Callable[[Callable[[Any], RejectedError | None], Sequence[Any]], Iterable[RejectedError | None]]
"""Checks many signatures, in order: :class:`map`, or something that uses more than one core for it."""


def flaws_of(deltas: Iterable[Delta], document: TrustDocument, spread: Spread = map) -> Iterable[RejectedError | None]:
    """Check the signatures of deltas that were read on the word of their writer's index; say what is wrong with each.

    None where its writer signed these bytes. What *spread* is to do is libsodium's work and hardly anything else:
    threads that want the interpreter for more wait for each other.
    """
    return spread(_flaw, [_claim(delta, document) for delta in deltas])


def _claim(delta: Delta, document: TrustDocument) -> Claim | RejectedError:
    writer = document.writer(delta.stamp.kid)
    if writer is None:
        return BadSignatureError("the writer is not listed")
    try:
        return claim_of(decode_single(delta.raw), "delta", document.fleet, writer.public)
    except RejectedError as error:
        return error


def _flaw(claim: Claim | RejectedError) -> RejectedError | None:
    if isinstance(claim, RejectedError):
        return claim
    try:
        sodium.verify(*claim)
    except RejectedError as error:
        return error
    return None


def judge(
    delta: Delta, document: TrustDocument, floor: FloorMark = NO_FLOOR, *, chain_asked: bool = False
) -> Judgement:
    """Return the verdict on a delta whose signature was checked before.

    What is void under this document and names a later one is held until *chain_asked*: the later one may list the
    writer, grant the key, raise gen or endorse the bytes. A gen ahead of the document that the delta itself names is a
    lie: holding it would keep everybody from repairing its topics.
    """
    found = _judge(delta, document, floor)
    if found is VALID:
        return found  # which version the delta names lies in its body: asked for only where it counts
    return _held_for_trust(found, delta.body.trust, document, chain_asked=chain_asked)


def _judge(delta: Delta, document: TrustDocument, floor: FloorMark) -> Judgement:
    stamp, writer = delta.stamp, document.writer(delta.stamp.kid)
    if writer is None:
        return Judgement(Verdict.VOID, "unknown-writer")
    scope = delta.scope
    if not writer.may_compact(scope) and not all(writer.may_write(scope, item.key) for item in delta.assign):
        return Judgement(Verdict.VOID, "not-granted")
    # Before gen: what a stolen key signed for a gen to come would lie on its topics for ever, as held.
    if writer.status != "active" and not document.is_endorsed(stamp.digest):
        if writer.status == "compromised":
            return Judgement(Verdict.VOID, "compromised")
        if not writer.stands(scope, stamp.gen, stamp.epoch):
            return Judgement(Verdict.VOID, "retired")
    if stamp.gen > document.body.gen:
        return Judgement(Verdict.VOID, "gen-ahead")
    # Whatever way it came: cosignatures are checked here and never on the word of an index, which the author signs.
    if writer.cosign and not document.is_endorsed(stamp.digest) and not _is_cosigned(delta, writer, document):
        return Judgement(Verdict.VOID, "not-cosigned")
    fate = floor.fate(stamp.gen, stamp.epoch, stamp.digest)
    if fate == "lives":
        return VALID
    return Judgement(Verdict.VOID, "below-floor") if fate == "void" else Judgement(Verdict.HELD, "floor-incomplete")


def _is_cosigned(delta: Delta, writer: Writer, document: TrustDocument) -> bool:
    from tars_settings.trust.cosign import is_cosigned  # noqa: PLC0415 - see above

    return is_cosigned(delta, writer, document)


def _held_for_trust(
    found: Judgement, named_trust: int, document: TrustDocument, *, chain_asked: bool = False
) -> Judgement:
    # Whoever lies about the version is held only until the chain was asked for (gossip decides when that is).
    is_early = found.verdict is Verdict.VOID and named_trust > document.version and not chain_asked
    return Judgement(Verdict.HELD, "trust-behind") if is_early else found


def read_index(payload: bytes, document: TrustDocument) -> tuple[Index, Judgement]:
    """Return the index in *payload* and the verdict on it.

    An endorsement vouches for a delta's bytes, never for a head.

    Raises:
        MalformedError: it is no index.
        BadSignatureError: its writer is listed and did not sign these bytes.
    """
    from tars_settings.core.head import index_of  # noqa: PLC0415 - see above

    envelope, digest = _read_signed(payload, "head", document)
    index = index_of(envelope, payload, digest)
    return index, judge_index(index, document)


def _read_signed(payload: bytes, purpose: Purpose, document: TrustDocument) -> tuple[Envelope, bytes]:
    envelope = decode_single(payload)
    writer = document.writer(envelope.kid)
    if writer is None:
        return envelope, digest_of(pae(purpose, document.fleet, envelope.kid, bytes(envelope.body)))
    return envelope, check_signature(envelope, purpose, document.fleet, writer.public)


def judge_index(index: Index, document: TrustDocument, *, chain_asked: bool = False) -> Judgement:
    """Return the verdict on an index whose signature was checked before."""
    found = _judge_index(index, document)
    return _held_for_trust(found, index.body.trust, document, chain_asked=chain_asked)


def _judge_index(index: Index, document: TrustDocument) -> Judgement:
    writer = document.writer(index.kid)
    if writer is None:
        return Judgement(Verdict.VOID, "unknown-writer")
    if not writer.touches(index.body.scope):
        return Judgement(Verdict.VOID, "not-granted")
    if writer.status == "compromised":
        return Judgement(Verdict.VOID, "compromised")
    if writer.status == "retired" and index.body.counter > retired_counter(writer, index.body.scope):
        return Judgement(Verdict.VOID, "retired")
    return VALID


def retired_counter(writer: Writer, scope: str) -> int:
    """Return the last index counter of a retired writer that counts in a scope; 0 where none does."""
    limit = writer.retired.get(scope)
    return 0 if limit is None else limit.counter


def read_floor(payload: bytes, document: TrustDocument) -> tuple[Floor, Judgement]:
    """Return the floor in *payload* and the verdict on it.

    Raises:
        MalformedError: it is no floor.
        BadSignatureError: its writer is listed and did not sign these bytes.
    """
    envelope, digest = _read_signed(payload, "floor", document)
    floor = floor_of(envelope, payload, digest)
    return floor, judge_floor(floor, document)


def judge_floor(floor: Floor, document: TrustDocument, *, chain_asked: bool = False) -> Judgement:
    """Return the verdict on a floor whose signature was checked before: a grant must cover the whole scope."""
    found = may_floor(document, floor.kid, floor.body.scope, floor.body.gen, floor.body.epoch)
    return _held_for_trust(found, floor.body.trust, document, chain_asked=chain_asked)


def may_floor(document: TrustDocument, kid: str, scope: str, gen: int, epoch: int) -> Judgement:
    """Return whether a floor of this writer at (gen, epoch) can count."""
    writer = document.writer(kid)
    if writer is None:
        return Judgement(Verdict.VOID, "unknown-writer")
    if not writer.may_compact(scope):
        return Judgement(Verdict.VOID, "not-granted")
    if gen > document.gen:
        return Judgement(Verdict.VOID, "gen-ahead")
    if not writer.stands(scope, gen, epoch):
        return Judgement(Verdict.VOID, writer.status)
    # A floor makes what it does not list void: who needs consent to write a value must not take it away alone.
    return Judgement(Verdict.VOID, "not-cosigned") if writer.is_bound(scope) else VALID


def read_question(payload: bytes, document: TrustDocument) -> tuple[Question, Judgement]:
    """Return the question in *payload* and the verdict on it: an active writer may ask about what its grant touches.

    Whoever proposes assignments must be granted to write them. Nothing is held: a question is answered now or never.

    Raises:
        MalformedError: it is no question.
        BadSignatureError: its writer is listed and did not sign these bytes.
    """
    from tars_settings.core.question import Question, read_question_body  # noqa: PLC0415 - see above

    envelope, digest = _read_signed(payload, "question", document)
    question = Question(envelope.kid, digest, read_question_body(bytes(envelope.body)))
    return question, _judge_question(question, document)


def _judge_question(question: Question, document: TrustDocument) -> Judgement:
    writer, body = document.writer(question.kid), question.body
    if writer is None:
        return Judgement(Verdict.VOID, "unknown-writer")
    proposed = body.propose if isinstance(body.propose, tuple) else ()
    if not writer.touches(body.scope) or not all(writer.may_write(body.scope, item.key) for item in proposed):
        return Judgement(Verdict.VOID, "not-granted")
    return VALID if writer.status == "active" else Judgement(Verdict.VOID, writer.status)
