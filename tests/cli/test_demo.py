from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Cli

ACTS = ["start", "push", "secret", "shadow", "refuse", "amnesia", "late"]


@pytest.fixture
def place(cli: Cli, tmp_path: Path) -> Path:
    """Where the demo's temporary directories go: nothing is in it afterwards."""
    place = tmp_path / "tmp"
    place.mkdir()
    cli.environment["TMPDIR"] = str(place)
    return place


def _processes(mark: str) -> list[int]:
    """Return the processes whose environment or command line holds *mark*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                content = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in content:
                found.append(int(entry.name))
    return found


def _nothing_is_left(place: Path) -> None:
    assert list(place.iterdir()) == []
    eventually(lambda: not _processes(str(place)), what="no process is left")


@pytest.mark.parametrize("broker", ["amqtt", "mosquitto"])
def test_the_demo_goes_as_it_should_and_leaves_nothing(cli: Cli, place: Path, broker: str) -> None:
    done = cli("demo", "--json", "--broker", broker)
    assert done.code == 0, done.out + done.err
    document = done.document()
    assert_fits("demo", document)
    assert (document["broker"], document["held"], document["clean"]) == (broker, True, True)
    assert [act["name"] for act in document["acts"]] == ACTS
    facts = {act["name"]: act["facts"] for act in document["acts"]}
    assert all(one["s"] > 0 for one in facts["push"]["after_s"])
    assert facts["secret"]["leaks"] == 0
    assert facts["refuse"]["counted"]["rejected bad-signature"] > 0, "the forgery never arrived"
    assert "less than or equal to 1" in facts["refuse"]["message"]
    assert facts["amnesia"]["topics"] > 5
    assert facts["amnesia"]["left"] < facts["amnesia"]["topics"], "the broker had forgotten nothing"
    assert "sk-robot" not in str(facts)
    _nothing_is_left(place)


def test_people_see_headings_and_tables_within_80_columns(cli: Cli, place: Path) -> None:
    done = cli("demo", "--workers", "3")
    assert done.code == 0, done.out + done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.out
    assert [line[:2] for line in lines if line[:1].isdigit()] == [*(f"{n}." for n in range(1, 8)), "7 "]
    assert lines[-1].startswith("7 of 7 acts went as they should")
    _nothing_is_left(place)


@pytest.mark.parametrize("when", ["*", "*/broker.log", "*/router-kitchen.log", "*/router-kitchen/*/replica.sqlite3"])
@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(cli: Cli, place: Path, strike: signal.Signals, when: str) -> None:
    demo = cli.start("demo", "--broker", "mosquitto")
    try:
        eventually(lambda: any(place.glob(when)), what=when)
        demo.send_signal(strike)
        _, err = demo.communicate(timeout=30)
    finally:
        demo.kill()
    assert demo.returncode == 130, err
    assert "Traceback" not in err
    _nothing_is_left(place)


def test_killed_its_workers_end_by_themselves(cli: Cli, place: Path) -> None:
    demo = cli.start("demo", "--broker", "amqtt")
    try:
        eventually(lambda: any(place.glob("*/stt-worker-*.log")), what="a worker was started")
    finally:
        demo.kill()
        demo.communicate(timeout=30)
    eventually(lambda: not _processes(str(place)), what="workers and broker end with their parent")


def test_a_broker_that_is_not_installed_is_named(cli: Cli) -> None:
    code = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'amqtt' else find(name, *more)\n"
        "from tars_settings.cli import main\n"
        "sys.exit(main())\n"
    )
    command = [*cli.command()[:1], "-c", code, "demo", "--broker", "amqtt"]
    done = subprocess.run(command, env=cli.variables(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "pip install 'tars-settings[demo]'" in done.stderr
