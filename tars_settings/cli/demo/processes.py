"""Processes of the demo: each in a session of its own, so that Ctrl-C reaches only the demo, which ends them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from tars_settings.cli.demo.interruption import interruption
from tars_settings.errors import BrokerError, ConfigurationError, TarsSettingsError

BrokerKind = Literal["amqtt", "mosquitto"]
DEADLINE_S: Final = 30.0
_GLANCE_S: Final = 0.1
_SBIN: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


class DemoError(TarsSettingsError):
    """Something did not happen that was to be shown."""


def eventually(condition: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S) -> float:
    """Poll until *condition* holds and return after how many seconds it did.

    Raises:
        DemoError: it did not within the deadline.
        KeyboardInterrupt: the demo was asked to end.
    """
    began_s = time.monotonic()
    while not condition():
        interruption.check()
        if time.monotonic() > began_s + deadline_s:
            raise DemoError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.005)
    return time.monotonic() - began_s


def end(process: subprocess.Popen[Any], *, within_s: float = 5.0) -> None:
    """End a process: by closing its stdin, else politely, else for good. Harmless when it has ended."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
    for strike in (process.terminate, process.kill):
        if process.poll() is None:
            strike()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(within_s)


# --- the broker ----------------------------------------------------------------------------------------------------


def available_broker(wanted: BrokerKind | None) -> BrokerKind:
    """Return the broker to use: the wanted one, else the embedded one, else mosquitto.

    Raises:
        ConfigurationError: it is not installed; the message says what to type.
    """
    has: dict[BrokerKind, bool] = {
        "amqtt": importlib.util.find_spec("amqtt") is not None,
        "mosquitto": _mosquitto() is not None,
    }
    choice = wanted or ("amqtt" if has["amqtt"] or not has["mosquitto"] else "mosquitto")
    if not has[choice]:
        cure = {"amqtt": "pip install 'tars-settings[demo]'", "mosquitto": "apt install mosquitto"}[choice]
        raise ConfigurationError(f"the demo needs a broker, and {choice} is not installed; type: {cure}")
    return choice


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A broker process on loopback that keeps nothing on disk. Each start uses the same port."""

    def __init__(self, kind: BrokerKind, directory: Path) -> None:
        self.kind = kind
        self.port = _free_port()
        self.log = directory / "broker.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def protocol(self) -> str:
        """What it speaks: the embedded one knows 3.1.1 only."""
        return "3.1.1" if self.kind == "amqtt" else "5"

    def start(self) -> None:
        """Start it, empty, and return once it accepts connections.

        Raises:
            BrokerError: it ended by itself; the message holds the end of its log.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command(), stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._accepts, f"{self.kind} accepts connections")

    def _command(self) -> list[str]:
        if self.kind == "amqtt":
            return [sys.executable, "-m", "tars_settings.cli.demo.amqtt_broker", str(self.port)]
        config = self._directory / "mosquitto.conf"
        # Started as root it would become another user, who can't read a private directory.
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(f"{user}listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        return [_mosquitto() or "mosquitto", "-c", str(config)]

    def _accepts(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise BrokerError(f"the broker ended by itself: {self.log.read_text(errors='replace')[-500:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it as kill -9 does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(DEADLINE_S)
            if process.stdin is not None:
                process.stdin.close()


# --- workers -------------------------------------------------------------------------------------------------------


class Worker:
    """A worker process and what it told."""

    def __init__(self, service: str, instance: str, environment: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.instance = instance
        self.log = log
        self.started_s = time.monotonic()
        self._told: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "tars_settings.cli.demo.play", service],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def name(self) -> str:
        """The worker, as service@instance."""
        return f"{self.service}@{self.instance}"

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - for the type checker
        for line in self.process.stdout:
            with self._changed:
                self._told.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(
        self, wanted: Callable[[dict[str, Any]], bool], what: str, *, after: int = 0, deadline_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """Return the first thing told that is *wanted*, from number *after* on.

        Raises:
            DemoError: nothing of the kind within the deadline, or the process ended; the message holds its log's end.
        """
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            found[:] = [one for one in self._told[after:] if wanted(one)][:1]
            return bool(found) or not self._reader.is_alive()

        due_s = time.monotonic() + deadline_s
        with self._changed:
            while not self._changed.wait_for(arrived, _GLANCE_S) and time.monotonic() < due_s:
                interruption.check()
        if not found:
            raise DemoError(f"{self.name} did not tell: {what}\n{self.log.read_text(errors='replace')[-1500:]}")
        return found[0]

    def told(self) -> int:
        """Return how many things it told so far: where the next one will stand."""
        with self._changed:
            return len(self._told)

    def look(self) -> dict[str, Any]:
        """Ask the worker what it sees: state, values, refused, counters."""
        after = self.told()
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        return self.wait_for(lambda one: one["event"] == "look", "what it sees", after=after)

    def end(self) -> None:
        """End the process and close its pipes."""
        end(self.process)
        self._reader.join(DEADLINE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
