"""The import contracts of setup.cfg are kept, and each of them can be broken."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = ROOT / "setup.cfg"

BREACHES = {
    "imports point down": ("core/names.py", "import tars_settings.agent"),
    "adapters do not know each other": ("adapters/clock.py", "import tars_settings.adapters.mqtt"),
    "core, trust and gossip are pure": ("trust/grants.py", "import os"),
    "paho has one door": ("agent/__init__.py", "import paho.mqtt.client"),
    "sqlite3 has two doors": ("adapters/lkg.py", "import sqlite3"),
    "diskcache has one door": ("adapters/replica.py", "import diskcache"),
    "PyNaCl has one door": ("trust/keys.py", "import nacl.signing"),
    "msgspec is where values are declared": ("adapters/clock.py", "import msgspec"),
    "pydantic stays on the pydantic side": ("adapters/memory.py", "import pydantic"),
    "the looks of the command line stay there": ("testing/__init__.py", "import rich"),
    "nothing imports the command line": ("__init__.py", "import tars_settings.cli"),
}
"""A contract's name: a module of the package, and a line that it must not contain."""

SIDEWAYS_AND_HIDDEN = [
    ("imports point down", "join/__init__.py", "import tars_settings.writer"),
    ("imports point down", "errors.py", "import tars_settings.core.names"),
    ("imports point down", "sources/__init__.py", "import tars_settings.settings"),
    ("imports point down", "gossip/__init__.py", "import tars_settings.ports"),
    ("imports point down", "of_no_layer.py", ""),
    ("core, trust and gossip are pure", "core/names.py", "def hidden():\n    import socket"),
    ("core, trust and gossip are pure", "gossip/__init__.py", "if TYPE_CHECKING:\n    import pydantic"),
    ("core, trust and gossip are pure", "errors.py", "import logging"),
]


def _lint(directory: Path) -> subprocess.CompletedProcess[str]:
    # Where it runs comes first on its path: the copy is looked at, not what is installed.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100, check=False)


def _copy(directory: Path) -> Path:
    shutil.copy(CONTRACTS, directory)
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "tars_settings", directory / "tars_settings", ignore=ignored))


def _broken(output: str) -> set[str]:
    verdicts = (line.rsplit(" ", 1) for line in output.splitlines())
    return {name for name, *verdict in verdicts if verdict == ["BROKEN"]}


def _names() -> set[str]:
    config = configparser.ConfigParser()
    config.read(CONTRACTS)
    return {config[section]["name"] for section in config.sections() if section.startswith("importlinter:contract:")}


def test_the_contracts_are_kept() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(_names())} kept, 0 broken" in done.stdout


def test_each_contract_has_its_breach() -> None:
    assert set(BREACHES) == _names()


@pytest.mark.parametrize(
    ("name", "module", "line"), [*((name, *breach) for name, breach in BREACHES.items()), *SIDEWAYS_AND_HIDDEN]
)
def test_a_broken_contract_goes_red(tmp_path: Path, name: str, module: str, line: str) -> None:
    package = _copy(tmp_path)
    with (package / module).open("a") as source:
        source.write(f"\n{line}\n")
    done = _lint(tmp_path)
    assert done.returncode != 0, done.stdout
    assert name in _broken(done.stdout), done.stdout + done.stderr
