"""Deltas: the unit of writing.

A delta carries 1 to 64 assignments to distinct keys of one scope. It is published whole on the topic of every key that
it touches, so whichever copy arrives first carries all of it: a push is visible whole or not at all.

They are kept by the ten thousand and hold trees of JSON only, so no cycle: the collector need not look at them.
"""

# Without postponed annotations: msgspec would compile each field's from its text, half a millisecond of every start.
import functools
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import msgspec

from tars_settings.core.names import is_key, is_scope, overlap
from tars_settings.core.stamp import MAX_EPOCH, MAX_GEN, Stamp
from tars_settings.core.wire import (
    MAX_COSIGNATURES,
    Cosignature,
    Envelope,
    HexDigest,
    body_of,
    check_value,
    decode_canonical,
    decode_single,
    digest_of,
    encode,
    pae,
)
from tars_settings.errors import MalformedError, TooLargeError

MAX_ASSIGNMENTS: Final = 64
MAX_TRIAL_S: Final = 7 * 24 * 3600
"""A week: who wants to wait longer wants to decide."""
MAX_FANOUT_BYTES: Final = 512 * 1024
"""Bytes of one delta times the topics that it is published on."""

Algorithm = Literal["xchacha20poly1305", "aes256gcm"]


class Ciphertext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An encrypted value: which algorithm, which secret key id, and nonce with ciphertext and tag."""

    alg: Algorithm
    id: Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9_-]{0,62}\Z")]
    ct: Annotated[bytes, msgspec.Meta(min_length=28)]


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Sets or unsets one key: exactly one of ``set``, ``secret`` and ``unset`` is there.

    ``over`` is the digest of the delta that held the key when the writer looked, in hex.
    """

    key: str
    set: Any = msgspec.UNSET
    secret: Ciphertext | msgspec.UnsetType = msgspec.UNSET
    unset: bool = False
    over: HexDigest | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_secret(self) -> bool:
        """Whether the value is encrypted."""
        return self.secret is not msgspec.UNSET


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which share of the workers reports at once: those whose hash falls in 1/``of``, within ``within_s`` seconds."""

    of: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    within_s: Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Its delta's assignments are for ``within_s`` seconds; afterwards ``undo`` is used in their place.

    ``undo`` says something of exactly the same keys, in the same order. Deltas of one ``canary`` (32 hex digits) are
    one proposal, tried on some instances. A trial is about the use of values: no part in order, merge or validity.
    """

    within_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_TRIAL_S)]
    undo: Annotated[tuple[Assignment, ...], msgspec.Meta(min_length=1, max_length=MAX_ASSIGNMENTS)]
    canary: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""


class DeltaBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What is signed. ``at`` (UTC, RFC 3339), ``by`` and ``reason`` are for people and take no part in any rule.

    ``cosig`` is the last field: what its cosigners signed is everything before it (:func:`uncosigned`).
    """

    scope: str
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    trust: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    assign: Annotated[tuple[Assignment, ...], msgspec.Meta(min_length=1, max_length=MAX_ASSIGNMENTS)]
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=512)] = ""
    ack: Ack | msgspec.UnsetType = msgspec.UNSET
    trial: Trial | msgspec.UnsetType = msgspec.UNSET
    ext: dict[str, Any] = {}  # msgspec copies an empty default
    cosig: Annotated[tuple[Cosignature, ...], msgspec.Meta(max_length=MAX_COSIGNATURES)] = ()

    def __post_init__(self) -> None:
        # On Python 3.10 there are other empty tuples than the default (wire.one_empty_tuple); here for each delta.
        if not self.cosig and self.cosig is not _NO_COSIG:
            msgspec.structs.force_setattr(self, "cosig", _NO_COSIG)


_NO_COSIG: Final[tuple[Cosignature, ...]] = ()


class Delta(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A delta as received: its order, its content, and the exact bytes that carry it.

    Its form was checked; who signed it, and whether he may, was not (that is trust's verdict).

    Registers, folds and verdicts ask for scope and assignments. The rest of a body is for people, and is decoded from
    the bytes when somebody asks, or *held* where a change asks for it: it would be 170 bytes of each of 10,000 keys.
    """

    stamp: Stamp
    scope: str
    assign: tuple[Assignment, ...]
    source: bytes | msgspec.Raw
    held_body: DeltaBody | None = None

    @classmethod
    def of(cls, stamp: Stamp, body: DeltaBody, source: bytes | msgspec.Raw) -> "Delta":
        """Return the delta with this body, which *source* carries; one that nobody signed has no bytes."""
        is_plain = source and body.ack is msgspec.UNSET and body.trial is msgspec.UNSET
        return cls(stamp, _shared(body.scope), body.assign, source, None if is_plain else body)

    @property
    def body(self) -> DeltaBody:
        """All that was signed, decoded anew unless it is held: not for what is done for each delta."""
        return self.held_body or _body_decoder.decode(body_of(self.raw))

    @property
    def raw(self) -> bytes:
        """The exact bytes that carry it."""
        return bytes(self.source)

    def lies_in(self, part: msgspec.Raw) -> None:
        """Hold the bytes as a part of the segment that carries them too: equal ones, once instead of twice."""
        msgspec.structs.force_setattr(self, "source", part)

    def assignment(self, key: str) -> Assignment | None:
        """Return what it says of *key*, or None."""
        for item in self.assign:
            if item.key == key:
                return item
        return None

    @property
    def ack(self) -> Ack | None:
        """Which workers report at once, None where nobody was asked."""
        return self.held_body.ack if self.held_body is not None and isinstance(self.held_body.ack, Ack) else None

    @property
    def trial(self) -> Trial | None:
        """For how long its assignments are, None where they are for good."""
        return self.held_body.trial if self.held_body is not None and isinstance(self.held_body.trial, Trial) else None

    def kept(self, key: str) -> Assignment | None:
        """Return what it says of *key* for good: what ends its trial where it has one; None where it says nothing."""
        items = self.assign if self.trial is None else self.trial.undo
        return next((item for item in items if item.key == key), None)

    def said(self) -> tuple[Assignment, ...]:
        """Return all that it may make a worker use: its assignments, and those that end its trial."""
        return self.assign if self.trial is None else (*self.assign, *self.trial.undo)


_body_decoder: Final = msgspec.json.Decoder(DeltaBody)
_COSIG: Final = b',"cosig":'


def parse_delta(payload: bytes, fleet: str, *, claimed: bytes = b"") -> tuple[Envelope, Delta]:
    """Return the envelope and the delta in *payload*, form checked, signature not.

    *claimed* is what :func:`~tars_settings.core.wire.claimed_digest` returned for it: that of an envelope in canonical
    form without cosignatures is its digest.

    Raises:
        MalformedError: size, JSON, canonical form, grammar, distinct keys or bounds.
    """
    envelope = decode_single(payload)
    return envelope, delta_of(envelope, payload, fleet, claimed=claimed)


def delta_of(envelope: Envelope, payload: bytes, fleet: str, *, claimed: bytes = b"") -> Delta:
    """Return the delta in an envelope that was decoded from *payload*; *claimed* as in :func:`parse_delta`.

    Raises:
        MalformedError: the body is no delta.
    """
    raw_body = bytes(envelope.body)
    body = read_delta_body(raw_body)
    digest = claimed or digest_of(pae("delta", fleet, envelope.kid, raw_body))
    return Delta.of(Stamp(body.gen, body.epoch, _shared(envelope.kid), digest), body, payload)


def proposed(scope: str, assign: tuple[Assignment, ...], gen: int) -> Delta:
    """Return a delta that no one signed, newer than all that there are: it stands for a proposal, and goes nowhere."""
    body = DeltaBody(scope, gen, MAX_EPOCH, 1, assign)
    return Delta.of(Stamp(gen, MAX_EPOCH, "f" * 32, b"\xff" * 32), body, b"")


@functools.lru_cache(maxsize=4096)
def _shared(text: str) -> str:
    """Return the one string that deltas hold of a text that they have in common: writer and scope."""
    return text


def read_delta_body(raw_body: bytes) -> DeltaBody:
    """Return the body of a delta, form checked; who signed it, or is going to, is another question.

    Raises:
        MalformedError: it is none.
    """
    body = decode_canonical(_body_decoder, raw_body, what="delta")
    check_body(body)
    return body


def uncosigned(raw_body: bytes, cosig: tuple[Cosignature, ...]) -> bytes:
    """Return what cosigners sign of a body: its exact bytes but for the cosignatures, which are its last field.

    The writer signs the whole, cosignatures and all: the digest covers them, and nobody adds one afterwards.
    """
    return raw_body[: -len(encode(cosig)) - len(_COSIG) - 1] + b"}" if cosig else raw_body


def with_cosig(raw_body: bytes, cosig: tuple[Cosignature, ...]) -> bytes:
    """Return a body that has no cosignatures with these added, in the order that is canonical."""
    listed = encode(tuple(sorted(cosig, key=lambda one: one.kid)))
    return raw_body[:-1] + _COSIG + listed + b"}" if cosig else raw_body


def check_body(body: DeltaBody) -> None:
    """Refuse a body that decodes, and says what no delta may say.

    Raises:
        MalformedError: scope, assignments, cosignatures, trial or extension.
    """
    if not is_scope(body.scope):
        raise MalformedError("malformed delta: illegal scope")
    check_assignments(body.assign, what="delta")
    if body.cosig and any(first.kid >= second.kid for first, second in pairwise(body.cosig)):
        raise MalformedError("malformed delta: cosignatures that are not in the order of their key ids, each once")
    if isinstance(body.trial, Trial):
        _check_trial(body.trial, body.assign)
    if body.ext:
        check_value(body.ext)


_ANY_OF_IT: Final = frozenset({str, bool, float, type(None), msgspec.UnsetType})
"""Types of which every value is one that other languages' readers could hold."""


def _check_trial(trial: Trial, assign: tuple[Assignment, ...]) -> None:
    if [item.key for item in trial.undo] != [item.key for item in assign]:
        raise MalformedError("malformed delta: a trial undoes the keys of its delta, in the same order")
    for item in trial.undo:
        _check_assignment(item, "delta")
        if item.over is not msgspec.UNSET:
            raise MalformedError("malformed delta: what ends a trial replaces nothing else")


def check_assignments(assign: tuple[Assignment, ...], *, what: str) -> None:
    """Refuse assignments that are none, or to keys that are not distinct.

    Raises:
        MalformedError: the message names *what* carries them.
    """
    for item in assign:
        _check_assignment(item, what)
    if len(assign) < 2:
        return
    keys = sorted((item.key for item in assign), key=lambda key: key.split("."))
    # Sorted by segments, whatever lies below a key follows it at once: neighbours suffice.
    if any(overlap(first, second) for first, second in pairwise(keys)):
        raise MalformedError(f"malformed {what}: keys that are equal or lie below each other")


def _check_assignment(item: Assignment, what: str) -> None:
    if not is_key(item.key):
        raise MalformedError(f"malformed {what}: illegal key")
    value = item.set
    if (value is not msgspec.UNSET) + (item.secret is not msgspec.UNSET) + item.unset != 1:
        raise MalformedError(f"malformed {what}: an assignment is one of set, secret and unset")
    if type(value) not in _ANY_OF_IT:
        check_value(value)


def check_fanout(payload: bytes, keys: int) -> None:
    """Refuse a delta that would cost more than 512 KiB over all its topics.

    Raises:
        TooLargeError: it would; the message says how many keys fit.
    """
    if len(payload) * keys > MAX_FANOUT_BYTES:
        # Halving the keys halves the bytes too: the product falls with the square.
        fit = max(1, int(keys * (MAX_FANOUT_BYTES / (len(payload) * keys)) ** 0.5))
        raise TooLargeError(
            f"{keys} keys of {len(payload)} bytes together exceed {MAX_FANOUT_BYTES // 1024} KiB over their topics; "
            f"push about {fit} keys at a time"
        )
