"""Whether the broker waits for our acknowledgements before it sends small packets (Nagle's algorithm is on).

Measured from outside, by a client that acknowledges late as most do: the library's own does not (TCP_QUICKACK), so it
would see nothing.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from tars_settings.adapters.address import BrokerAddress

SLOW_S: Final = 0.030
"""A late acknowledgement takes 40 ms on Linux."""
_WITHIN_S: Final = 3.0
_TRIES: Final = 3
_CONNACK, _PUBLISH = 0x20, 0x30


def delay_s(address: BrokerAddress, topic: str, client_id: str) -> float | None:
    """Return the shortest time from SUBSCRIBE to the retained message of a topic; None where it can't be told.

    Only over plain TCP: what a proxy or TLS adds is not the broker's.
    """
    if address.scheme != "mqtt":
        return None
    times = [_once(address, topic, f"{client_id}-{n}") for n in range(_TRIES)]
    known = [one for one in times if one is not None]
    return min(known) if known else None


def _once(address: BrokerAddress, topic: str, client_id: str) -> float | None:
    try:
        with socket.create_connection((address.host, address.port), timeout=_WITHIN_S) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(_connect(address, client_id))
            packets = _Packets(client)
            if next(packets, 0) & 0xF0 != _CONNACK:
                return None
            begun_s = time.monotonic()
            client.sendall(_subscribe(topic))
            if any(kind & 0xF0 == _PUBLISH for kind in packets):
                return time.monotonic() - begun_s
    except (OSError, ValueError, struct.error):
        pass
    return None


class _Packets:
    """The first bytes of the packets that arrive, one by one; what is in them is passed over."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._read = b""
        self._due_s = time.monotonic() + _WITHIN_S

    def __iter__(self) -> _Packets:
        return self

    def __next__(self) -> int:
        while (size := _size(self._read)) is None or len(self._read) < size:
            received = self._client.recv(65536)
            if not received or time.monotonic() > self._due_s:
                raise StopIteration
            self._read += received
        kind, self._read = self._read[0], self._read[size:]
        return kind


def _size(read: bytes) -> int | None:
    """Return the length of the packet that begins here, None where its header is not whole."""
    length = 0
    for position in range(1, min(len(read), 5)):
        length |= (read[position] & 0x7F) << (7 * (position - 1))
        if not read[position] & 0x80:
            return 1 + position + length
    return None


def _connect(address: BrokerAddress, client_id: str) -> bytes:
    flags = 0x02 | (0x80 if address.username is not None else 0) | (0x40 if address.password is not None else 0)
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + struct.pack(">H", 30) + _text(client_id)
    body += _text(address.username) if address.username is not None else b""
    body += _text(address.password) if address.password is not None else b""
    return _packet(0x10, body)


def _subscribe(topic: str) -> bytes:
    return _packet(0x82, b"\x00\x01" + _text(topic) + b"\x00")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _packet(kind: int, body: bytes) -> bytes:
    length, header = len(body), bytes([kind])
    while True:
        length, digit = length >> 7, length & 0x7F
        header += bytes([digit | (0x80 if length else 0)])
        if not length:
            return header + body
