"""Reading packets in one piece, between paho and the socket."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tars_settings.adapters.mqtt import _Buffered


class Counted:
    """A socket that counts how often the system is asked."""

    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner
        self.asked = 0

    def recv(self, size: int) -> bytes:
        self.asked += 1
        return self.inner.recv(size)


@pytest.fixture
def ends() -> Any:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield Counted(ours), theirs
    ours.close()
    theirs.close()


def test_the_system_is_asked_once_for_all_that_is_there(ends: tuple[Counted, socket.socket]) -> None:
    counted, theirs = ends
    buffered = _Buffered(counted)
    theirs.sendall(b"one packet, and another")
    assert [buffered.recv(1), buffered.recv(1), buffered.recv(8)] == [b"o", b"n", b"e packet"]
    assert buffered.holds()
    assert buffered.recv(100) == b", and another"
    assert not buffered.holds()
    with pytest.raises(BlockingIOError):
        buffered.recv(1)
    assert counted.asked == 1


def test_what_comes_later_is_read_when_somebody_says_that_it_is_there(ends: tuple[Counted, socket.socket]) -> None:
    counted, theirs = ends
    buffered = _Buffered(counted)
    theirs.sendall(b"a")
    assert buffered.recv(5) == b"a"
    theirs.sendall(b"b")
    with pytest.raises(BlockingIOError):
        buffered.recv(5)
    buffered.look_again()
    assert buffered.recv(5) == b"b"


def test_an_end_is_an_end(ends: tuple[Counted, socket.socket]) -> None:
    counted, theirs = ends
    buffered = _Buffered(counted)
    theirs.sendall(b"a")
    theirs.close()
    assert buffered.recv(5) == b"a"
    buffered.look_again()
    assert buffered.recv(5) == b""
    assert buffered.recv(5) == b""
