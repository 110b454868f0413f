"""Carries the session out on a live fleet of ten workers; ``python -m tests.session.run`` writes it as a page."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import DEADLINE_S, Mosquitto, eventually
from tests.cli.running import ROOT, Plant, found_plant
from tests.session.plot import BEFORE, ENVIRONMENTS, STEPS, WORKERS, Step

PAGE = ROOT / "docs" / "operating.rst"
WIDTH = 80
_TITLE = """On call
=======

A fleet of ten workers is alive, and so are its users. You know the :doc:`README's first screen <tutorial>`, and have a
shell on a small board with ``. fleet/env``. This page is a session that was really typed: ``python -m
tests.session.run`` types it and writes the page, and a test types it again.
"""


@dataclass(frozen=True)
class Seen:
    """What a command showed on a terminal of eighty columns, and its exit code."""

    output: str
    code: int


class Terminal:
    """A terminal of eighty columns without colour, in which commands of one fleet are typed."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def type(self, command: str) -> Seen:
        """Type a command and wait for its end."""
        return _Typed(self._plant, command).seen()

    def begin(self, command: str) -> _Typed:
        """Type a command, and go on elsewhere."""
        return _Typed(self._plant, command)


class _Typed:
    def __init__(self, plant: Plant, command: str) -> None:
        self._home = plant.cli.home
        self._screen, theirs = pty.openpty()
        words = shlex.split(command)
        assert words[0] == "tars-settings"
        environment = plant.cli.variables() | {"TERM": "dumb", "COLUMNS": str(WIDTH), "LINES": "60"}
        self._process = subprocess.Popen(
            [*plant.cli.command(*words[1:])],
            env=environment,
            cwd=self._home,
            stdout=theirs,
            stderr=theirs,
            stdin=theirs,
        )
        os.close(theirs)

    def seen(self) -> Seen:
        """Return all that it showed, once it has ended."""
        shown = b""
        while True:
            try:
                piece = os.read(self._screen, 65_536)
            except OSError:  # the other end was closed
                piece = b""
            if not piece:
                break
            shown += piece
        os.close(self._screen)
        code = self._process.wait(DEADLINE_S)
        text = shown.decode().replace("\r\n", "\n").replace(str(self._home), "~")
        return Seen("\n".join(line.rstrip() for line in text.strip("\n").splitlines()), code)


@contextmanager
def fleet(home: Path) -> Iterator[Plant]:
    """A founded fleet of ten ready workers, to which colleagues have pushed a few things."""
    with Mosquitto(home / "broker") as broker:
        plant = found_plant(home, broker, "--writer", "ops-1")
        plant.cli.environment |= {"LOGNAME": "ada"}
        try:
            for service, instances in WORKERS.items():
                for instance in instances:
                    plant.employ(service, instance, **ENVIRONMENTS.get((service, instance), {}))
            plant.awaited()
            for words in BEFORE:
                done = plant.cli(*words)
                assert done.code == 0, done.err
            yield plant
        finally:
            plant.end()


def carry_out(plant: Plant, step: Step) -> list[tuple[str, Seen]]:
    """Type a step's commands; return each with what it showed, and check what must be seen."""
    terminal = Terminal(plant)
    if step.happens:
        plant.broker.kill()
        plant.broker.start()
    if step.beside:
        first = terminal.begin(step.command)
        time.sleep(2.0)  # as a person would; what it shows is checked, whenever it came
        beside = terminal.type(step.beside)
        typed = [(step.command, first.seen()), (step.beside, beside)]
        assert beside.code == 0, beside.output
    else:
        typed = [(step.command, terminal.type(step.command))]
    seen = typed[0][1]
    assert seen.code == step.code, seen.output
    for pattern in step.expects:
        # Tables wrap within their columns: patterns are of words that stand in one cell's line.
        assert re.search(pattern, seen.output, re.DOTALL), (
            f"{pattern!r} is not in what {step.command} showed:\n{seen.output}"
        )
    for _, one in typed:
        drawn = [line for line in one.output.splitlines() if line.startswith(" ")]
        assert max(map(len, drawn), default=0) <= WIDTH, one.output
        assert "sk-4711" not in one.output
    return typed


def settled(plant: Plant) -> bool:
    """Return whether every worker that can be is in step: what is typed next shows a fleet at rest."""
    return all(one.look()["state"] == "ready" for one in plant.workers)


def page(steps: Iterator[tuple[Step, list[tuple[str, Seen]]]]) -> str:
    """Return the session as a page."""
    parts = [_TITLE]
    for step, typed in steps:
        if step.heading:
            parts.append(f"{step.heading}\n{'-' * len(step.heading)}\n")
        parts.append("\n".join(textwrap.wrap(step.text, 120)) + "\n")
        lines = []
        for command, seen in typed:
            lines.append(f"$ {command}")
            for line in seen.output.splitlines():
                # A sentence is cut where the terminal ends.
                lines += [line] if len(line) <= WIDTH else textwrap.wrap(line, WIDTH)
            lines += ["$ echo $?", str(seen.code)] if seen.code else []
        parts.append(".. code-block:: console\n\n" + textwrap.indent("\n".join(lines), "    ") + "\n")
    return "\n".join(parts)


def skeleton(text: str) -> str:
    """Return a page without what the commands showed."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("    ") or line.startswith("    $ "))


def played(plant: Plant) -> Iterator[tuple[Step, list[tuple[str, Seen]]]]:
    for step in STEPS:
        eventually(lambda: settled(plant), what="the fleet is at rest")
        yield step, carry_out(plant, step)


def main() -> int:
    """Play it and write the page."""
    with tempfile.TemporaryDirectory() as made, fleet(Path(made)) as plant:
        PAGE.write_text(page(played(plant)))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
