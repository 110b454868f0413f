"""What every command shares: the options that say where and whom to trust, and how a command ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from tars_settings.cli.completion import offer_names
from tars_settings.cli.render import Output
from tars_settings.errors import TarsSettingsError
from tars_settings.sources.environment import Environment

WRITER_KEY_FILE: Final = "writer.key"
INTERRUPTED: Final = 130
WAIT_ALL: Final = "--wait-all"
"""What ``--wait all`` becomes: a flag that takes a word would swallow what follows it elsewhere."""
CONNECT_WITHIN_S: Final = 5.0
"""How long a person waits to hear that the broker can't be reached."""

BrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="The broker's URL [TARS_SETTINGS_BROKER]")
]
FleetOption = Annotated[
    str | None, typer.Option("--fleet", metavar="KEY", help="The fleet's public root key [TARS_SETTINGS_FLEET]")
]
StateDirOption = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", help="The state directory [TARS_SETTINGS_STATE_DIR]")
]
WriterKeyOption = Annotated[
    Path | None, typer.Option("--writer-key", metavar="FILE", help="The writer's key file [TARS_SETTINGS_WRITER_KEY]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout")]


@dataclass(frozen=True)
class Common:
    """The options that every command has, and its output."""

    out: Output
    broker: str | None = None
    fleet: str | None = None
    state_dir: Path | None = None
    writer_key: Path | None = None

    def given(self) -> dict[str, Any]:
        """Return what stands in for ``TARS_SETTINGS_*`` variables, as Environment and Writer take it.

        A writer's key that ``init`` left in the state directory is found without being named.

        Raises:
            ConfigurationError: a variable or an option is malformed; the message names it.
        """
        options = {
            "broker": self.broker,
            "fleet": self.fleet,
            "state_dir": self.state_dir,
            "writer_key": self.writer_key,
        }
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        environment = Environment.read(**given)
        beside = environment.state_dir / WRITER_KEY_FILE
        if environment.writer_key_file is None and beside.is_file():
            given["writer_key"] = beside
        return given

    def environment(self) -> Environment:
        """Return the process's environment with the options over it.

        Raises:
            ConfigurationError: a variable or an option is malformed; the message names it.
        """
        return Environment.read(**self.given())


def in_a_fleet(
    broker: BrokerOption = None,
    fleet: FleetOption = None,
    state_dir: StateDirOption = None,
    writer_key: WriterKeyOption = None,
    as_json: JsonOption = False,
) -> Common:
    """The options of a command that works on a fleet."""
    return Common(Output(as_json=as_json), broker, fleet, state_dir, writer_key)


def on_its_own(as_json: JsonOption = False) -> Common:
    """The options of a command that needs none."""
    return Common(Output(as_json=as_json))


def command(
    app: typer.Typer, name: str, function: Callable[..., int], shared: Callable[..., Common] = in_a_fleet
) -> None:
    """Register *function* as the command *name*: its first argument is the :class:`Common`, its result the exit code.

    The options that commands share are written down once, above, and joined to the function's own in the signature
    that typer reads.
    """
    common_options = inspect.signature(shared, eval_str=True).parameters
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

    def run(**arguments: Any) -> None:
        common = shared(**{key: arguments.pop(key) for key in common_options})
        raise typer.Exit(_ended(common, function, arguments))

    for one in own:
        offer_names(one.annotation)
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *common_options.values())]
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 - mypy knows no such attribute
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__doc__ = function.__doc__
    app.command(name, cls=_Command)(run)


class _Command(TyperCommand):
    """A command that understands ``--wait all``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        known = any(WAIT_ALL in one.opts for one in self.params)
        return super().parse_args(ctx, wait_all_as_flag(args) if known else args)


def wait_all_as_flag(words: list[str]) -> list[str]:
    """Return a command's words with ``--wait all`` (and ``--wait=all``) as one flag.

    >>> wait_all_as_flag(["a", "--wait", "all", "b=1", "--", "--wait", "all"])
    ['a', '--wait-all', 'b=1', '--', '--wait', 'all']
    """
    taken: list[str] = []
    left = list(words)
    while left and left[0] != "--":
        if left[:2] == ["--wait", "all"] or left[0] == "--wait=all":
            del left[: 1 if left[0] == "--wait=all" else 2]
            taken.append(WAIT_ALL)
        else:
            taken.append(left.pop(0))
    return taken + left


def _ended(common: Common, function: Callable[..., int], arguments: dict[str, Any]) -> int:
    try:
        return function(common, **arguments)
    except TarsSettingsError as error:
        complain(common.out, error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):  # the latter at a prompt
        common.out.note("interrupted")
        return INTERRUPTED


def complain(out: Output, error: TarsSettingsError) -> None:
    """Say what went wrong: on stderr, and as a document where one was asked for."""
    out.note(f"tars-settings: {error}")
    kind = type(error).__name__
    out.document({"error": {"kind": kind, "message": str(error), "exit_code": error.exit_code}})
