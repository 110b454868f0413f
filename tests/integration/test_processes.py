"""Facts of processes: fork, multiprocessing, pre-fork servers, two on one directory, signals, ends of interpreters."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import usable_lkgs
from tars_settings.writer import Writer
from tests.brokers import Mosquitto, eventually
from tests.integration.fleets import ROOT, TestFleet


class Running:
    """A process of :mod:`tests.integration.processes`, and what it said so far."""

    def __init__(self, fleet: TestFleet, *mode: str, command: list[str] | None = None, **more: str) -> None:
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "tests.integration.processes", *mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=fleet.environment("pi-3", **more),
        )
        self.told: list[dict[str, Any]] = []
        self.talk: list[str] = []
        self._threads = [
            Thread(target=self._read, daemon=True),
            Thread(target=lambda: self.talk.extend(self.process.stderr or ()), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        self.told.extend(json.loads(line) for line in self.process.stdout or ())

    def says(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until *count* lines with *name* are there, and return them."""
        eventually(lambda: len(self._with(name)) >= count, what=f"{name}: {self.told} {''.join(self.talk[-20:])}")
        return self._with(name)

    def _with(self, name: str) -> list[dict[str, Any]]:
        return [line for line in tuple(self.told) if name in line]

    def end(self) -> int:
        code = self.process.wait(30)
        for thread in self._threads:
            thread.join(10)
        return code


class Scene:
    def __init__(self, fleet: TestFleet, writer: Writer) -> None:
        self.fleet = fleet
        self.writer = writer
        self.running: list[Running] = []

    def start(self, *mode: str, **more: Any) -> Running:
        self.running.append(Running(self.fleet, *mode, **more))
        return self.running[-1]

    def push(self, model: str) -> None:
        self.writer.push("stt-worker", {"model": model}, plain=["model"])

    def states(self) -> list[str]:
        return [one.state for one in self.writer.presences("stt-worker")]


@pytest.fixture
def scene(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Scene]:
    fleet = TestFleet(tmp_path / "fleet", mosquitto.url)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(**fleet.writer_given()))
        made = Scene(fleet, writer)
        stack.callback(lambda: [one.process.kill() for one in made.running])
        made.push("first")
        yield made


def test_a_forked_child_joins_again_at_the_first_use_and_the_parent_goes_on(scene: Scene) -> None:
    """Watches, callbacks and hooks that were registered before the fork go on in the child, too."""
    running = scene.start("fork")
    running.says("has")
    # What the parent stores before the child reads their replica is nothing new to the child.
    assert [line["joined"] for line in running.says("joined")] == [True]
    scene.push("large")
    (child,) = running.says("child")
    assert (child["watched"], child["called"], child["has"]) == ("large", ["large"], "large")
    assert child["noticed"] == {"fleet": ["Applied", "Session"], "live": ["Applied", "Session"]}
    (parent,) = running.says("parent")
    assert (parent["parent"], parent["connected"]) == ("ready", True)
    assert child["pid"] != parent["pid"]
    assert running.end() == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(scene: Scene, method: str) -> None:
    running = scene.start("pool", method)
    assert {line["has"] for line in running.says("has", 2)} == {"first"}
    scene.push("large")
    followers = running.says("follows", 2)
    assert len({line["pid"] for line in followers}) == 2
    (last,) = running.says("exitcode")
    assert (last["exitcode"], last["parent"], running.end()) == (0, "ready", 0)


APPLICATION = """
import json, os
import tars_settings
from tests.integration.processes import Stt, say

live = tars_settings.Fleet().join(Stt)     # in the master: --preload
live.wait_until_ready(20)
say(master=live.current.model)

def application(environ, start_response):
    live.wait_until_ready(20)
    body = json.dumps({"pid": os.getpid(), "model": live.current.model, "connected": live.status.connected}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


def test_gunicorn_with_preload(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    listening = tmp_path / "sock"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"unix:{listening}"]
    command += ["--chdir", str(tmp_path), "application:application"]
    running = scene.start(command=command, PYTHONPATH=f"{ROOT}:{tmp_path}")
    (master,) = running.says("master")
    eventually(lambda: len({ask(listening)["pid"] for _ in range(20)}) == 2, what="both workers answer")
    scene.push("large")
    answers: dict[int, str] = {}

    def both_follow() -> bool:
        answers.update({answer["pid"]: answer["model"] for answer in (ask(listening) for _ in range(20))})
        return len(answers) == 2 and set(answers.values()) == {"large"}

    eventually(both_follow, what="both workers follow")
    assert master["pid"] not in answers
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 0


def ask(listening: Path) -> dict[str, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    eventually(listening.exists)
    connection.sock.settimeout(20)
    connection.sock.connect(str(listening))
    try:
        connection.request("GET", "/")
        told: dict[str, Any] = json.loads(connection.getresponse().read())
        return told
    finally:
        connection.close()


def test_two_processes_share_a_state_directory(scene: Scene) -> None:
    both = [scene.start("two"), scene.start("two")]
    for running in both:
        running.says("has")
    scene.push("large")
    for running in both:
        assert running.says("ended")[0]["ended"] == "", "both could store"
        assert running.end() == 0
    kept = list(usable_lkgs(Environment.read(**scene.fleet.given("pi-3")), "stt-worker"))
    assert [one.proven for one in kept[:1]] == [True]
    assert [one.assignment.set for scope in kept[0].view.scopes for one in scope.registers] == ["large"]


def test_sigterm_that_becomes_an_exit_leaves_in_order(scene: Scene) -> None:
    running = scene.start("terminated")
    running.says("ready")
    eventually(lambda: scene.states() == ["ready"])
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 0
    eventually(lambda: scene.states() == ["offline"])
    assert not list(scene.fleet.state_dir("pi-3").glob("*/starts-*")), "no crash"


def test_sigterm_that_nobody_takes_care_of_ends_it_and_the_will_says_so(scene: Scene) -> None:
    running = scene.start("unprepared")
    running.says("ready")
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == -signal.SIGTERM
    eventually(lambda: scene.states() == ["offline"])


@pytest.mark.parametrize("broker", ["there", "away", "silent"])
def test_an_interpreter_that_ends_while_catching_up_ends_in_silence(scene: Scene, broker: str) -> None:
    more = {"away": {"TARS_SETTINGS_BROKER": "mqtt://127.0.0.1:9"}}.get(broker, {})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        if broker == "silent":
            more = {"TARS_SETTINGS_BROKER": f"mqtt://127.0.0.1:{silent.getsockname()[1]}"}
        running = scene.start("shutdown", **more)
        assert running.end() == 0
    assert running.told, "it had joined"
    expected = [line for line in running.talk if line.startswith("no connection to the broker")]
    assert running.talk == expected
    assert (broker == "away") == bool(expected)


@pytest.mark.parametrize("ending", ["forgetful", "broken"])
def test_an_interpreter_that_ends_leaves_in_order_unless_an_error_ended_it(scene: Scene, ending: str) -> None:
    for mode in ("forgetful", ending):  # the first one stores the values that the second starts on
        running = scene.start(mode)
        assert running.end() == (mode == "broken")
        running.says("ready")
    eventually(lambda: scene.states() == ["offline"])
    marks = list(scene.fleet.state_dir("pi-3").glob("*/starts-*"))
    assert bool(marks) == (ending == "broken"), "an error counts against new values"
