"""``status``: what the workers say of themselves, beside what the fleet says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.options import CatchUpOption
from tars_settings.cli.prometheus import exposition
from tars_settings.cli.reading import Followed, read, taken
from tars_settings.cli.redrawing import Redrawing
from tars_settings.cli.report import Picture, Report, is_converged, scope_digests, scope_report
from tars_settings.cli.session import session
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence
from tars_settings.errors import UsageError
from tars_settings.writer import Writer

__all__ = ["Report", "is_converged", "keep_watching", "scope_digests", "scope_report", "status"]

ServiceArgument = Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="One service; by default all")]
LongOption = Annotated[bool, typer.Option("--long", "-l", help="A row for each scope: epoch, digest, versions")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Show it again each time it changes, until Ctrl-C")]
PrometheusOption = Annotated[bool, typer.Option("--prometheus", help="Print metrics in Prometheus' text format")]
GLANCE_S: Final = 0.2


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "status", status)


def status(
    common: Common,
    service: ServiceArgument = None,
    long: LongOption = False,
    watch: WatchOption = False,
    prometheus: PrometheusOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Show who is ready, in step, refusing or shadowing. Exit code 1 unless all that are there are in step.

    Presence is unsigned: a worker's claim. A worker that is offline is shown and holds nobody up. With --prometheus the
    answer is in the metrics, and the exit code 0.

    Example: tars-settings status stt-worker --watch
    """
    scope = None if service is None else Scope.parse(service)
    if scope is not None and (scope.service is None or scope.instance is not None):
        raise UsageError("status takes a service; its instances are shown one by one")
    if prometheus and (watch or long or common.out.as_json):
        raise UsageError("--prometheus prints metrics and nothing else")
    if watch:
        with session(common) as writer:
            return keep_watching(common, writer, scope, long=long, timeout_s=timeout_s)
    presences: list[Presence] = []
    reading = read(
        common,
        scope,
        offline=False,
        timeout_s=timeout_s,
        look=lambda writer: presences.extend(_presences(writer, service)),
    )
    picture = Picture.of(reading, presences)
    if prometheus:
        for line in exposition(picture.document()).splitlines():
            common.out.line(line)
        return 0
    common.out.document(picture.document())
    common.out.table(picture.table(long=long, drawn=common.out.stdout.isatty()))
    _say(common, picture, service)
    return 0 if picture.is_converged else 1


def keep_watching(
    common: Common,
    writer: Writer,
    scope: Scope | None,
    *,
    long: bool,
    timeout_s: float,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Show the status, and again each time it changes, until *is_over*; what the broker's absence changes is said.

    Raises:
        KeyboardInterrupt: Ctrl-C; the connection is closed, and nothing was written anywhere.
    """
    service = None if scope is None else scope.service
    followed = Followed(common, writer, scope)
    shown: Any = None
    was_connected = True
    common.out.compact = True
    states = followed.states(timeout_s)
    with Redrawing(common.out) as screen:
        while not is_over():
            if writer.agent.connected != was_connected:
                was_connected = writer.agent.connected
                common.out.note("connected again" if was_connected else "connection lost; what is shown may be old")
            began_s = time.monotonic()
            picture = Picture.of(taken(writer, states), _presences(writer, service))
            document = picture.document()
            if (seen := _without_ages(document)) != shown:
                shown = seen
                common.out.document(document)
                screen.show(picture.table(long=long, drawn=common.out.stdout.isatty()), picture.verdict(service))
            states = followed.states()
            # Of thousands of workers a look takes a while: most of the time is left to others.
            time.sleep(max(GLANCE_S, 4 * (time.monotonic() - began_s)))
    return 0 if shown is not None and shown["converged"] else 1


def _without_ages(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what the passing of time alone changes, and what each report changes."""
    volatile = ("age_s", "lag_s", "at", "counters")
    workers = [{name: one[name] for name in one if name not in volatile} for one in document["workers"]]
    return {**document, "workers": workers}


def _presences(writer: Writer, service: str | None) -> list[Presence]:
    return sorted(writer.presences(service), key=lambda one: (one.service, one.instance))


def _say(common: Common, picture: Picture, service: str | None) -> None:
    common.out.note(picture.verdict(service))
    for scope, state in picture.reading.states.items():
        if state != "ready":
            common.out.note(f"{scope} could not be caught up with ({state}): what is compared with may be old")
