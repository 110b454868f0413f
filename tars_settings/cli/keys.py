"""``keys``: who may write, and who may say so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tars_settings.adapters.keyfiles import write_key
from tars_settings.cli import cosigning, sealkey, secretkeys
from tars_settings.cli.common import Common, command
from tars_settings.cli.cosigning import DemandOption, demands_of, upheld
from tars_settings.cli.founding import TRUST_FILE, adopt_trust
from tars_settings.cli.options import OfflineOption, YesOption
from tars_settings.cli.ratify import (
    OutOption,
    ReasonOption,
    RootKeyOption,
    Signing,
    confirmed,
    homes,
    public_key,
    ratify,
    read_draft,
    signers_of,
    told,
)
from tars_settings.cli.ratify import publish as put_in_force
from tars_settings.cli.reading import from_replica
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.scopes import every_scope, limits_of
from tars_settings.cli.session import session
from tars_settings.core.names import check_service
from tars_settings.errors import BrokerUnreachableError
from tars_settings.trust import succession
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.keys import Role, SigningKey, fleet_text
from tars_settings.writer import roots

NameArgument = Annotated[str, typer.Argument(metavar="WRITER", help="The writer's name, or its key id")]
NewNameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name such as ops-1")]
GrantsArgument = Annotated[
    list[str], typer.Argument(metavar="GRANT...", help="What it may write: '*', 'stt-worker', 'audio-*.gain', '_all'")
]
PublicOption = Annotated[
    str | None, typer.Option("--public", metavar="KEY", help="Its public key, as 'keys new' printed it")
]
FileOption = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Where the key goes")]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A trust document, signed or to be signed")]


def register(keys: typer.Typer) -> None:
    """Add the commands."""
    for name, function in (
        ("list", list_keys),
        ("new", new),
        ("grant", grant),
        ("retire", retire),
        ("export", export),
        ("sign", sign),
        ("publish", publish),
        ("cosign", cosigning.cosign),
        ("rotate-secrets", secretkeys.rotate),
        ("rotate-seal", sealkey.rotate),
    ):
        command(keys, name, function)


# --- looking ----------------------------------------------------------------------------------------------------------


def list_keys(common: Common, offline: OfflineOption = False) -> int:
    """List roots, writers and their grants, and the secret keys of this host.

    Example: tars-settings keys list
    """
    held, source = _held(common, offline=offline)
    secrets = list(common.environment().secret_keys())
    common.out.document({**told(held.body), "source": source, "signed_by": signers_of(held), "secret_keys": secrets})
    common.out.table(_table(held, secrets))
    body = held.body
    common.out.note(
        f"trust document {held.version}, gen {held.gen}, {body.threshold} of {len(body.roots)} roots sign, "
        f"{len(body.endorsed)} deltas endorsed"
    )
    return 1 if held.is_pin else 0


def _held(common: Common, *, offline: bool) -> tuple[TrustDocument, str]:
    environment = common.environment()
    adopt_trust(environment)
    if not offline:
        try:
            with session(common) as writer:
                return writer.trust, "broker"
        except BrokerUnreachableError as error:
            common.out.note(f"{error}\nShown is what this host's replica holds, which may be old.")
    return from_replica(environment, None).trust, "replica"


def _table(held: TrustDocument, secrets: list[str]) -> Table:
    document = told(held.body)
    rows: list[tuple[Any, ...]] = [("root", "", one["kid"], "active", "") for one in document["roots"]]
    rows += [("writer", one["name"], one["kid"], one["status"], _grants(one)) for one in document["writers"]]
    rows += [("secret", name, "", "encrypts" if n == 0 else "readable", "") for n, name in enumerate(secrets)]
    return Table(("kind", "name", "kid", "status", "grants"), rows_of(rows))


def export(
    common: Common,
    trust: Annotated[bool, typer.Option("--trust", help="Print the trust document instead")] = False,
    offline: OfflineOption = False,
) -> int:
    """Print the public line that a worker needs; with --trust what a writer on another host needs besides its key.

    Example: tars-settings keys export >> worker.env
    """
    environment = common.environment()
    line = f"TARS_SETTINGS_FLEET={fleet_text(environment.root)}"
    held = _held(common, offline=offline)[0] if trust else None
    text = None if held is None else held.raw.decode()
    common.out.document({"fleet": fleet_text(environment.root), "trust": text})
    common.out.line(line if text is None else text, exact=True)
    if text is not None:
        common.out.note(f"Put it into a file {TRUST_FILE} (mode 0600) beside the writer's key.")
    return 0


# --- making -----------------------------------------------------------------------------------------------------------


def new(
    common: Common,
    name: NewNameArgument,
    file: FileOption = None,
    root: Annotated[bool, typer.Option("--root", help="A root key, for 'keys root rotate'")] = False,
    secret: Annotated[bool, typer.Option("--secret", help="A key that encrypts values, such as k2")] = False,
) -> int:
    """Make the key of a writer, on the host where it will be used: it never needs to leave it.

    It may write nothing until a holder of the root key grants it something. Nothing is ever overwritten. With --secret
    a line is added to the file of secret keys: readable, and not used before 'keys rotate-secrets'.

    Example: tars-settings keys new ops-2 --file ~/ops-2.key
    """
    if secret:
        return secretkeys.new(common, name, file)
    check_service(name, what="root" if root else "writer")
    role: Role = "root" if root else "writer"
    made = SigningKey(role, name, os.urandom(32))
    path = (file or homes(common.environment())[0] / f"{name}.key").expanduser().absolute()
    write_key(path, made.to_text())
    public = fleet_text(made.public)
    common.out.document({"role": role, "name": name, "kid": made.kid, "public": public, "file": str(path)})
    common.out.line(public)
    grant_it = f"tars-settings keys grant {name} 'SCOPE' --public {public}"
    rotate_it = f"tars-settings keys root rotate --add {public}"
    common.out.note(
        f"The key is in {path}; what is printed is its public half.\n"
        f"Where the root key is, type:  {rotate_it if root else grant_it}"
    )
    return 0


# --- changing ---------------------------------------------------------------------------------------------------------


def grant(
    common: Common,
    name: NewNameArgument,
    grants: GrantsArgument,
    public: PublicOption = None,
    root_key: RootKeyOption = None,
    out: OutOption = None,
    reason: ReasonOption = "",
    cosign: DemandOption = None,
) -> int:
    """Let a writer write: exactly these grants, in place of those that it had.

    With --cosign only what other writers consent to counts (push --cosign, keys cosign). What shows now is endorsed.

    Example: tars-settings keys grant ops-2 'stt-worker' 'audio-*' --public ed25519:...
    """
    key = None if public is None else public_key(public, "--public")
    signing = Signing.of(root_key, out, reason)
    with session(common) as writer:
        demands = demands_of(cosign or (), grants, writer.trust)
        body = succession.grant(writer.trust, name, key, grants, demands, **signing.why)
        if demands:
            body = upheld(common, writer, body, name)
        common.out.document(ratify(common, writer, body, signing))
    return 0


def retire(
    common: Common,
    name: NameArgument,
    root_key: RootKeyOption = None,
    out: OutOption = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
    secret: Annotated[bool, typer.Option("--secret", help="Drop a secret key that nothing uses any more")] = False,
) -> int:
    """End a writer in peace: what it wrote so far stands, and nothing that it signs later.

    For a key that may be in other hands, take 'keys compromise'. With --secret a secret key is taken out of this host's
    file, unless something still needs it.

    Example: tars-settings keys retire ops-1 --reason "left the team"
    """
    if secret:
        return secretkeys.retire(common, name, yes=yes)
    signing = Signing.of(root_key, out, reason)
    with session(common) as writer:
        kid, entry = succession.find_writer(writer.trust, name)
        scopes = every_scope(common, writer)
        limits = limits_of(writer, kid, scopes)
        body = succession.retire(writer.trust, name, limits, **signing.why)
        common.out.note(f"{entry.name} ends; what it wrote stands in: {', '.join(sorted(limits)) or 'nothing'}")
        confirmed(common, f"Retire {entry.name} for good?", yes=yes)
        common.out.document(ratify(common, writer, body, signing))
    return 0


# --- documents on a stick ---------------------------------------------------------------------------------------------


def sign(common: Common, file: FileArgument, root_key: RootKeyOption = None, out: OutOption = None) -> int:
    """Add a root's signature to a trust document in a file: where the root key is, no broker is needed.

    What it says is shown. The result goes to --out, by default FILE.signed.

    Example: tars-settings keys sign trust-7.json --root-key root.key --fleet ed25519:...
    """
    environment = common.environment()
    target = out or file.with_name(f"{file.name}.signed")
    keys = Signing(tuple(root_key or ()), None).keys(environment)
    text = roots.sign(read_draft(file), environment.fleet_id, keys)
    body = roots.body_of(text)
    write_key(target.expanduser().absolute(), text.decode() + "\n")
    common.out.document({**told(body), "file": str(target)})
    common.out.table(Table(("writer", "status", "grants"), rows_of([_row(one) for one in told(body)["writers"]])))
    common.out.note(
        f"signed, in {target}: trust document {body.version}, {body.threshold} of {len(body.roots)} roots sign\n"
        f"Where the broker is, type:  tars-settings keys publish {target}"
    )
    return 0


def _row(writer: dict[str, Any]) -> tuple[str, str, str]:
    return (writer["name"], writer["status"], _grants(writer))


def _grants(writer: dict[str, Any]) -> str:
    """Return what it may write, and under which grants others have to consent."""
    demands = [f"{one['grant']}={one['need']}:{','.join(one['of'])}" for one in writer["cosign"]]
    return " ".join([*writer["grants"], *(["with"] if demands else []), *demands])


def publish(common: Common, file: FileArgument) -> int:
    """Put a trust document from a file in force, once enough roots signed it.

    Example: tars-settings keys publish trust-7.json.signed
    """
    text = read_draft(file)
    with session(common) as writer:
        document = put_in_force(writer, text)
    common.out.document({**told(document.body), "published": True})
    common.out.note(f"trust document {document.version} is in force and on the broker (gen {document.gen})")
    return 0
