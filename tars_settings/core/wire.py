"""Wire forms: envelopes, their pre-authentication encoding, and strict decoding.

An envelope is one line of JSON that a person can read with ``mosquitto_sub``::

    {"v":1,"kid":"…","sig":"…","body":{…}}

``body`` is kept as the exact bytes that arrived (:class:`msgspec.Raw`): they are what was signed, and they are
forwarded and stored unchanged for ever. A document must equal its own re-encoding, so duplicate keys, escapes of plain
characters, odd numbers and blanks are malformed (msgspec alone takes the last of two equal keys: upstream issue 648).
"""

# Without postponed annotations: msgspec would compile each field's from its text, half a millisecond of every start.
import functools
import hashlib
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from tars_settings.errors import MalformedError, NewerVersionError, TooLargeError

MAX_ENVELOPE_BYTES: Final = 48 * 1024
"""Azure Event Grid keeps 64 KiB a retained message, AWS IoT 128."""

MAX_COSIGNATURES: Final = 16
MAX_DEPTH: Final = 32
MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**64 - 1

Kid = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
HexDigest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

Purpose = Literal["delta", "head", "trust", "floor", "cosign", "beacon", "question"]
"""What a signature was made for. It is inside what is signed: no envelope passes for another kind."""

T = TypeVar("T")
Raw = msgspec.Raw
"""Exact bytes of JSON."""

encode: Final = msgspec.json.Encoder().encode
"""Encode to the one canonical form: fields in declared order, no blanks, defaults left out."""


class Cosignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One more signature over the same bytes."""

    kid: Kid
    sig: Signature


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Signed bytes, and who signed them.

    ``body`` is the exact JSON that was signed. ``cosig`` holds further signatures over the same encoding (thresholds).
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    kid: Kid
    sig: Signature
    body: msgspec.Raw
    cosig: Annotated[tuple[Cosignature, ...], msgspec.Meta(max_length=MAX_COSIGNATURES)] = ()


class Frame(msgspec.Struct, frozen=True):
    """What envelopes of every version keep, now and later: version, key id, and a signature over the exact body.

    ``v`` is inside what is signed (:func:`pae`), so nothing signed for one version passes for another.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    kid: Kid
    sig: Signature
    body: msgspec.Raw


class _VersionOnly(msgspec.Struct):
    v: int


_envelope_decoder: Final = msgspec.json.Decoder(Envelope)
_version_decoder: Final = msgspec.json.Decoder(_VersionOnly)
_frame_decoder: Final = msgspec.json.Decoder(Frame)
# What msgspec lets through besides its own error on hostile input (REVIEW A12): all are one kind of bad to us.
DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, ValueError, OverflowError, MemoryError)


def decode_canonical(decoder: msgspec.json.Decoder[T], document: bytes, *, what: str) -> T:
    """Return the decoded *document*.

    Raises:
        MalformedError: it does not decode, or is not the canonical encoding of what it says. The message names the
            path and never a value.
    """
    try:
        decoded = decoder.decode(document)
        canonical = encode(decoded)
    except DECODE_ERRORS as error:
        raise MalformedError(f"malformed {what}: {_without_values(error)}") from None
    if canonical != document:
        raise MalformedError(f"malformed {what}: not in canonical form")
    return decoded


def decode_plain(decoder: msgspec.json.Decoder[T], document: bytes, *, what: str) -> T:
    """Return the decoded *document*, in whatever form it says it: for what nobody signed.

    Raises:
        MalformedError: it does not decode. The message holds nothing of it.
    """
    try:
        return decoder.decode(document)
    except DECODE_ERRORS as error:
        raise MalformedError(f"malformed {what}: {type(error).__name__}") from None


def _without_values(error: BaseException) -> str:
    """Return an error's text where it is known to hold no input: msgspec names paths, others quote what they met."""
    return str(error)[:200] if isinstance(error, msgspec.ValidationError) else type(error).__name__


def decode_envelope(payload: bytes) -> Envelope:
    """Return the envelope in *payload*; its body is not looked into.

    Raises:
        NewerVersionError: an envelope of a later version, to be left alone.
        MalformedError: anything else that is not a canonical envelope of at most 48 KiB.
    """
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise MalformedError(f"malformed envelope: {len(payload)} bytes, the limit is {MAX_ENVELOPE_BYTES}")
    try:
        return decode_canonical(_envelope_decoder, payload, what="envelope")
    except MalformedError:
        if _version(payload) > 1:
            raise NewerVersionError("an envelope of a later version: upgrade this peer") from None
        raise


def decode_frame(payload: bytes) -> Frame | None:
    """Return what an envelope of any version keeps, or None where *payload* has no such frame."""
    try:
        return _frame_decoder.decode(payload)
    except DECODE_ERRORS:
        return None


def decode_single(payload: bytes) -> Envelope:
    """Return the envelope in *payload* of a kind that one writer signs alone.

    Further signatures are malformed there: they are not covered by the digest, so anyone could add some, and peers
    would hold different bytes of one thing and publish them over each other for ever.

    Raises:
        NewerVersionError: as decode_envelope.
        MalformedError: as decode_envelope, or it carries cosignatures.
    """
    envelope = decode_envelope(payload)
    if envelope.cosig:
        raise MalformedError("malformed envelope: cosignatures on what one writer signs")
    return envelope


def _version(payload: bytes) -> int:
    try:
        return _version_decoder.decode(payload).v
    except DECODE_ERRORS:
        return 0


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the envelope's bytes.

    Raises:
        TooLargeError: they exceed 48 KiB.
    """
    payload = encode(envelope)
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise TooLargeError(f"the envelope would have {len(payload)} bytes; the limit is {MAX_ENVELOPE_BYTES}")
    return payload


def one_empty_tuple(document: msgspec.Struct) -> None:
    """Make every empty tuple of a document *the* empty tuple.

    msgspec leaves a default out by identity, and on Python 3.10 ``tuple(iterator)`` gives another empty tuple: what was
    encoded there would not be canonical elsewhere.
    """
    for name in document.__struct_fields__:
        value = getattr(document, name)
        if type(value) is tuple and not value:
            msgspec.structs.force_setattr(document, name, ())


def pae(purpose: Purpose, fleet: str, kid: str, body: bytes, *, version: int = 1) -> bytes:
    """Return the pre-authentication encoding: what is signed, and what the digest is taken of.

    Lengths in bytes come before the fields, as in DSSE's PAE (secure-systems-lab/dsse, protocol.md), so that no two
    different tuples share an encoding.

    >>> pae("delta", "f" * 32, "a" * 32, b"{}")
    b'TARSv1 5 delta 32 ffffffffffffffffffffffffffffffff 32 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 2 {}'
    """
    return _pae(_pae_head(purpose, fleet, version), kid.encode("ascii"), body)


def _pae(head: bytes, kid: bytes, body: bytes) -> bytes:
    return b"%b%d %b %d %b" % (head, len(kid), kid, len(body), body)


@functools.lru_cache(maxsize=64)
def _pae_head(purpose: Purpose, fleet: str, version: int) -> bytes:
    return f"TARSv{version} {len(purpose)} {purpose} {len(fleet)} {fleet} ".encode("ascii")


def digest_of(encoding: bytes) -> bytes:
    """Return the BLAKE2b-256 of a pre-authentication encoding (RFC 7693; the same bytes as libsodium's)."""
    return hashlib.blake2b(encoding, digest_size=32).digest()


_BODY_AT: Final = len('{"v":1,"kid":"') + 32 + len('","sig":"') + 88 + len('","body":')
_KID_AT: Final = len('{"v":1,"kid":"')


def body_of(payload: bytes) -> bytes:
    """Return the exact bytes of the body in an envelope that one writer signed, whose form was checked before."""
    return payload[_BODY_AT:-1]


def claimed_digest(purpose: Purpose, fleet: str, payload: bytes) -> bytes:
    """Return the digest that *payload* has if it is an envelope, without decoding it.

    It proves nothing: whoever finds something under this digest must compare the bytes.
    """
    return digest_of(_pae(_pae_head(purpose, fleet, 1), payload[_KID_AT : _KID_AT + 32], body_of(payload)))


def short_hash(content: bytes) -> str:
    """Return the BLAKE2b-128 of *content* as 32 hex digits: key ids, fleet ids, schema hashes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def check_value(value: Any, *, depth: int = 0) -> None:
    """Refuse JSON that other languages' readers could not hold.

    Raises:
        MalformedError: integers beyond 64 bits, or nesting beyond 32 levels.
    """
    if isinstance(value, dict):
        children: Any = value.values()
    elif isinstance(value, list):
        children = value
    elif isinstance(value, int) and not isinstance(value, bool) and not MIN_INT <= value <= MAX_INT:
        raise MalformedError("malformed value: an integer beyond 64 bits")
    else:
        return
    if depth >= MAX_DEPTH:
        raise MalformedError(f"malformed value: nested deeper than {MAX_DEPTH} levels")
    for child in children:
        check_value(child, depth=depth + 1)
