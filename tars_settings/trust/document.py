"""The trust document: root-signed, versioned, the list of writers and what each may write.

Version N+1 is signed by the threshold of N's roots and of its own. Roots that did not change may be skipped forward;
changed ones need every step of the chain (The Update Framework, specification 1.0, 5.3). A document is a value: the
held one and received bytes give the next, or an error, and nothing else changes.
"""

# Without postponed annotations: msgspec would compile each field's from its text, half a millisecond of every start.
import functools
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import msgspec

from tars_settings.core.names import is_scope, is_service
from tars_settings.core.stamp import MAX_EPOCH, MAX_GEN
from tars_settings.core.wire import (
    MAX_COSIGNATURES,
    Envelope,
    HexDigest,
    Kid,
    decode_canonical,
    decode_envelope,
    digest_of,
    one_empty_tuple,
    pae,
)
from tars_settings.errors import ChainMissingError, MalformedError, UntrustedError
from tars_settings.trust.envelope import signers
from tars_settings.trust.grants import covers, covers_scope, is_grant, reaches, shows_in, touches
from tars_settings.trust.keys import fleet_id, kid_of

MAX_VERSION: Final = 2**31
PublicKey = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Status = Literal["active", "retired", "compromised"]


class Retirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to which stamp prefix and index counter a retired writer counts in one scope."""

    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
    counter: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]


class Demand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a writer may write under ``grant`` only with cosignatures: ``need`` of the writers ``of`` (key ids)."""

    grant: str
    need: Annotated[int, msgspec.Meta(ge=1, le=MAX_COSIGNATURES)]
    of: Annotated[tuple[Kid, ...], msgspec.Meta(min_length=1, max_length=MAX_COSIGNATURES)]


class Writer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One writer's entry. Once listed, it stays listed: its status changes."""

    name: str
    public: PublicKey
    grants: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]
    status: Status = "active"
    retired: Annotated[dict[str, Retirement], msgspec.Meta(max_length=256)] = {}
    cosign: Annotated[tuple[Demand, ...], msgspec.Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        one_empty_tuple(self)

    def demands(self, scope: str, keys: Iterable[str]) -> tuple[Demand, ...]:
        """Return the demands for cosignatures that assignments to *keys* have to meet, each of them."""
        if not self.cosign:
            return ()
        named = tuple(keys)
        return tuple(one for one in self.cosign if any(reaches(one.grant, scope, key) for key in named))

    def is_bound(self, scope: str) -> bool:
        """Return whether anything in the scope demands cosignatures: then a floor, which voids alone, can't count."""
        return any(shows_in(one.grant, scope) for one in self.cosign)

    def stands(self, scope: str, gen: int, epoch: int) -> bool:
        """Return whether a signature of this writer counts there: it is active, or retired and (gen, epoch) before."""
        if self.status != "retired":
            return self.status == "active"
        limit = self.retired.get(scope)
        return limit is not None and (gen, epoch) <= (limit.gen, limit.epoch)

    def may_write(self, scope: str, key: str) -> bool:
        """Return whether a grant covers the key."""
        # Most writers hold whole scopes: that is looked up, and no key is matched.
        return self.may_compact(scope) or any(covers(grant, scope, key) for grant in self.grants)

    def may_compact(self, scope: str) -> bool:
        """Return whether a grant covers the whole scope: only then a floor of this writer counts."""
        return _cover_scope(self.grants, scope)

    def touches(self, scope: str) -> bool:
        """Return whether a grant covers anything in the scope."""
        return any(touches(grant, scope) for grant in self.grants)


@functools.lru_cache(maxsize=1024)
def _cover_scope(grants: tuple[str, ...], scope: str) -> bool:
    return any(covers_scope(grant, scope) for grant in grants)


class TrustBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the roots sign."""

    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    roots: Annotated[tuple[PublicKey, ...], msgspec.Meta(min_length=1, max_length=16)]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=16)]
    writers: Annotated[tuple[Writer, ...], msgspec.Meta(max_length=256)]
    endorsed: tuple[HexDigest, ...] = ()
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=512)] = ""
    ext: dict[str, Any] = {}

    def __post_init__(self) -> None:
        one_empty_tuple(self)


_body_decoder: Final = msgspec.json.Decoder(TrustBody)


class TrustDocument:
    """A verified trust document; immutable. ``fleet`` is the id of the fleet whose roots signed it."""

    __slots__ = ("_endorsed", "_writers", "body", "digest", "fleet", "raw")

    def __init__(self, fleet: str, body: TrustBody, digest: bytes, raw: bytes) -> None:
        self.fleet = fleet
        self.body = body
        self.digest = digest
        self.raw = raw
        self._writers = {kid_of(writer.public): writer for writer in body.writers}
        self._endorsed = frozenset(bytes.fromhex(digest) for digest in body.endorsed)

    def __repr__(self) -> str:
        return f"<TrustDocument version={self.version} gen={self.gen} writers={len(self._writers)}>"

    @property
    def version(self) -> int:
        """Its version; 0 for the pin, which is no document yet."""
        return self.body.version if self.raw else 0

    @property
    def gen(self) -> int:
        """The generation in force."""
        return self.body.gen

    @property
    def order(self) -> tuple[int, bytes]:
        """(version, digest): of two documents the greater is in force."""
        return (self.version, self.digest)

    @property
    def is_pin(self) -> bool:
        """Whether this is only the pinned root key, without a document: nothing is valid under it."""
        return not self.raw

    def writer(self, kid: str) -> Writer | None:
        """Return the writer with this key id, whatever its status."""
        return self._writers.get(kid)

    def name_of(self, kid: str, digits: int = 32) -> str:
        """Return a writer's name; of a key that is not listed the first *digits* of its id."""
        writer = self._writers.get(kid)
        return kid[:digits] if writer is None else writer.name

    def writers(self) -> dict[str, Writer]:
        """Return all writers by key id."""
        return dict(self._writers)

    def writers_of(self, scope: str) -> tuple[str, ...]:
        """Return the key ids of the writers whose grant touches a scope, compromised ones left out."""
        return tuple(
            kid for kid, writer in self._writers.items() if writer.status != "compromised" and writer.touches(scope)
        )

    def is_endorsed(self, digest: bytes) -> bool:
        """Return whether the roots vouch for a delta's bytes whatever became of its writer."""
        return digest in self._endorsed


def pin(root_public: bytes) -> TrustDocument:
    """Return the starting point of every chain: the pinned root key alone, version 0, under which nothing is valid."""
    body = TrustBody(1, 0, (root_public,), 1, ())
    return TrustDocument(fleet_id(root_public), body, b"", b"")


def follow(held: TrustDocument, payload: bytes) -> TrustDocument:
    """Return the document in *payload* when it follows from the held one.

    A lower or equal version with a lower digest is refused, as is one that drops a writer or changes its key.

    Raises:
        MalformedError: not of the form of a trust document.
        ChainMissingError: its own roots signed it and too few of the held ones, and versions lie between.
        UntrustedError: not signed by the threshold of the held roots and of its own, or older than the held one.
    """
    envelope = decode_envelope(payload)
    received = _parse(held.fleet, envelope, payload)
    if received.order <= held.order:
        raise UntrustedError(f"trust document {received.version} does not come after the held {held.version}")
    _check_signed(held, received, envelope)
    if not held.is_pin:
        _check_succession(held, received)
    return received


def version_of(payload: bytes, fleet: str) -> tuple[int, bytes]:
    """Return (version, digest) that a trust document claims, form checked, signatures not.

    Raises:
        MalformedError: not of the form of a trust document.
    """
    return _parse(fleet, decode_envelope(payload), payload).order


def read_body(raw: bytes) -> TrustBody:
    """Return the body of a trust document, form checked; who signed it is another question.

    Raises:
        MalformedError: it is none.
    """
    body = decode_canonical(_body_decoder, raw, what="trust document")
    _check_form(body)
    return body


def _parse(fleet: str, envelope: Envelope, payload: bytes) -> TrustDocument:
    raw_body = bytes(envelope.body)
    body = read_body(raw_body)
    return TrustDocument(fleet, body, digest_of(pae("trust", fleet, envelope.kid, raw_body)), payload)


def _check_form(body: TrustBody) -> None:
    publics = [*body.roots, *(writer.public for writer in body.writers)]
    names = [writer.name for writer in body.writers]
    fits = (
        len(set(publics)) == len(publics)
        and len(set(names)) == len(names)
        and body.threshold <= len(body.roots)
        and all(is_service(name) for name in names)
        and all(is_grant(grant) for writer in body.writers for grant in writer.grants)
        and all(is_scope(scope) for writer in body.writers for scope in writer.retired)
        and _demands_fit(body)
    )
    if not fits:
        raise MalformedError("malformed trust document: names, grants, keys or threshold")


def _demands_fit(body: TrustBody) -> bool:
    """Return whether every demand can be met: by other listed writers, each named once."""
    demands = [(writer, one) for writer in body.writers for one in writer.cosign]
    if not demands:
        return True
    listed = {kid_of(writer.public) for writer in body.writers}
    return all(
        is_grant(one.grant)
        and one.need <= len(set(one.of)) == len(one.of)
        and set(one.of) <= listed - {kid_of(writer.public)}
        for writer, one in demands
    )


def _check_signed(held: TrustDocument, received: TrustDocument, envelope: Envelope) -> None:
    for document in (received, held):
        roots = {kid_of(public): public for public in document.body.roots}
        got = len(signers(envelope, "trust", held.fleet, roots))
        if got < document.body.threshold:
            has_steps = document is held and received.version > held.version + 1
            kind = ChainMissingError if has_steps else UntrustedError
            raise kind(
                f"trust document {received.version} carries {got} of {document.body.threshold} signatures "
                f"that the roots of version {document.version} demand"
            )


def _check_succession(held: TrustDocument, received: TrustDocument) -> None:
    same_version = received.version == held.version
    listed = received.writers()
    dropped = [writer.name for kid, writer in held.writers().items() if kid not in listed]
    # Two documents of one version are a quarrel among roots: the digest decides, whatever each of them lists.
    if dropped and not same_version:
        raise UntrustedError(f"trust document {received.version} drops writers that were listed: {', '.join(dropped)}")
    if received.gen < held.gen and not same_version:
        raise UntrustedError(f"trust document {received.version} lowers gen from {held.gen} to {received.gen}")
