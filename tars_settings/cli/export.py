"""``export``: the fleet's signed bytes in a file, verbatim, and what such a file is worth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.options import CatchUpOption
from tars_settings.cli.reading import spoken_for
from tars_settings.cli.render import Table, rows_of, several
from tars_settings.cli.session import session
from tars_settings.core.names import ALL, Scope
from tars_settings.errors import BrokerUnreachableError, RefusedError, StateDirError, UsageError
from tars_settings.gossip.offering import Offer, kind_of
from tars_settings.writer.archive import Archive, counted, payloads_of, refused, since

ServicesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SERVICE[@INSTANCE]...]", help="Which; by default the whole fleet, _all with it"),
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="EPOCH", help="Only what is above this epoch (or GEN:EPOCH) of its scope"),
]
FileOption = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Write to this file, mode 0600")]
VerifyOption = Annotated[
    Path | None, typer.Option("--verify", metavar="FILE", help="Check an export, offline, and write nothing")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Export what this host's replica holds")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "export", export)


def export(
    common: Common,
    services: ServicesArgument = None,
    since_mark: SinceOption = None,
    file: FileOption = None,
    verify: VerifyOption = None,
    offline: OfflineOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Write the fleet's signed envelopes, one a line: a file that is as good as a broker. Secrets stay encrypted.

    Exit code 1 where the broker could not be caught up with, or with --verify where something does not pass.

    Example: tars-settings export --file fleet-2026-03-01.jsonl
    """
    if verify is not None:
        if services or since_mark is not None or file is not None:
            raise UsageError("--verify checks a file, and takes nothing else")
        return _verify(common, verify)
    wanted = tuple(str(Scope.parse(one)) for one in services or ())
    mark = None if since_mark is None else _mark(since_mark)
    archive, source, states = _held(common, wanted, offline=offline, timeout_s=timeout_s)
    scopes = [scope for scope in archive.scopes if not wanted or _bears_on(scope, wanted)]
    payloads = archive.export(scopes)
    if mark is not None:
        payloads = since(payloads, archive, mark)
    if not payloads:
        raise RefusedError("there is nothing to export: no trust document is here or on the broker")
    _write(common, payloads, file, _document(archive, payloads, scopes, source, states))
    late = [scope for scope, state in states.items() if state != "ready" and scope in (*scopes, *wanted)]
    return 1 if late else 0


def _mark(text: str) -> tuple[int, int]:
    """Return (gen, epoch). A later gen may begin with low epochs: without a gen, all of the later ones are above."""
    gen, colon, epoch = text.rpartition(":")
    if not epoch.isdecimal() or (colon and not gen.isdecimal()):
        raise UsageError(f"--since {text}: expected EPOCH, such as 41, or GEN:EPOCH")
    return int(gen or 0), int(epoch)


def _bears_on(scope: str, wanted: Sequence[str]) -> bool:
    return scope in wanted or (scope != ALL and str(Scope(Scope.parse(scope).service)) in wanted)


def _held(
    common: Common, wanted: Sequence[str], *, offline: bool, timeout_s: float
) -> tuple[Archive, str, dict[str, str]]:
    """Return what broker and replica hold together, or the replica alone; and how complete each scope was."""
    environment = common.environment()
    if offline:
        return Archive.of(environment), "replica", {}
    try:
        payloads, states = _from_broker(common, wanted, timeout_s)
    except BrokerUnreachableError as error:
        common.out.note(f"{error}\nExported is what this host's replica holds, which may be old.")
        return Archive.of(environment), "replica", {}
    archive = Archive(environment)
    archive.offer(payloads)
    return archive, "broker", states


def _from_broker(common: Common, wanted: Sequence[str], timeout_s: float) -> tuple[tuple[bytes, ...], dict[str, str]]:
    found: list[bytes] = []
    with session(common) as writer:
        replicator = writer.agent.replicator
        known = {ALL, *wanted, *replicator.peer.registers.scopes(), *spoken_for(writer, None)}
        if wanted:
            known = {scope for scope in known if _bears_on(scope, wanted)}
        states = {scope: writer.sync(scope, timeout_s) for scope in sorted(known)}
        writer.agent.call(lambda: found.extend(replicator.export()))
    return tuple(found), states


def _document(
    archive: Archive, payloads: Sequence[bytes], scopes: Sequence[str], source: str, states: dict[str, str]
) -> dict[str, Any]:
    counts = Counter(kind_of(payload, archive.peer.fleet)[0] for payload in payloads)
    return {
        "source": source,
        "fleet": archive.peer.fleet,
        "trust": archive.peer.trust.version,
        "scopes": {scope: states.get(scope, "") for scope in scopes},
        "counts": {kind.replace(" ", "_"): count for kind, count in sorted(counts.items())},
        "lacking": list(archive.lacking(scopes)),
    }


def _write(common: Common, payloads: Sequence[bytes], file: Path | None, document: dict[str, Any]) -> None:
    lines = [payload.decode() for payload in payloads]
    if file is None:
        common.out.document({**document, "file": None, "envelopes": lines})
        for line in lines:
            common.out.line(line, exact=True)
    else:
        path = write_whole(file, "".join(f"{line}\n" for line in lines).encode())
        common.out.document({**document, "file": str(path), "envelopes": None})
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in document["counts"].items())
    where = "" if file is None else f"{file}: "
    common.out.note(f"{where}{counts}; {several(len(document['scopes']), 'scope')}, from the {document['source']}")
    for scope, state in document["scopes"].items():
        if state not in ("", "ready"):
            common.out.note(f"{scope} could not be caught up with ({state}): the export may lack something")
    for what in document["lacking"]:
        common.out.note(f"it lacks {what}")


def write_whole(path: Path, content: bytes) -> Path:
    """Write a new file of mode 0600, whole or not at all, and to the disk before this returns; return its path.

    Raises:
        RefusedError: it exists; nothing is ever overwritten.
        StateDirError: it can't be written, and is not there.
    """
    path = path.expanduser().absolute()
    if os.path.lexists(path):
        raise RefusedError(f"{path} exists already, and nothing is ever overwritten; name another file")
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
            os.link(fresh, path)  # unlike a rename, it never takes the place of one that came meanwhile
        finally:
            fresh.unlink(missing_ok=True)
    except FileExistsError:
        raise RefusedError(f"{path} exists already, and nothing is ever overwritten; name another file") from None
    except OSError as error:
        raise StateDirError(f"{path} can't be written: {error.strerror or error}") from error
    return path


# --- checking ---------------------------------------------------------------------------------------------------------


def _verify(common: Common, file: Path) -> int:
    archive = Archive(common.environment())
    offers = archive.offer(payloads_of(file))
    return tell(common, archive, offers, {"file": str(file)})


def tell(common: Common, archive: Archive, offers: Sequence[Offer], more: dict[str, Any]) -> int:
    """Show the fate of each envelope, and return 1 where one was not taken or something is lacking, else 0."""
    lacking = archive.lacking({offer.scope for offer in offers if offer.scope})
    common.out.document(
        {
            **more,
            "trust": archive.peer.trust.version,
            "counts": counted(offers),
            "refused": refused(offers),
            "lacking": list(lacking),
            "envelopes": [_told(offer) for offer in offers],
        }
    )
    common.out.table(table(offers))
    common.out.note(summary(offers))
    for what in lacking:
        common.out.note(f"it lacks {what}")
    if archive.peer.trust.is_pin:
        common.out.note("no trust document of this fleet is in it, and without one nothing counts")
    return 1 if refused(offers) or lacking or archive.peer.trust.is_pin else 0


def _told(offer: Offer) -> dict[str, str]:
    return {"kind": offer.kind, "scope": offer.scope, "fate": offer.fate, "reason": offer.reason}


def table(offers: Iterable[Offer]) -> Table:
    """Return how many there are of each kind, scope, fate and reason."""
    counts = Counter((offer.kind, offer.scope, offer.fate, offer.reason) for offer in offers)
    rows = [(count, *what) for what, count in counts.items()]
    return Table(("count", "kind", "scope", "fate", "reason"), rows_of(rows))


def summary(offers: Sequence[Offer]) -> str:
    """Return the counts as a sentence."""
    counts, reasons = counted(offers), refused(offers)
    told = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count) or "nothing"
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"{several(len(offers), 'envelope')}: {told}{f' ({why})' if why else ''}"
