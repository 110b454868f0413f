"""``import``: an export, or somebody's state directory, back into this host's replica and onto the broker.

Or an ordinary ``.env`` file, as pushes (see ``envimport``). What a file is, its content says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tars_settings.cli import envimport
from tars_settings.cli.common import CONNECT_WITHIN_S, INTERRUPTED, Common, command
from tars_settings.cli.envimport import EnvOptions
from tars_settings.cli.export import summary, table
from tars_settings.cli.options import ByOption, ModelOption, PlainOption, ReasonOption, SecretOption
from tars_settings.cli.render import several
from tars_settings.cli.visitor import Visitor
from tars_settings.core.names import Scope
from tars_settings.errors import BrokerUnreachableError, UsageError
from tars_settings.gossip.offering import Offer, topics_held
from tars_settings.sources.environment import Environment
from tars_settings.writer import Writer
from tars_settings.writer.archive import Archive, counted, is_export, payloads_in, payloads_of, refused

PathsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="FILE|DIR...", help="An export, a state directory, or a .env file with --service"),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would become of it, and change nothing")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Into this host's replica only")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait for broker or workers")
]
ServiceOption = Annotated[
    str | None, typer.Option("--service", metavar="SERVICE[@INSTANCE]", help="Whose settings a .env file holds")
]
EnvPrefixOption = Annotated[
    str | None, typer.Option("--env-prefix", metavar="PREFIX", help="What its variables begin with, such as STT_")
]
_POLL_S: Final = 0.02


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "import", import_)


def import_(
    common: Common,
    paths: PathsArgument,
    service: ServiceOption = None,
    env_prefix: EnvPrefixOption = None,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    model: ModelOption = None,
    secret: SecretOption = None,
    plain: PlainOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    timeout_s: TimeoutOption = 10.0,
) -> int:
    """Take in exports and state directories, whose signatures decide; or push what a .env file sets.

    Nothing older ever wins: what is in this host's replica or on the broker stays where it is greater.
    Exit code 1 where something was refused, or is not on the broker afterwards.

    Example: tars-settings import fleet-2026-03-01.jsonl
    """
    if service is not None:
        options = EnvOptions(
            str(Scope.parse(service)), env_prefix, model, tuple(secret or ()), plain, reason, by, dry_run, timeout_s
        )
        if len(paths) != 1 or paths[0].is_dir() or is_export(paths[0]) or offline:
            raise UsageError("--service goes with one .env file; exports and state directories hold signed values")
        return envimport.run(common, paths[0], options)
    payloads = [payload for path in paths for payload in _payloads(path, common.environment().fleet_id)]
    return _take_in(common, paths, payloads, _How(dry_run, offline, timeout_s))


def _payloads(path: Path, fleet: str) -> list[bytes]:
    if path.is_dir():
        return payloads_in(path, fleet)
    if not is_export(path):
        raise UsageError(f"{path} is no export and no directory; for a .env file say whose it is: --service SERVICE")
    return payloads_of(path)


@dataclass(frozen=True)
class _How:
    dry_run: bool
    offline: bool
    timeout_s: float


@dataclass
class _Refilled:
    """What the broker holds afterwards: how many topics there are, how many were published, which it does not show."""

    reached: bool = False
    topics: int = 0
    published: int = 0
    missing: list[str] = field(default_factory=list)


def _take_in(common: Common, paths: Sequence[Path], payloads: list[bytes], how: _How) -> int:
    environment = common.environment()
    archive = Archive.of(environment)
    offers = archive.offer(payloads)
    lacking = archive.lacking({offer.scope for offer in offers if offer.scope})
    if not how.dry_run:
        archive.store(environment)
    is_online = not how.dry_run and not how.offline and environment.broker is not None and not archive.peer.trust.is_pin
    try:
        refilled = _refill(common, archive.scopes, how.timeout_s) if is_online else _Refilled()
    except KeyboardInterrupt:
        common.out.note(f"interrupted: {summary(offers)}. What counts is in this host's replica: run it again")
        return INTERRUPTED
    except BrokerUnreachableError as error:
        raise BrokerUnreachableError(
            f"{error}\n{summary(offers)}. What counts is in this host's replica: run it again when the broker is there"
        ) from error
    common.out.document(_document(paths, offers, lacking, how, refilled))
    common.out.table(table(offers))
    _say(common, offers, lacking, how, refilled)
    return 1 if refused(offers) or refilled.missing or archive.peer.trust.is_pin else 0


def _document(
    paths: Sequence[Path], offers: Sequence[Offer], lacking: Sequence[str], how: _How, refilled: _Refilled
) -> dict[str, Any]:
    return {
        "from": [str(path) for path in paths],
        "dry_run": how.dry_run,
        "counts": counted(offers),
        "refused": refused(offers),
        "lacking": list(lacking),
        "broker": {
            "reached": refilled.reached,
            "topics": refilled.topics,
            "published": refilled.published,
            "missing": refilled.missing,
        },
    }


def _say(common: Common, offers: Sequence[Offer], lacking: Sequence[str], how: _How, refilled: _Refilled) -> None:
    out = common.out
    out.note(f"{summary(offers)}{'; nothing was changed' if how.dry_run else ''}")
    for what in lacking:
        out.note(f"lacking: {what}")
    if refilled.reached:
        there = refilled.topics - len(refilled.missing)
        out.note(f"the broker holds {there} of {several(refilled.topics, 'topic')}; {refilled.published} repaired")
        for topic in refilled.missing[:10]:
            out.note(f"the broker does not show {topic}")
    elif not how.dry_run:
        out.note(
            "the broker was not asked: what counts is in this host's replica, and the next command brings it there"
        )


# --- onto the broker --------------------------------------------------------------------------------------------------


def _refill(common: Common, scopes: Sequence[str], timeout_s: float) -> _Refilled:
    """Compare every topic of these scopes with the broker, repair what is worse there, and read all of it back.

    The replicator decides, as in any other session: what the broker holds is merged first.
    """
    given: dict[str, Any] = common.given() | {"repair": "keepers", "repair_delay_s": 0.0}
    environment = Environment.read(**given)
    keyless = environment.writer_key_file is None
    with (
        Writer(read_only=keyless, connect_within_s=CONNECT_WITHIN_S, **given) as writer,
        Visitor(environment) as visitor,
    ):
        for scope in scopes:
            writer.sync(scope, timeout_s)
        due_s = time.monotonic() + timeout_s
        replicator = writer.agent.replicator
        while True:
            while not replicator.quiet and time.monotonic() < due_s:
                time.sleep(_POLL_S)
            wanted = _wanted(writer, scopes)
            held = visitor.retained(tuple(wanted))
            missing = [topic for topic, payload in wanted.items() if held.get(topic) != payload]
            if not missing or time.monotonic() > due_s:
                return _Refilled(True, len(wanted), writer.agent.counters["Repaired"], missing)


def _wanted(writer: Writer, scopes: Sequence[str]) -> Mapping[str, bytes]:
    """Return what the broker should hold, by topic."""
    wanted: dict[str, bytes] = {}
    peer = writer.agent.replicator.peer

    def collect() -> None:
        for text in topics_held(peer, scopes):
            topic = peer.topics.parse(text)
            payload = None if topic is None else peer.desired(topic)
            if payload is not None:
                wanted[text] = payload

    writer.agent.call(collect)
    return wanted
