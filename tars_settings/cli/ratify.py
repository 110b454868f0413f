"""From a change of trust to a trust document in force: signed here as far as the root keys are here, then published.

Where a signature is missing the draft goes into a file, travels to whoever can add one (``keys sign``), and is
published by whoever has the broker (``keys publish``).
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tars_settings.adapters.keyfiles import read_key, write_key
from tars_settings.cli.common import Common
from tars_settings.cli.onlooker import Onlooker
from tars_settings.core.topics import Topics, TrustTopic
from tars_settings.core.wire import decode_envelope
from tars_settings.errors import BrokerError, IllegalNameError, KeyFileError, RefusedError, UsageError
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustBody, TrustDocument
from tars_settings.trust.document import Writer as Listed
from tars_settings.trust.keys import SigningKey, fleet_text, kid_of, parse_fleet
from tars_settings.trust.locked import is_locked, unlock
from tars_settings.writer import Writer, roots

ROOT_KEY_FILE: Final = "root.key"
PUBLISH_WITHIN_S: Final = 5.0
_POLL_S: Final = 0.01

RootKeyOption = Annotated[
    list[Path] | None,
    typer.Option("--root-key", metavar="FILE", help="A root key's file; repeat it where several must sign"),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the document to this file, and publish nothing")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the trust document")]


@dataclass(frozen=True)
class Signing:
    """Who signs a change, where it goes, and why it is made."""

    root_keys: tuple[Path, ...] = ()
    out: Path | None = None
    reason: str = ""

    @classmethod
    def of(cls, root_keys: Sequence[Path] | None, out: Path | None, reason: str) -> Signing:
        """Return it from a command's options."""
        return cls(tuple(root_keys or ()), out, reason)

    @property
    def why(self) -> dict[str, str]:
        """What goes into the document for people."""
        return {"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "reason": self.reason}

    def keys(self, environment: Environment) -> tuple[SigningKey, ...]:
        """Return the root keys: those that were named, else the one that ``init`` left beside the writer's.

        Raises:
            KeyFileError: one can't be read or is no root key; or none is here, and nothing says where to write a draft.
        """
        paths = self.root_keys or tuple(home / ROOT_KEY_FILE for home in homes(environment))
        found = [signing_key(environment, path) for path in paths if self.root_keys or path.is_file()]
        if not found and self.out is None:
            raise KeyFileError(
                "no root key is here: name it with --root-key FILE; where it is kept elsewhere, write the document "
                "with --out FILE and carry that there: tars-settings keys sign FILE --root-key KEY"
            )
        return tuple({key.kid: key for key in found}.values())


def homes(environment: Environment) -> tuple[Path, ...]:
    """Return the directories where ``init`` may have left keys."""
    beside = () if environment.writer_key_file is None else (environment.writer_key_file.parent,)
    return tuple(dict.fromkeys((*beside, environment.state_dir)))


def signing_key(environment: Environment, path: Path) -> SigningKey:
    """Return the key of a root or a writer in a file; for a locked one the person at the terminal is asked.

    Raises:
        PassphraseError: it is locked, and nobody is there to ask, or the passphrase is another one.
        KeyFileError: it can't be read, or holds something else.
    """
    path = path.expanduser()
    if environment.passphrase_text is not None or not sys.stdin.isatty() or not is_locked(text := read_key(path)):
        return environment.signing_key(path)
    return unlock(text, getpass.getpass(f"Passphrase of {path}: "))


def public_key(text: str, option: str) -> bytes:
    """Return the public key in the text that ``keys new`` prints.

    Raises:
        IllegalNameError: it is none.
    """
    try:
        return parse_fleet(text)
    except KeyFileError:
        pass
    raise IllegalNameError(f"{option}: no public key; expected 'ed25519:' and 43 characters, as 'keys new' prints")


def ratify(common: Common, writer: Writer, body: TrustBody, signing: Signing) -> dict[str, Any]:
    """Sign the body, put it in force, and return what there is to tell; ``published`` is false where it is in a file.

    Raises:
        RefusedError: signatures are missing, and no file was named.
        BrokerError: it is in force here, and was not seen on the broker in time.
    """
    environment = writer.environment
    text = roots.sign(roots.draft(body), environment.fleet_id, signing.keys(environment))
    missing = roots.lacking(writer.trust, text)
    if signing.out is not None:
        write_key(signing.out.expanduser().absolute(), text.decode() + "\n")
        common.out.note(_carry_on(signing.out, missing))
        return {**told(body), "published": False, "lacking": missing, "file": str(signing.out)}
    if missing:
        raise RefusedError(
            f"the document has {missing}: name more root keys with --root-key, or write it with --out FILE and have it "
            "signed where the others are: tars-settings keys sign FILE --root-key KEY"
        )
    document = publish(writer, text)
    common.out.note(f"trust document {document.version} is in force and on the broker (gen {document.gen})")
    return {**told(document.body), "published": True, "lacking": "", "file": None}


def _carry_on(path: Path, missing: str) -> str:
    if missing:
        return f"{path} has {missing}; where a root key is: tars-settings keys sign {path} --root-key KEY"
    return f"{path} is signed; where the broker is: tars-settings keys publish {path}"


def publish(writer: Writer, text: bytes) -> TrustDocument:
    """Put a signed document in force, and see it on the broker.

    Raises:
        BrokerError: it was not seen there in time; it is in force on this host, and may be in the fleet.
        RejectedError, RefusedError: it does not follow; nothing was changed.
    """
    environment = writer.environment
    topic = Topics(environment.prefix, environment.health_prefix).format(TrustTopic())
    with Onlooker(environment.broker_address(), environment.protocol, topic) as onlooker:
        _await(lambda: onlooker.is_connected, "the broker does not answer")
        document = roots.put_in_force(writer, text)
        _await(lambda: onlooker.retained().get(topic) == text, "the broker does not show the trust document")
    return document


def _await(condition: Callable[[], bool], complaint: str) -> None:
    due_s = time.monotonic() + PUBLISH_WITHIN_S
    while not condition():
        if time.monotonic() > due_s:
            raise BrokerError(f"{complaint} within {PUBLISH_WITHIN_S:g} s")
        time.sleep(_POLL_S)


def read_draft(path: Path) -> bytes:
    """Return the draft in a file; it is no secret, so whoever may read it may.

    Raises:
        KeyFileError: it can't be read.
        MalformedError: it is no trust document.
    """
    try:
        text = path.expanduser().read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror or error}") from error
    roots.body_of(text)
    return text


def told(body: TrustBody) -> dict[str, Any]:
    """Return what a trust document says, as a JSON document."""
    named = {kid_of(one.public): one.name for one in body.writers}
    return {
        "version": body.version,
        "gen": body.gen,
        "threshold": body.threshold,
        "roots": [{"kid": kid_of(public), "public": fleet_text(public)} for public in body.roots],
        "writers": [_told_of(one, named) for one in body.writers],
        "endorsed": len(body.endorsed),
        "at": body.at,
        "reason": body.reason,
    }


def _told_of(writer: Listed, named: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": writer.name,
        "kid": kid_of(writer.public),
        "public": fleet_text(writer.public),
        "status": writer.status,
        "grants": list(writer.grants),
        "cosign": [
            {"grant": one.grant, "need": one.need, "of": [named[kid] for kid in one.of]} for one in writer.cosign
        ],
    }


def signers_of(document: TrustDocument) -> list[str]:
    """Return the key ids whose signatures a document carries."""
    if document.is_pin:
        return []
    envelope = decode_envelope(document.raw)
    return [envelope.kid, *(one.kid for one in envelope.cosig)]


def confirmed(common: Common, question: str, *, yes: bool) -> None:
    """Ask, unless *yes* was said before.

    Raises:
        UsageError: nobody is there to ask.
        RefusedError: the answer was no; nothing was changed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to ask: look at what it would do, and say --yes")
    common.out.note(question)
    if not typer.confirm("Go on?", err=True):
        raise RefusedError("left as it was")
