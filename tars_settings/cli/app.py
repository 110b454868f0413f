"""The application: its commands, and what stands before them."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from tars_settings._version import __version__
from tars_settings.cli import (
    brokerconfig,
    compromise,
    conflicts,
    diff,
    edit,
    explain,
    export,
    history,
    importing,
    init,
    keys,
    listing,
    look,
    passphrase,
    profile,
    push,
    rollback,
    rootkeys,
    schema,
    search,
    settle,
    status,
    watch,
)
from tars_settings.cli.demo import command as demo
from tars_settings.cli.doctor import command as doctor

app = typer.Typer(
    name="tars-settings",
    help="Live, signed settings for a fleet of workers over MQTT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tars-settings {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what the library does, on stderr")] = False,
    version: Annotated[  # noqa: ARG001 - the callback has done its work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Live, signed settings for a fleet of workers over MQTT."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )


init.register(app)
push.register(app)
edit.register(app)
settle.register(app)
listing.register(app)
look.register(app)
explain.register(app)
search.register(app)
history.register(app)
rollback.register(app)
conflicts.register(app)
diff.register(app)
status.register(app)
watch.register(app)
schema.register(app)
export.register(app)
importing.register(app)
doctor.register(app)
brokerconfig.register(app)
demo.register(app)

_keys = typer.Typer(help="Who may write, who may say so, and what encrypts secrets.", no_args_is_help=True)
keys.register(_keys)
compromise.register(_keys)
_roots = typer.Typer(help="Who may say who writes.", no_args_is_help=True)
rootkeys.register(_roots)
passphrase.register(_keys)
_keys.add_typer(_roots, name="root")
app.add_typer(_keys, name="keys")

_profiles = typer.Typer(help="Named sets of values across services.", no_args_is_help=True)
profile.register(_profiles)
app.add_typer(_profiles, name="profile")


def run() -> int:
    """Run on ``sys.argv`` and return the exit code."""
    try:
        app(prog_name="tars-settings")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0
