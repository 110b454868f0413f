"""The tutorial, command by command: what docs/tutorial.rst says to type is typed, and what it shows must come."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import Mosquitto, eventually
from tests.integration.fleets import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.rst"
BLOCK = re.compile(r"^\.\. code-block:: (console|python)\n\n((?:    .*\n|\n)+)", re.MULTILINE)
SECTION = re.compile(r"^(.+)\n(=+|-+)\n", re.MULTILINE)
TOPIC = "system/config/stt-worker/vad_threshold"
DONE_BY_THE_TEST = ("python3 -m venv", ". venv/bin/activate", "pip install", "mosquitto -p")


def steps() -> Iterator[tuple[str, str, list[str]]]:
    """Yield (section, command, what it shows) for each command, and ("", content, []) for the file."""
    text = TUTORIAL.read_text()
    titles = [(match.start(), match[1]) for match in SECTION.finditer(text)]
    for block in BLOCK.finditer(text):
        section = [title for start, title in titles if start < block.start()][-1]
        lines = textwrap.dedent(block[2]).strip().splitlines()
        if block[1] == "python":
            yield section, "", ["\n".join(lines) + "\n"]
            continue
        commands = [n for n, line in enumerate(lines) if line.startswith("$ ")]
        for n, end in zip(commands, [*commands[1:], len(lines)], strict=False):
            yield section, lines[n][2:], lines[n + 1 : end]


class Terminal:
    """Types into a shell of its own directory, whose ``python`` and ``tars-settings`` are ours."""

    def __init__(self, home: Path, broker: Mosquitto) -> None:
        self.home = home
        self.typed: list[str] = []
        self.code = 0
        self.worker: subprocess.Popen[str] | None = None
        shims = home / ".shims"
        shims.mkdir()
        for name, command in (("python", ""), ("tars-settings", "-m tars_settings")):
            (shims / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
            (shims / name).chmod(0o755)
        self.environment = {
            "PATH": f"{shims}:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "TARS_SETTINGS_BROKER": broker.url,
            "TARS_SETTINGS_REPAIR_DELAY_S": "0.3",
        }

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the shell and keep its exit code."""
        self.typed.append(command)
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.code = done.returncode
        return done

    def source(self, command: str) -> None:
        """Take over the variables that a sourced file sets."""
        done = self.run(f"{command} && env -0")
        assert done.returncode == 0, done.stderr
        pairs = (line.partition("=") for line in done.stdout.split("\0") if line)
        self.environment |= {name: value for name, _, value in pairs if name.startswith("TARS_SETTINGS_")}

    def employ(self, command: str) -> None:
        """Start the worker in the place of the one that runs."""
        self.dismiss()
        self.typed.append(command)
        self.worker = subprocess.Popen(
            ["sh", "-c", f"exec env {command}"], cwd=self.home, env=self.environment, stdout=subprocess.PIPE, text=True
        )

    def dismiss(self) -> None:
        """End the worker as Ctrl-C does."""
        if self.worker is not None:
            self.worker.send_signal(2)
            self.worker.wait(20)
            self.worker = None

    def says(self) -> str:
        """Return the worker's next line."""
        assert self.worker is not None and self.worker.stdout is not None  # noqa: PT018
        return self.worker.stdout.readline().rstrip()


@pytest.fixture
def terminal(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Terminal]:
    home = tmp_path / "tutorial"
    home.mkdir()
    terminal = Terminal(home, mosquitto)
    yield terminal
    terminal.dismiss()


def test_the_tutorial_works_as_written(terminal: Terminal, mosquitto: Mosquitto) -> None:
    for section, command, shown in steps():
        step(terminal, mosquitto, section, command, shown)
        if "Without a broker" in section:
            mosquitto.start()
            eventually(lambda: mosquitto.retained(TOPIC), deadline_s=40, what="the worker fills the broker again")
    assert any("push" in line for line in terminal.typed)
    assert any("unset" in line for line in terminal.typed)


def step(terminal: Terminal, mosquitto: Mosquitto, section: str, command: str, shown: list[str]) -> None:
    if not command:
        (terminal.home / "stt.py").write_text(shown[0])
    elif command.startswith(DONE_BY_THE_TEST):
        return
    elif command.startswith(". "):
        terminal.source(command)
    elif command.endswith("python stt.py"):
        if "Without a broker" in section:
            mosquitto.stop()
        terminal.employ(command)
        assert [terminal.says() for _ in shown] == shown
    elif command == "echo $?":
        assert [str(terminal.code)] == shown
    else:
        done = terminal.run(command)
        assert done.returncode == (1 if "loud" in command else 0), f"{command}: {done.stdout}{done.stderr}"
        assert not shown or done.stdout.splitlines() == shown, command
        if "noisy kitchen" in command:
            assert terminal.says() == "['vad_threshold'] at epoch 1"
            assert "stt-worker epoch 1: retained, applied by 1 of 1 asked" in done.stdout + done.stderr
