"""``demo``: the acts, one after the other, for people or as a document."""

from __future__ import annotations

import shutil
import time
from enum import Enum
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from tars_settings.cli.common import Common, command, on_its_own
from tars_settings.cli.demo.acts import ACTS, Act
from tars_settings.cli.demo.interruption import interruption
from tars_settings.cli.demo.processes import available_broker, eventually
from tars_settings.cli.demo.stage import MOST_WORKERS, Stage
from tars_settings.cli.render import Output, draw, printable

MOST_COLUMNS: Final = 80


class BrokerChoice(Enum):
    """What the option takes."""

    amqtt = "amqtt"
    mosquitto = "mosquitto"


WorkersOption = Annotated[
    int, typer.Option("--workers", metavar="N", min=3, max=MOST_WORKERS, help="How many workers play")
]
BrokerKindOption = Annotated[
    BrokerChoice | None, typer.Option("--broker", help="The embedded one, or mosquitto; by default what is installed")
]
PauseOption = Annotated[
    float | None, typer.Option("--pause", metavar="SECONDS", min=0, help="Between acts; by default 1 on a terminal")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", demo, on_its_own)


def demo(
    common: Common, workers: WorkersOption = 5, broker: BrokerKindOption = None, pause_s: PauseOption = None
) -> int:
    """Watch a fleet of a voice robot's workers follow pushes, refuse bad ones, and outlive its broker.

    Everything runs on this host, on loopback and in a temporary directory, and is gone afterwards.

    Example: tars-settings demo
    """
    kind = available_broker(None if broker is None else broker.value)
    play = Play(common.out, _pause_s(common.out, pause_s))
    began_s = time.monotonic()
    with interruption.heeded(), Stage(kind, workers) as stage:
        acts = [play.show(number, act(stage)) for number, act in enumerate(ACTS, start=1)]
        directory, processes = stage.directory, [worker.process for worker in stage.workers]
    left = sum(process.poll() is None for process in processes)
    clean = not left and not directory.exists()
    took_s = time.monotonic() - began_s
    common.out.document(_document(kind, workers, acts, clean=clean, took_s=took_s))
    play.close(acts, clean=clean, took_s=took_s)
    return 0 if clean and all(act.held for act in acts) else 1


def _pause_s(out: Output, wanted_s: float | None) -> float:
    if out.as_json:
        return 0.0
    return wanted_s if wanted_s is not None else 1.0 if out.stdout.isatty() else 0.0


def _document(kind: str, workers: int, acts: list[Act], *, clean: bool, took_s: float) -> dict[str, Any]:
    return {
        "broker": kind,
        "workers": workers,
        "held": clean and all(act.held for act in acts),
        "clean": clean,
        "took_s": round(took_s, 3),
        "acts": [act.document() for act in acts],
    }


class Play:
    """Shows acts to people: a heading, the command, a table, a remark."""

    def __init__(self, out: Output, pause_s: float) -> None:
        self._out = out
        self._pause_s = pause_s
        # Legible at 80 columns; in a pipe too, where rich would not know the width.
        width = min(MOST_COLUMNS, shutil.get_terminal_size((MOST_COLUMNS, 24)).columns)
        self._console = Console(file=out.stdout, width=width, highlight=False)

    def show(self, number: int, act: Act) -> Act:
        """Show an act and return it."""
        if self._out.as_json:
            return act
        self._console.print(Text(f"\n{number}. {act.title}", style="bold"))
        for line in act.commands:
            self._console.print(Text(f"   $ {printable(line)}", style="cyan"))
        draw(self._console, act.table)
        self._console.print(Text(printable(act.remark)))
        if not act.held:
            self._console.print(Text("This is not what was to be shown.", style="bold red"))
        due_s = time.monotonic() + self._pause_s
        eventually(lambda: time.monotonic() >= due_s, "the pause ends", deadline_s=self._pause_s + 1)
        return act

    def close(self, acts: list[Act], *, clean: bool, took_s: float) -> None:
        """Say how it ended."""
        if self._out.as_json:
            return
        held = sum(act.held for act in acts)
        end = "nothing of it is left on this host" if clean else "NOT everything could be cleaned up"
        self._console.print(
            Text(f"\n{held} of {len(acts)} acts went as they should, in {took_s:.0f} s; {end}.", style="bold")
        )
