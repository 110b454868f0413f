"""Servers that do what no honest broker does: scripts that are run for each connection, in threads of their own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

Script = Callable[["Peer"], None]

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_4 = b"\x20\x02\x00\x00"


class Peer:
    """One accepted connection, and the version that its CONNECT asked for (0 before it was read)."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection = connection
        self.number = number
        self.version = 0

    def receive(self) -> tuple[int, bytes]:
        """Read one packet; return its first byte and what follows the length."""
        kind = self._exactly(1)[0]
        size, shift = 0, 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        body = self._exactly(size)
        if kind == 0x10:
            self.version = body[6]
        return kind, body

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            more = self.connection.recv(size - len(content))
            if not more:
                raise ConnectionResetError("the client is gone")
            content += more
        return content

    def send(self, content: bytes) -> None:
        """Send as one write (one record, under TLS)."""
        self.connection.sendall(content)

    def welcome(self) -> None:
        """Read CONNECT and accept it."""
        self.receive()
        self.send(CONNACK_5 if self.version == 5 else CONNACK_4)

    def linger(self) -> None:
        """Read and ignore until the client is gone."""
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass


def publish_packet(topic: str, payload: bytes, *, version: int = 5) -> bytes:
    """Return a PUBLISH of QoS 0, below 128 bytes in all."""
    body = len(topic).to_bytes(2, "big") + topic.encode() + (b"\0" if version == 5 else b"") + payload
    assert len(body) < 128
    return bytes([0x30, len(body)]) + body


class FakeBroker:
    """A loopback server that runs *script* for each connection and counts them."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.versions: list[int] = []
        self.accepted = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a script of the fake broker hangs"

    def _run(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self.accepted += 1
                self._run(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            peer = Peer(connection, self.accepted)
            try:
                self._script(peer)
            finally:
                self.versions.append(peer.version)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
