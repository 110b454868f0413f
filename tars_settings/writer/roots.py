"""What a holder of root keys does: signs the next trust document, and puts it in force.

A root key may live on another machine. Then a *draft* travels, as a file: the body alone, or an envelope that carries
some of the signatures; each holder adds one, and whoever has a broker publishes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tars_settings.core.topics import Topics, TrustTopic
from tars_settings.core.wire import Envelope, decode_envelope, encode
from tars_settings.errors import BrokerError, ChainMissingError, KeyFileError, RefusedError, UntrustedError
from tars_settings.gossip.effects import Offered
from tars_settings.trust.document import TrustBody, TrustDocument, follow, read_body
from tars_settings.trust.envelope import signers
from tars_settings.trust.keys import SigningKey, kid_of
from tars_settings.writer.signing import Writer

APPLY_WITHIN_S: Final = 5.0


def draft(body: TrustBody) -> bytes:
    """Return the body as it is signed: what travels to the holder of the first root key."""
    return encode(body)


def sign(text: bytes, fleet: str, keys: Sequence[SigningKey]) -> bytes:
    """Return a draft with the signatures of *keys* added; a key that signed it before adds nothing.

    Raises:
        KeyFileError: one of them is no root key.
        MalformedError: it is no draft of a trust document.
    """
    if strangers := [key.name for key in keys if key.role != "root"]:
        raise KeyFileError(f"{', '.join(strangers)}: a writer's key; a trust document is signed with root keys")
    for key in keys:
        envelope = envelope_of(text)
        if envelope is None:
            text = key.sign("trust", fleet, text)
        elif key.kid not in signers(envelope, "trust", fleet, {key.kid: key.public}):
            text = key.cosign("trust", fleet, envelope)
    return text


def envelope_of(text: bytes) -> Envelope | None:
    """Return the envelope in a draft, or None where it is a body that nobody signed yet.

    Raises:
        MalformedError: it is neither.
    """
    if text.startswith(b'{"v":'):
        envelope = decode_envelope(text)
        read_body(bytes(envelope.body))
        return envelope
    read_body(text)
    return None


def body_of(text: bytes) -> TrustBody:
    """Return the body in a draft, its form checked.

    Raises:
        MalformedError: it is no draft of a trust document.
    """
    envelope = envelope_of(text)
    return read_body(text if envelope is None else bytes(envelope.body))


def lacking(held: TrustDocument, text: bytes) -> str:
    """Return which signatures a draft still lacks, as a sentence; empty where it follows the held document.

    Raises:
        UntrustedError: it can never follow: it is older, or drops a writer.
    """
    envelope, body = envelope_of(text), body_of(text)
    found = []
    for roots, threshold, which in (
        (held.body.roots, held.body.threshold, "held"),
        (body.roots, body.threshold, "new"),
    ):
        publics = {kid_of(public): public for public in roots}
        got = 0 if envelope is None else len(signers(envelope, "trust", held.fleet, publics))
        if got < threshold:
            found.append(f"{got} of {threshold} signatures of the {which} roots")
    if found:
        return " and ".join(found)
    follow(held, text)
    return ""


def put_in_force(writer: Writer, text: bytes) -> TrustDocument:
    """Store a signed trust document and publish it; return it. The step of the chain too, where roots changed.

    Raises:
        UntrustedError, MalformedError: it does not follow from the document that is held; nothing was changed.
        BrokerError: it was not taken in time.
    """
    held = writer.trust
    document = _followed(held, text)
    topics: Topics = writer.agent.replicator.topics
    steps = [TrustTopic()] if document.body.roots == held.body.roots else [TrustTopic(document.version), TrustTopic()]

    def carry_out() -> None:
        writer.agent.feed(Offered((text,)))
        # Stored durably by now: adopting a document waits for the disk. Who is told meets it as the newest.
        for step in steps:
            writer.agent.publish(topics.format(step), text)

    if not writer.agent.call(carry_out, APPLY_WITHIN_S) or writer.trust.digest != document.digest:
        raise BrokerError(f"trust document {document.version} was not taken over; see tars-settings keys list")
    return document


def _followed(held: TrustDocument, text: bytes) -> TrustDocument:
    try:
        return follow(held, text)
    except ChainMissingError:
        raise
    except UntrustedError as error:
        version = body_of(text).version
        if version > held.version:
            raise
        raise RefusedError(
            f"trust document {held.version} came in between: this is {version}; make the change again ({error})"
        ) from None
