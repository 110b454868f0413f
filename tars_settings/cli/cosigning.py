"""The two-person rule at the command line: drafts of pushes, those who consent to them, and grants that demand it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tars_settings.adapters.keyfiles import write_key
from tars_settings.cli.common import Common
from tars_settings.cli.founding import adopt_trust
from tars_settings.cli.options import YesOption
from tars_settings.cli.ratify import OutOption, confirmed, signing_key
from tars_settings.cli.reading import from_replica
from tars_settings.cli.render import MASK, Table, printable, rows_of, value_text
from tars_settings.cli.scopes import every_scope
from tars_settings.cli.tried import span
from tars_settings.core.delta import Assignment, Trial
from tars_settings.core.draft import Draft, read_draft
from tars_settings.core.wire import MAX_ENVELOPE_BYTES
from tars_settings.errors import KeyFileError, RefusedError, ReplicaError, UsageError
from tars_settings.trust import succession
from tars_settings.trust.cosign import consent, in_words, lacking
from tars_settings.trust.document import Demand, TrustBody, TrustDocument
from tars_settings.writer import Receipt, Writer

DraftArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A draft, as push --cosign wrote it")]
CosignOption = Annotated[
    Path | None, typer.Option("--cosign", metavar="FILE", help="Publish nothing: write what others are to cosign")
]
CosignedOption = Annotated[
    Path | None, typer.Option("--cosigned", metavar="FILE", help="Publish this draft, which others cosigned")
]
DemandOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cosign",
        metavar="[GRANT=]N:WRITER,...",
        help="Only with the consent of N of these; by default, for every GRANT",
    ),
]


# --- drafts -----------------------------------------------------------------------------------------------------------


def cosign(common: Common, file: DraftArgument, out: OutOption = None, yes: YesOption = False) -> int:
    """Consent to what another writer is going to sign: look at it, and add this host's writer's signature.

    No broker is needed. The result goes to --out, by default FILE.cosigned, and back to its author.

    Example: tars-settings keys cosign change.draft --writer-key ops-2.key
    """
    environment = common.environment()
    draft, trust = draft_in(common, file), _known(common)
    path = environment.writer_key_file
    if path is None:
        raise KeyFileError("no writer's key is here: name it with --writer-key FILE")
    target = out or file.with_name(f"{file.name}.cosigned")
    _show(common, draft, trust)
    if draft.body.ext:
        raise RefusedError("the draft says something (ext) that this release can't show: upgrade before you consent")
    text = consent(draft, signing_key(environment, path))
    confirmed(common, "Consent to exactly this?", yes=yes)
    write_key(target.expanduser().absolute(), text.decode() + "\n")
    common.out.document(_told(read_draft(text, draft.fleet), trust, target))
    common.out.note(f"cosigned, in {target}; its author types:  tars-settings push --cosigned {target}")
    return 0


def keep_draft(common: Common, receipt: Receipt, path: Path, trust: TrustDocument) -> int:
    """Write the draft of a push into a file, and say what to do with it."""
    write_key(path.expanduser().absolute(), receipt.draft.decode() + "\n")
    draft = read_draft(receipt.draft, common.environment().fleet_id)
    common.out.document(_told(draft, trust, path))
    writer = trust.writer(draft.kid)
    missing = () if writer is None else lacking(draft.kid, draft.raw_body, draft.body, writer, trust)
    needed = f"it needs {in_words(missing, trust)}" if missing else "no cosignature is demanded for it"
    common.out.note(
        f"{draft.body.scope} epoch {draft.body.epoch} is drafted in {path}, and nothing is published: {needed}\n"
        f"Where a cosigner's key is, type:  tars-settings keys cosign {path}"
    )
    return 0


def draft_in(common: Common, path: Path) -> Draft:
    """Return the draft in a file; it is no secret, so whoever may read it may.

    Raises:
        KeyFileError: it can't be read.
        MalformedError: it is no draft of this fleet.
    """
    try:
        with path.expanduser().open("rb") as file:
            text = file.read(MAX_ENVELOPE_BYTES + 2)
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror or error}") from error
    return read_draft(text.strip(), common.environment().fleet_id)


def _known(common: Common) -> TrustDocument:
    """Return the trust document that this host knows; the pin where it knows none, which then names nobody."""
    environment = common.environment()
    adopt_trust(environment)
    try:
        return from_replica(environment, None).trust
    except ReplicaError:
        return environment.pinned()


def _show(common: Common, draft: Draft, trust: TrustDocument) -> None:
    body = draft.body
    rows = [(one.key, "unset" if one.unset else "set", _value(one)) for one in body.assign]
    common.out.table(Table(("key", "what", "value"), rows_of(rows)))
    who = trust.name_of(draft.kid)
    common.out.note(
        f"{who} is going to sign this for {body.scope} (epoch {body.epoch}, gen {body.gen}), drafted "
        f"by {printable(body.by) or 'nobody named'} at {printable(body.at) or 'no time'}: "
        f"{printable(body.reason) or 'no reason given'}"
    )
    trial = body.trial
    if isinstance(trial, Trial):
        undo = [(one.key, "unset" if one.unset else "set", _value(one)) for one in trial.undo]
        common.out.note(f"on trial: unless it is confirmed, this comes back after {span(trial.within_s)}:")
        common.out.table(Table(("key", "what", "value"), rows_of(undo)))


def _value(item: Assignment) -> str:
    if item.unset:
        return ""
    return MASK if item.is_secret else value_text(item.set)


def _told(draft: Draft, trust: TrustDocument, path: Path) -> dict[str, Any]:
    body = draft.body
    return {
        "scope": body.scope,
        "gen": body.gen,
        "epoch": body.epoch,
        "author": trust.name_of(draft.kid),
        "assign": [
            {
                "key": one.key,
                "value": None if one.unset or one.is_secret else one.set,
                "secret": one.is_secret,
                "unset": one.unset,
            }
            for one in body.assign
        ],
        "at": body.at,
        "by": body.by,
        "reason": body.reason,
        "trial_s": body.trial.within_s if isinstance(body.trial, Trial) else 0,
        "cosigned_by": [trust.name_of(one.kid) for one in body.cosig],
        "file": str(path),
    }


# --- grants -----------------------------------------------------------------------------------------------------------


def demands_of(words: Sequence[str], grants: Sequence[str], held: TrustDocument) -> tuple[Demand, ...]:
    """Return the demands in words such as ``1:ops-2,ops-3`` or ``stt-worker.api_key=2:ops-2,ops-3``.

    Raises:
        UsageError: a word is none.
        RefusedError: it names somebody who is not listed.
    """
    found: list[Demand] = []
    for word in words:
        grant, equals, rest = word.rpartition("=")
        need, colon, names = rest.partition(":")
        if not (colon and names and need.isascii() and need.isdigit() and len(need) < 4):
            raise UsageError(f"--cosign {word}: expected N:WRITER,... or GRANT=N:WRITER,..., such as 1:ops-2,ops-3")
        kids = tuple(succession.find_writer(held, name)[0] for name in names.split(","))
        found += [Demand(one, int(need), kids) for one in ([grant] if equals else grants)]
    return tuple(found)


def upheld(common: Common, writer: Writer, body: TrustBody, name: str) -> TrustBody:
    """Return the body with what shows now endorsed, where its new demands would void it; and say who is not bound.

    Raises:
        NotSyncedError: a scope can't be caught up with: what would be voided there is not known.
    """
    winners = [one.delta for scope in every_scope(common, writer) for one in writer.view(scope).values()]
    found = succession.uphold(writer.trust, body, winners)
    endorsed = len(found.endorsed) - len(body.endorsed)
    if endorsed:
        common.out.note(f"{endorsed} deltas that {name} signed before stand by endorsement")
    free = [one.name for one in body.writers if one.status == "active" and not one.cosign and one.name != name]
    if free:
        common.out.note(f"no consent is demanded of {', '.join(free)}, wherever their grants reach")
    return found
