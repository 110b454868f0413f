"""The two-person rule: a grant may demand that others consent first to what a writer is going to sign.

The cosignatures are inside what the writer signs, as the last field of the body, so that the digest covers them: nobody
adds or takes one away afterwards, and whoever forwards bytes knows nothing of it. Each cosigner signs, for the purpose
``cosign`` and the author's key id, the body as it is without that field.
"""

from __future__ import annotations

from tars_settings.core.delta import Delta, DeltaBody, uncosigned
from tars_settings.core.draft import Draft
from tars_settings.core.wire import body_of, pae
from tars_settings.errors import BadSignatureError, RefusedError
from tars_settings.trust import sodium
from tars_settings.trust.document import Demand, TrustDocument, Writer
from tars_settings.trust.keys import SigningKey


def is_cosigned(delta: Delta, writer: Writer, document: TrustDocument) -> bool:
    """Return whether a delta of *writer* carries the cosignatures that its demands ask for, each cosigner once."""
    return not lacking(delta.stamp.kid, body_of(delta.raw), delta.body, writer, document)


def lacking(
    author: str, raw_body: bytes, body: DeltaBody, writer: Writer, document: TrustDocument
) -> tuple[Demand, ...]:
    """Return the demands on a body that its cosignatures do not meet.

    A cosigner counts who is active, or retired and the body is from before; a compromised one and the author never do.
    """
    demands = writer.demands(body.scope, (item.key for item in body.assign))
    if not demands:
        return ()
    asked = {kid for one in demands for kid in one.of} - {author}
    encoding = pae("cosign", document.fleet, author, uncosigned(raw_body, body.cosig))
    good = {one.kid for one in body.cosig if one.kid in asked and _counts(one.kid, one.sig, encoding, body, document)}
    return tuple(one for one in demands if len(good.intersection(one.of)) < one.need)


def _counts(kid: str, signature: bytes, encoding: bytes, body: DeltaBody, document: TrustDocument) -> bool:
    cosigner = document.writer(kid)
    if cosigner is None or not cosigner.stands(body.scope, body.gen, body.epoch):
        return False
    try:
        sodium.verify(encoding, signature, cosigner.public)
    except BadSignatureError:
        return False
    return True


def in_words(demands: tuple[Demand, ...], document: TrustDocument) -> str:
    """Return demands as a person reads them."""
    return " and ".join(f"{one.need} of {', '.join(names(one, document))} for {one.grant}" for one in demands)


def names(demand: Demand, document: TrustDocument) -> list[str]:
    """Return the names of those who may cosign."""
    return [document.name_of(kid) for kid in demand.of]


def consent(draft: Draft, key: SigningKey) -> bytes:
    """Return the draft with the consent of *key* added; one that it gave before is given anew.

    Raises:
        RefusedError: it is the author's own key, or a root's: neither counts.
    """
    if key.role != "writer" or key.kid == draft.kid:
        raise RefusedError(f"{key.name!r} is {'its author' if key.kid == draft.kid else 'a root key'}: it can't cosign")
    return draft.with_consent(key.countersign(draft.fleet, draft.kid, uncosigned(draft.raw_body, draft.body.cosig)))
