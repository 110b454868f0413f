"""A network that a test can cut: a TCP proxy on a loopback port, in this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from types import TracebackType

_CHUNK_BYTES = 65536


class Proxy:
    """Forwards each connection to the first of *ports* that accepts it, until it is cut.

    While it is cut, open connections are closed and new ones are hung up on. ``refused`` counts those: that somebody
    met the cut.
    """

    def __init__(self, *ports: int) -> None:
        self._ports: Sequence[int] = ports
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        self.refused = 0
        self.accepted = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Where a worker finds it."""
        return f"mqtt://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close what is open, and let nothing through until healed."""
        with self._lock:
            self._is_cut = True
            self._drop_all()

    def heal(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        # A thread that waits in accept() is not woken by close() alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _listen(self) -> None:
        while True:
            try:
                incoming, _ = self._listener.accept()
            except OSError:
                return
            self._connect(incoming)

    def _connect(self, incoming: socket.socket) -> None:
        outgoing = None if self._is_cut else self._first_that_accepts()
        with self._lock:
            if outgoing is None or self._is_cut:
                self.refused += 1
                for end in (incoming, outgoing):
                    if end is not None:
                        end.close()
                return
            self.accepted += 1
            self._open |= {incoming, outgoing}
        for source, sink in ((incoming, outgoing), (outgoing, incoming)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _first_that_accepts(self) -> socket.socket | None:
        for port in self._ports:
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                connection.settimeout(None)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
        return None

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                sink.sendall(chunk)
        with self._lock:
            self._drop(source)
            self._drop(sink)

    def _drop_all(self) -> None:
        for end in tuple(self._open):
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        if end in self._open:
            self._open.discard(end)
            # close() alone leaves a thread in recv(), and the other side without a word.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
