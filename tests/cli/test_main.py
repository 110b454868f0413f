from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tars_settings._version import __version__
from tests.cli.documents import assert_fits
from tests.cli.running import Cli

COMMANDS = ["init", "push", "unset", "edit", "list", "get", "explain", "search", "status", "watch", "demo"]
BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from tars_settings.cli import main
sys.exit(main())
"""


def _without(module: str, cli: Cli, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED.format(name=module), *words]
    return subprocess.run(command, env=cli.variables(), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_it_prints_the_one_line_to_type(cli: Cli, module: str) -> None:
    done = _without(module, cli, "list")
    assert done.returncode == 3
    assert done.stderr == "tars-settings: the command line comes with an extra: pip install 'tars-settings[cli]'\n"
    assert done.stdout == ""


def test_a_missing_module_of_ours_stays_a_traceback(cli: Cli) -> None:
    done = _without("pydantic_settings", cli, "list")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "pip install" not in done.stderr


def test_importing_the_entry_point_imports_nothing_foreign() -> None:
    heavy = ("typer", "rich", "pydantic", "msgspec")
    script = f"import sys, tars_settings.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_told(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"tars-settings {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    assert f"Example: tars-settings {command}" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    "words",
    [
        ("no-such-command",),
        ("push", "stt-worker"),
        ("push", "stt-worker", "vad_threshold"),
        ("push", "stt-worker", "a=1", "a=2"),
        ("push", "stt-worker", "__a=1"),
        ("push", "Not A Service", "a=1"),
        ("push", "stt-worker", "a=1", "--secret", "b"),
        ("push", "stt-worker", "a=1", "--model", "nowhere:Nothing"),
        ("push", "stt-worker", "a=1", "--model", "json:loads"),
        ("unset", "stt-worker", "a", "a"),
        ("edit", "Not A Service"),
        ("edit", "stt-worker", "--no-wait", "--quorum", "2"),
        ("get", "stt-worker", "a", "--reveal", "b"),
        ("status", "stt-worker@pi-3"),
        ("status", "--prometheus", "--watch"),
        ("explain", "_all", "a"),
        ("explain", "stt-worker", "a", "--reveal", "b"),
        ("list", "--since", "yesterday"),
        ("search",),
        ("watch", "Not A Service"),
    ],
)
def test_a_wrong_call_exits_with_2(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli(*words)
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err
    assert "Traceback" not in done.err


def test_a_value_without_its_key_is_not_repeated(cli: Cli) -> None:
    done = cli("push", "stt-worker", "sk-secret-0451")
    assert done.code == 2
    assert "sk-secret-0451" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("push", "stt-worker", "a=1"),
        ("list",),
        ("get", "stt-worker", "a"),
        ("status",),
        ("watch",),
        ("explain", "stt-worker", "a"),
        ("search", "a"),
    ],
)
def test_without_configuration_the_variable_is_named(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli(*words)
    assert done.code == 3
    assert "TARS_SETTINGS_" in done.err
    assert "Traceback" not in done.err


def test_without_a_broker_named_the_variable_is_named(cli: Cli) -> None:
    made = cli("init", "--json").document()
    assert "TARS_SETTINGS_BROKER" not in made["environment"]
    done = cli("push", "stt-worker", "a=1", "--plain", **made["environment"])
    assert done.code == 3
    assert "TARS_SETTINGS_BROKER is not set" in done.err


def test_an_error_is_a_document_too(cli: Cli) -> None:
    done = cli("list", "--json")
    assert_fits("error", done.document())
    assert done.document()["error"]["kind"] == "ConfigurationError"
    assert done.document()["error"]["exit_code"] == done.code == 3


def test_options_stand_in_for_variables(cli: Cli, tmp_path: Path) -> None:
    made = cli("init", "--json", "--dir", str(tmp_path / "fleet")).document()
    done = cli("list", "--offline", "--fleet", made["fleet"], "--state-dir", str(tmp_path / "fleet"), "--json")
    assert done.code == 0, done.err
    assert_fits("list", done.document())
