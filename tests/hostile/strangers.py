"""Whoever can publish and holds no key, as bytes on a socket: no library stops it from doing what is forbidden."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"


def _length(size: int) -> bytes:
    encoded = bytearray()
    while True:
        size, low = divmod(size, 128)
        encoded.append(low | (128 if size else 0))
        if not size:
            return bytes(encoded)


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


class Stranger:
    """A session of MQTT 3.1.1 with a broker on this host."""

    def __init__(self, port: int, client_id: str = "stranger") -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        body = _text("MQTT") + b"\x04\x02\x00\x00" + _text(client_id)
        self._connection.sendall(b"\x10" + _length(len(body)) + body)
        assert self._exactly(4)[3] == 0, "the broker does not want the stranger"

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            more = self._connection.recv(size - len(content))
            assert more, "the broker threw the stranger out"
            content += more
        return content

    def publish(self, messages: Iterable[tuple[str, bytes]], *, retain: bool = True) -> int:
        """Publish at QoS 0, wait until the broker has read all of it, and return how many there were."""
        packets = []
        for topic, payload in messages:
            body = _text(topic) + payload
            packets.append(bytes([0x31 if retain else 0x30]) + _length(len(body)) + body)
        self._connection.sendall(b"".join(packets) + PINGREQ)
        assert self._exactly(2) == PINGRESP
        return len(packets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()
