"""A table that is shown again: redrawn in place on a terminal, one block a change in a pipe."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tars_settings.cli.render import Output, Table, drawing, printable


class Redrawing:
    """Shows tables one after the other; the last one stays on the screen."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live: Live | None = None
        self._blocks = 0

    def __enter__(self) -> Redrawing:
        if self._out.stdout.isatty() and not self._out.as_json:
            console = Console(file=self._out.stdout, highlight=False)
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, table: Table, verdict: str) -> None:
        """Show a table and what it comes to."""
        if self._live is not None:
            self._live.update(Group(drawing(table), Text(printable(verdict))), refresh=True)
            return
        if self._blocks:
            self._out.line("")
        self._blocks += 1
        self._out.table(table)
        self._out.note(verdict)
