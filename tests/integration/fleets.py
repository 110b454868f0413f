"""A fleet for tests: root, writer, environment, and workers in this process or as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from threading import Thread
from typing import Any

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.records import TrustRow
from tars_settings.core.wire import encode
from tars_settings.trust.document import TrustBody, Writer, follow, pin
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_text
from tests.brokers import eventually

ROOT = Path(__file__).resolve().parents[2]


class TestFleet:
    """Keys and a trust document of a fleet of its own, and what its members' environments hold."""

    __test__ = False

    def __init__(self, directory: Path, broker: str, *, repair_delay_s: float = 0.3, audit_s: float = 600.0) -> None:
        self.directory = directory
        self.broker = broker
        self.repair_delay_s = repair_delay_s
        self.audit_s = audit_s
        self.root = SigningKey("root", "root", os.urandom(32))
        self.writer = SigningKey("writer", "ops", os.urandom(32))
        self.secret = SecretKey("robot", os.urandom(32))
        self.trust = self._signed(TrustBody(1, 1, (self.root.public,), 1, (self._entry(self.writer),)))
        self.key_file = directory / "ops.key"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        descriptor = os.open(self.key_file, os.O_CREAT | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.writer.to_text())
        self._found("ops")

    @staticmethod
    def _entry(key: SigningKey) -> Writer:
        return Writer(key.name, key.public, ("*", "_all"))

    def _signed(self, body: TrustBody) -> bytes:
        return self.root.sign("trust", self.root.kid, encode(body))

    @property
    def id(self) -> str:
        """The fleet's id."""
        return self.root.kid

    def _found(self, name: str) -> None:
        """Put the trust document into a member's replica, as ``init`` does."""
        document = follow(pin(self.root.public), self.trust)
        path = self.state_dir(name) / self.id / "replica.sqlite3"
        for directory in (self.state_dir(name), path.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replica = SqliteReplica(path)
        replica.apply([TrustRow(document.version, document.digest, document.raw)])
        replica.close()

    def state_dir(self, name: str) -> Path:
        """Where a member keeps its state."""
        return self.directory / f"state-{name}"

    def given(self, name: str) -> dict[str, Any]:
        """Return the arguments of join() and Fleet for a member."""
        return {
            "broker": self.broker,
            "fleet": fleet_text(self.root.public),
            "state_dir": self.state_dir(name),
            "instance": name,
            "secret_keys": self.secret.to_text(),
            "repair_delay_s": self.repair_delay_s,
            "audit_s": self.audit_s,
        }

    def writer_given(self) -> dict[str, Any]:
        """Return the arguments of Writer."""
        return {**self.given("ops"), "writer_key": self.key_file}

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """Return a member's environment variables, on top of what a process needs to run here."""
        given = {f"TARS_SETTINGS_{key.upper()}": str(value) for key, value in self.given(name).items()}
        if name == "ops":
            given["TARS_SETTINGS_WRITER_KEY"] = str(self.key_file)
        plain = {
            key: value
            for key, value in os.environ.items()
            if key in ("PATH", "HOME", "LANG", "TARS_SETTINGS_REAL_INPUT")
        }
        return {**plain, "PYTHONPATH": str(ROOT), **given, **more}


class WorkerProcess:
    """``python -m tests.integration.worker`` as a process; its JSON lines are read by a thread."""

    def __init__(
        self, fleet: TestFleet, service: str, instance: str, *, dotenv: Path | None = None, **more: str
    ) -> None:
        command = [sys.executable, "-m", "tests.integration.worker", service, *([str(dotenv)] if dotenv else [])]
        self.service = service
        self.instance = instance
        self.lines: deque[dict[str, Any]] = deque()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=fleet.environment(instance, **more),
        )
        self.talk: list[str] = []
        self._threads = [Thread(target=self._read, daemon=True), Thread(target=self._read_talk, daemon=True)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def _read_talk(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.talk.append(line.rstrip())

    @property
    def values(self) -> dict[str, Any]:
        """The values of its newest snapshot."""
        told = [line["values"] for line in tuple(self.lines) if "values" in line]
        return told[-1] if told else {}

    @property
    def states(self) -> list[str]:
        """The states that it went through."""
        return [line["state"] for line in tuple(self.lines) if "state" in line]

    def until(self, **wanted: Any) -> None:
        """Wait until its snapshot holds these values."""
        eventually(
            lambda: self.assert_alive() and all(self.values.get(key) == value for key, value in wanted.items()),
            what=f"{self.service}@{self.instance} has {sorted(wanted)}",
        )

    def until_ready(self) -> None:
        """Wait until it is ready."""
        eventually(lambda: self.assert_alive() and self.states[-1:] == ["ready"], what=f"{self.service} is ready")

    def assert_alive(self) -> bool:
        assert self._process.poll() is None, "\n".join(["the worker ended:", *self.talk[-30:]])
        return True

    def end(self) -> int:
        """Let it leave politely, and return its exit code."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        return self._process.wait(timeout=20)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait(timeout=20)
