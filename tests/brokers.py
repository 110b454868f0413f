"""Real mosquitto brokers for tests: started on a free loopback port, killed, restarted, and spoken to from outside.

A missing binary is an error, never a skip: a test that did not run proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_EXTRA_PATH = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
DEADLINE_S = 15.0


def binary(name: str) -> str:
    """Return the path of a program of mosquitto's.

    Raises:
        AssertionError: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_EXTRA_PATH}")
    assert found, f"{name} is needed by the tests and is not installed (Debian: mosquitto, mosquitto-clients)"
    return found


def free_port() -> int:
    """Return a loopback port that was free a moment ago.

    It lies below those that outgoing connections are given, so that a broker that is down for a while gets it back.
    """
    for port in random.SystemRandom().sample(range(10_000, 32_000), 50):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def eventually(condition: Callable[[], object], *, deadline_s: float = DEADLINE_S, what: str = "") -> None:
    """Poll until *condition* holds.

    Raises:
        AssertionError: it did not within the deadline.
    """
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {deadline_s} s: {what or condition}"
        time.sleep(0.005)


class MosquittoClients:
    """``mosquitto_pub`` and ``mosquitto_sub`` pointed at one broker: a voice that shares no code with the library."""

    def __init__(
        self, host: str, port: int, options: Sequence[str] = (), *, protocol: str = "5", markers: str = "tests-marker"
    ) -> None:
        self._where = ["-h", host, "-p", str(port), *options]
        self._protocol = protocol
        self._markers = markers

    def publish(
        self, topic: str, payload: bytes | str = b"", *, retain: bool = True, qos: int = 1, protocol: str = ""
    ) -> None:
        """Publish and wait for the acknowledgement; an empty payload is sent as such."""
        content = payload.encode() if isinstance(payload, str) else payload
        options = ["-t", topic, "-q", str(qos), "-V", _version(protocol or self._protocol), *(["-r"] if retain else [])]
        # -s reads the payload from stdin; it refuses to send nothing, for which there is -n.
        command = [binary("mosquitto_pub"), *self._where, *options, "-s" if content else "-n"]
        done = subprocess.run(command, input=content, capture_output=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def retained(self, topic_filter: str) -> dict[str, bytes]:
        """Return what the broker retains under *topic_filter*, by topic."""
        marker = f"{self._markers}/{os.getpid()}/{time.monotonic_ns()}"
        options = [
            "-t",
            topic_filter,
            "-t",
            marker,
            "-q",
            "0",
            "--retained-only",
            "-F",
            "%x %t",
            "-W",
            str(int(DEADLINE_S)),
        ]
        command = [binary("mosquitto_sub"), *self._where, *options]
        # Into a file: a pipe that nobody reads yet would stop it at the first large message.
        with (
            tempfile.TemporaryFile("w+") as output,
            subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as subscriber,
        ):
            # It ends at the first message that is not retained; until it has subscribed, markers are in vain.
            while subscriber.poll() is None:
                self.publish(marker, b"end", retain=False, qos=0)
                _nap(subscriber)
            _, complaint = subscriber.communicate()
            output.seek(0)
            text = output.read()
        assert subscriber.returncode == 0, complaint
        lines = (line.split(" ", 1) for line in text.splitlines())
        return {topic: bytes.fromhex(payload) for payload, topic in lines if topic != marker}


def _nap(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.05)


def _version(protocol: str) -> str:
    return {"5": "mqttv5", "3.1.1": "mqttv311"}[protocol]


class Mosquitto:
    """One broker on a free loopback port, with files in *directory*.

    *lines* are configuration lines that come after the first listener's (so they apply to it, until one of them opens
    another listener). Each start uses the same port. Without a line of persistence a restarted broker is empty.
    """

    def __init__(self, directory: Path, *lines: str, anonymous: bool = True) -> None:
        self.directory = directory
        self.log = directory / "mosquitto.log"
        self.port = free_port()
        self._lines = lines
        self._anonymous = anonymous
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a worker finds it."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def clients(self) -> MosquittoClients:
        """Programs of mosquitto's own, pointed at it."""
        return MosquittoClients("127.0.0.1", self.port)

    def publish(
        self, topic: str, payload: bytes | str = b"", *, retain: bool = True, qos: int = 1, protocol: str = "5"
    ) -> None:
        """Publish with ``mosquitto_pub``."""
        self.clients.publish(topic, payload, retain=retain, qos=qos, protocol=protocol)

    def retained(self, topic_filter: str) -> dict[str, bytes]:
        """Return what is retained, as ``mosquitto_sub`` sees it."""
        return self.clients.retained(topic_filter)

    def start(self) -> Self:
        """Start it and return once it accepts connections.

        Raises:
            AssertionError: it ended by itself; the message holds its log.
        """
        assert self._process is None, "already running"
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "mosquitto.conf"
        config.write_text("\n".join(self._config()) + "\n")
        with self.log.open("ab") as log:
            command = [binary("mosquitto"), "-c", str(config), "-v"]
            before = log.tell()
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        # Listeners open one after the other; it says "running" behind the last one.
        eventually(lambda: self._accepts() and self._says(b" running", before), what="mosquitto accepts connections")
        return self

    def _config(self) -> list[str]:
        # Started as root it would become another user, who can't read a test's directory.
        user = [f"user {pwd.getpwuid(0).pw_name}"] if os.geteuid() == 0 else []
        access = [f"allow_anonymous {'true' if self._anonymous else 'false'}"]
        return [*user, *access, f"listener {self.port} 127.0.0.1", *self._lines]

    def _accepts(self) -> bool:
        self.assert_alive()
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _says(self, words: bytes, start: int) -> bool:
        return words in self.log.read_bytes()[start:]

    def assert_alive(self) -> None:
        """Raise AssertionError with the broker's log if it is not running."""
        code = self._process.poll() if self._process is not None else "never started"
        log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        assert code is None, f"mosquitto is not running ({code}):\n{log}"

    def kill(self) -> None:
        """End it with kill -9 and wait for its death."""
        process, self._process = self._process, None
        assert process is not None, "not running"
        process.kill()
        process.wait(timeout=DEADLINE_S)

    def stop(self) -> None:
        """End it politely; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=DEADLINE_S)

    def restart(self) -> Self:
        """Stop it politely if it runs, and start it on the same port."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
