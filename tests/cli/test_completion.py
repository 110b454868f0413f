"""Facts of completion: what a shell is offered, by typer's own protocol; no network, no error, no secret."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tars_settings.cli.names import FILE_NAME, known
from tests.cli.room import Room, Stt, Tts, open_room

SECRET = "sk-robot-0451"
NO_BROKER = "mqtt://192.0.2.1:9"


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """A host that read a fleet once."""
    with open_room() as room:
        room.employ(Stt, "pi-1")
        room.employ(Tts, "pi-1")
        room.until_described("stt-worker", "tts-worker")
        room.fleet.push("stt-worker", {"vad_threshold": 0.6, "api_key": SECRET})
        room.fleet.writer.push("_all", {"mood": "cheerful"}, plain=["mood"]).wait(10)
        assert room("list").code == 0
        yield room


def offered(room: Room, line: str, shell: str = "bash") -> list[str]:
    """Return what a shell would offer at the end of a line, broker or not."""
    words = line.split(" ")
    protocol = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    given = {"_TARS_SETTINGS_COMPLETE": f"complete_{shell}", "TARS_SETTINGS_BROKER": NO_BROKER, **protocol}
    done = room(**given)
    assert done.code == 0
    assert done.err == ""
    assert SECRET not in done.out
    assert "cheerful" not in done.out, "values are not offered"
    if shell == "zsh":
        return re.findall(r'"([^"]*)"(?::"[^"]*")?(?=\n|\))', done.out)
    return [word.partition("\t")[0] for word in done.out.splitlines() if word]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_offered_services_and_keys(room: Room, shell: str) -> None:
    assert offered(room, "tars-settings explain stt", shell) == ["stt-worker", "stt-worker@pi-1"]
    assert offered(room, "tars-settings get stt-worker vad", shell) == ["vad_threshold"]
    assert "explain" in offered(room, "tars-settings exp", shell)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tars-settings status ", ["stt-worker", "tts-worker"]),
        ("tars-settings get tts-worker v", ["voice", "volume_percent"]),
        ("tars-settings get stt-worker@pi-1 audio.", ["audio.gain", "audio.rate"]),
        ("tars-settings get stt-worker mo", ["mood"]),
        ("tars-settings get _al", ["_all"]),
        ("tars-settings push stt-worker vad", ["vad_threshold="]),
        ("tars-settings push stt-worker a=1 vad", ["vad_threshold="]),
        ("tars-settings unset tts-worker vol", ["volume_percent"]),
        ("tars-settings explain stt-worker language --instance ", ["pi-1"]),
        ("tars-settings list --reveal api", ["api_key"]),
        ("tars-settings schema show tts", ["tts-worker"]),
        ("tars-settings get no-such-service zz", []),
        ("tars-settings get NOT@A@SCOPE vad", ["vad_threshold"]),
        ("tars-settings list --fleet ed", []),
        ("tars-settings keys grant ops --public v", []),
    ],
)
def test_a_word_is_completed_by_what_it_means(room: Room, line: str, expected: list[str]) -> None:
    found = offered(room, line)
    assert found == (expected or (found and ["_all"]) if line.endswith("_al") else expected)


def test_what_can_not_be_read_offers_nothing_and_says_nothing(room: Room, tmp_path: Path) -> None:
    given = {"TARS_SETTINGS_STATE_DIR": str(tmp_path / "nowhere"), "TARS_SETTINGS_FLEET": "nonsense"}
    protocol = {"COMP_WORDS": "tars-settings get stt", "COMP_CWORD": "2", "_TARS_SETTINGS_COMPLETE": "complete_bash"}
    done = room(**given, **protocol)
    assert (done.code, done.out.strip(), done.err) == (0, "", "")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b"\xff", b'{"stt-worker": 5, "\\u001b[2J": ["a"], "x": ["\\u001b", 5]}']
)
def test_a_damaged_file_of_names_is_none(room: Room, damage: bytes) -> None:
    from tars_settings.sources.environment import Environment
    from tests.cli.room import variables

    with variables(**room.environment()):
        path = Environment.read().fleet_dir / FILE_NAME
        held = path.read_bytes()
        assert b"vad_threshold" in held
        assert SECRET.encode() not in held
        assert path.stat().st_mode & 0o777 == 0o600
        try:
            path.write_bytes(damage)
            names = known()
        finally:
            path.write_bytes(held)
    assert "vad_threshold" in names["stt-worker"], "the replica knows it, too"
    assert "\x1b" not in "".join([*names, *names.get("x", ())]), "nothing that steers a terminal"


def test_the_options_of_the_line_count(room: Room, tmp_path: Path) -> None:
    assert offered(room, f"tars-settings get --state-dir {tmp_path} stt") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_shown_and_are_scripts(room: Room, shell: str) -> None:
    done = room(_TARS_SETTINGS_COMPLETE=f"source_{shell}")
    assert done.code == 0
    assert "_TARS_SETTINGS_COMPLETE=complete_" in done.out or "_TARS_SETTINGS_COMPLETE complete_" in done.out
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed: its script was looked at, and not run")
    read = subprocess.run([found, "-n"], input=done.out, capture_output=True, text=True, timeout=60, check=False)
    assert read.returncode == 0, read.stderr


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/tars-settings.sh"),
        ("zsh", ".zfunc/_tars-settings"),
        ("fish", ".config/fish/completions/tars-settings.fish"),
    ],
)
def test_completion_is_installed_where_each_shell_looks(room: Room, tmp_path: Path, shell: str, file: str) -> None:
    given = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = room("--install-completion", shell, **given)
    assert done.code == 0, done.err
    assert "_TARS_SETTINGS_COMPLETE" in (tmp_path / file).read_text()
    shown = room("--show-completion", shell, **given)
    assert "_TARS_SETTINGS_COMPLETE" in shown.out


def test_bash_itself_completes(room: Room, tmp_path: Path) -> None:
    """The script that is shown, loaded into a bash, offers what this host knows."""
    bash = shutil.which("bash")
    assert bash is not None
    command = shutil.which("tars-settings", path=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")
    assert command is not None
    script = room(_TARS_SETTINGS_COMPLETE="source_bash").out
    program = f"""{script}
COMP_WORDS=(tars-settings get stt-worker vad); COMP_CWORD=3
_tars_settings_completion tars-settings
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, **room.environment(), "PATH": f"{Path(command).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [bash, "--norc", "-c", program.replace("$1", command)],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["vad_threshold"], done.stderr
