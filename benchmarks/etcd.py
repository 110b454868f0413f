"""The little of etcd's gRPC interface that a benchmark needs, by hand: its Python clients are tied to old protobufs.

Messages are those of etcd's rpc.proto (KV.Put, KV.Range, Watch.Watch), field numbers as there.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator


class Etcd:
    """A connection to one server."""

    def __init__(self, port: int) -> None:
        import grpc

        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._put = self._channel.unary_unary("/etcdserverpb.KV/Put", lambda one: one, lambda one: one)
        self._range = self._channel.unary_unary("/etcdserverpb.KV/Range", lambda one: one, lambda one: one)
        self._watch = self._channel.stream_stream("/etcdserverpb.Watch/Watch", lambda one: one, lambda one: one)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self._put(_bytes(1, key) + _bytes(2, value), timeout=10)

    def read(self, prefix: bytes) -> dict[bytes, bytes]:
        """Return all keys under a prefix."""
        answer = self._range(_bytes(1, prefix) + _bytes(2, _after(prefix)), timeout=30)
        return dict(_pair(one) for number, one in _fields(answer) if number == 2 and isinstance(one, bytes))

    def watch(self, prefix: bytes, on_created: Callable[[], None]) -> Iterator[dict[bytes, bytes]]:
        """Yield what is set under a prefix from now on."""
        requests: queue.Queue[bytes] = queue.Queue()
        requests.put(_bytes(1, _bytes(1, prefix) + _bytes(2, _after(prefix))))
        for answer in self._watch(iter(requests.get, None)):
            fields = _fields(answer)
            if any(number == 3 for number, _ in fields):
                on_created()
            events = [one for number, one in fields if number == 11 and isinstance(one, bytes)]
            pairs = [kv for event in events for number, kv in _fields(event) if number == 2 and isinstance(kv, bytes)]
            if pairs:
                yield dict(map(_pair, pairs))


def _after(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _pair(message: bytes) -> tuple[bytes, bytes]:
    found = dict(_fields(message))
    key, value = found[1], found.get(5, b"")
    assert isinstance(key, bytes)
    assert isinstance(value, bytes)
    return key, value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _fields(message: bytes) -> list[tuple[int, bytes | int]]:
    found: list[tuple[int, bytes | int]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            found.append((tag >> 3, message[at : at + size]))
            at += size
        else:
            found.append((tag >> 3, varint()))
    return found
