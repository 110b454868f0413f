"""What a person sees who waits for workers: how many answered, and the last of their answers. Nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from tars_settings.cli.render import printable, styled
from tars_settings.writer import Reply, Report

_SHOWN: Final = 8
_ANSWERS: Final = frozenset({"applied", "refused"})


class Waiting:
    """A context in which answers are shown as they come, on a terminal; it is gone when it is left."""

    def __init__(self, what: str, *, stream: TextIO | None = None) -> None:
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._task = self._progress.add_task(printable(what), total=None)
        self._answers: dict[str, Text] = {}
        console = Console(file=stream or sys.stderr, highlight=False)
        self._live = Live(console=console, transient=True, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> Waiting:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_report(self, enough: Callable[[Report], bool]) -> Callable[[Report], bool]:
        """Return a function that shows a report, and says whether it is *enough*."""

        def look(report: Report) -> bool:
            self.show(report.asked, (_line(one) for one in report.replies if one.fate in _ANSWERS))
            return enough(report)

        return look

    def show(self, asked: int, answers: Iterable[tuple[str, str]]) -> None:
        """Show the answers that there are, each a worker's name and what it says."""
        if self._live is None:
            return
        for name, said in answers:
            if name not in self._answers:
                self._answers[name] = Text.assemble(printable(name), " ", styled(said))
        self._progress.update(self._task, total=asked or None, completed=len(self._answers))
        self._live.update(Group(*list(self._answers.values())[-_SHOWN:], self._progress))


def _line(reply: Reply) -> tuple[str, str]:
    return f"{reply.service}@{reply.instance}", reply.fate
