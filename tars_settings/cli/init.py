"""``init``: a new fleet, and what its hosts need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.founding import EXAMPLE_BROKER, Fleet, found, publish_trust, quoted
from tars_settings.cli.render import Output
from tars_settings.core.names import check_service
from tars_settings.errors import SurroundingsError
from tars_settings.sources.environment import PREFIX, Environment, default_instance

PUBLISH_WITHIN_S: Final = 5.0

DirOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Where the keys go; by default the state directory")
]
WriterOption = Annotated[
    str | None, typer.Option("--writer", metavar="NAME", help="The first writer's name; by default this host's")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init", init)


def init(common: Common, directory: DirOption = None, writer: WriterOption = None) -> int:
    """Make a fleet: root key, writer's key, secret key, trust document, and the workers' environment.

    Files are of mode 0600 in a directory of mode 0700. Nothing is ever overwritten.

    Example: tars-settings init --dir ~/fleet
    """
    environment = common.environment()
    home = directory or environment.state_dir
    state_dir = environment.state_dir if directory is None or common.state_dir is not None else directory
    name = check_service(writer or default_instance(), what="writer")
    fleet = found(home.expanduser(), writer=name, state_dir=state_dir.expanduser(), broker=environment.broker)
    trouble = _publish(fleet) if environment.broker is not None else "no broker was named"
    common.out.document(document(fleet, published=not trouble))
    _tell(common.out, fleet, name)
    common.out.note(
        f"The trust document is not published yet ({trouble}); the first push does it."
        if trouble
        else "The trust document is published: workers may start."
    )
    return 0


def _publish(fleet: Fleet) -> str:
    """Publish the trust document; return what was in the way. The fleet is made in any case."""
    given = {name.removeprefix(PREFIX).lower(): value for name, value in fleet.environment.items()}
    try:
        publish_trust(Environment.read(**given), within_s=PUBLISH_WITHIN_S)
    except SurroundingsError as error:
        return str(error)
    return ""


def document(fleet: Fleet, *, published: bool) -> dict[str, object]:
    """Return the JSON document of a new fleet."""
    return {
        "fleet": fleet.fleet,
        "environment": dict(fleet.environment),
        "worker": list(fleet.worker),
        "files": {name: str(path) for name, path in fleet.files.items()},
        "published": published,
    }


def _tell(out: Output, fleet: Fleet, writer: str) -> None:
    files = fleet.files
    out.note(f"The fleet {fleet.fleet} is made; its writer is {writer}.\nA worker's environment needs:\n")
    for name in fleet.worker:
        out.line(f"export {name}={quoted(fleet.environment.get(name, EXAMPLE_BROKER))}")
    for text in (
        f"\nThey are also in {files['worker_environment']}. Copy {files['secret_keys']} to the workers' hosts.",
        f"To push from here:  . {files['operator_environment']}",
        f"To push from another host, copy {files['writer_key']} and {files['trust']} to it.",
        f"Keep offline: {files['root_key']}. Whoever has it is the fleet; only it can add or stop writers.",
    ):
        out.note(text)
