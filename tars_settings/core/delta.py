"""Deltas: the unit of writing.

A delta carries 1 to 64 assignments to distinct keys of one scope. It is published whole on the topic of every key that
it touches, so whichever copy arrives first carries all of it: a push is visible whole or not at all.

They are kept by the ten thousand and hold trees of JSON only, so no cycle: the collector need not look at them.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import msgspec

from tars_settings.core.names import is_key, is_scope, overlap
from tars_settings.core.stamp import MAX_EPOCH, MAX_GEN, Stamp
from tars_settings.core.wire import Envelope, HexDigest, check_value, decode_canonical, decode_single, digest_of, pae
from tars_settings.errors import MalformedError, TooLargeError

MAX_ASSIGNMENTS: Final = 64
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


class DeltaBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What is signed. ``at`` (UTC, RFC 3339), ``by`` and ``reason`` are for people and take no part in any rule."""

    scope: str
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    trust: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    assign: Annotated[tuple[Assignment, ...], msgspec.Meta(min_length=1, max_length=MAX_ASSIGNMENTS)]
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=512)] = ""
    ack: Ack | msgspec.UnsetType = msgspec.UNSET
    ext: dict[str, Any] = {}  # msgspec copies an empty default


class Delta(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A delta as received: its order, its content, and the exact bytes that carry it.

    Its form was checked; who signed it, and whether he may, was not (that is trust's verdict).
    """

    stamp: Stamp
    body: DeltaBody
    raw: bytes

    @property
    def scope(self) -> str:
        """The scope that it addresses."""
        return self.body.scope

    def assignment(self, key: str) -> Assignment | None:
        """Return what it says of *key*, or None."""
        return next((item for item in self.body.assign if item.key == key), None)


_body_decoder: Final = msgspec.json.Decoder(DeltaBody)


def parse_delta(payload: bytes, fleet: str) -> tuple[Envelope, Delta]:
    """Return the envelope and the delta in *payload*, form checked, signature not.

    Raises:
        MalformedError: size, JSON, canonical form, grammar, distinct keys or bounds.
    """
    envelope = decode_single(payload)
    return envelope, delta_of(envelope, payload, fleet)


def delta_of(envelope: Envelope, payload: bytes, fleet: str) -> Delta:
    """Return the delta in an envelope that was decoded from *payload*.

    Raises:
        MalformedError: the body is no delta.
    """
    raw_body = bytes(envelope.body)
    body = decode_canonical(_body_decoder, raw_body, what="delta")
    _check_body(body)
    digest = digest_of(pae("delta", fleet, envelope.kid, raw_body))
    _share_texts(body)
    return Delta(Stamp(body.gen, body.epoch, _shared(envelope.kid), digest), body, payload)


def _share_texts(body: DeltaBody) -> None:
    """Hold texts that deltas have in common once: writer, scope and reason were a quarter of what a key took."""
    for name in ("scope", "at", "by", "reason"):
        msgspec.structs.force_setattr(body, name, _shared(getattr(body, name)))


@functools.lru_cache(maxsize=4096)
def _shared(text: str) -> str:
    return text


def _check_body(body: DeltaBody) -> None:
    if not is_scope(body.scope):
        raise MalformedError("malformed delta: illegal scope")
    for item in body.assign:
        _check_assignment(item)
    if len(body.assign) > 1:
        _check_apart(body)
    check_value(body.ext)


def _check_apart(body: DeltaBody) -> None:
    keys = sorted((item.key for item in body.assign), key=lambda key: key.split("."))
    # Sorted by segments, whatever lies below a key follows it at once: neighbours suffice.
    if any(overlap(first, second) for first, second in pairwise(keys)):
        raise MalformedError("malformed delta: keys that are equal or lie below each other")


def _check_assignment(item: Assignment) -> None:
    if not is_key(item.key):
        raise MalformedError("malformed delta: illegal key")
    if (item.set is not msgspec.UNSET) + item.is_secret + item.unset != 1:
        raise MalformedError("malformed delta: an assignment is one of set, secret and unset")
    if item.set is not msgspec.UNSET:
        check_value(item.set)


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
