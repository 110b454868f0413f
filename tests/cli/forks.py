"""Commands as processes that are forked from one which has imported the command line already.

Starting Python and importing everything costs four times what most commands do. Each command is still a process of its
own, with its own arguments, environment, directory and output; ``Cli.start`` and the tests of ``python -m`` start a
real interpreter.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

PACKAGE = Path(__file__).parents[2]
_SERVE = "import sys; sys.argv[0] = 'tars-settings'; from tests.cli.forks import serve; serve(sys.argv[1])"
_REQUEST_BYTES = 1 << 20


class Forks:
    """The process that others are forked from, begun with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._place: tempfile.TemporaryDirectory[str] | None = None

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        streams: tuple[IO[bytes], ...],
        due_s: float,
    ) -> int:
        """Run a command on stdin, stdout and stderr to its end within *due_s* seconds, and return its exit code."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self._address())
            line.settimeout(due_s)
            request = json.dumps([list(words), dict(environment), str(cwd)]).encode()
            socket.send_fds(line, [len(request).to_bytes(4, "big")], [one.fileno() for one in streams])
            line.sendall(request)
            try:
                answer = line.recv(16)
            except TimeoutError as error:
                raise AssertionError(f"{' '.join(words)} did not end within {due_s} s") from error
        assert answer, f"{' '.join(words)} was ended by a signal"
        return int(answer)

    def _address(self) -> str:
        if self._process is None or self._process.poll() is not None or self._place is None:
            self._place = tempfile.TemporaryDirectory()
            address = f"{self._place.name}/forks"
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(PACKAGE)},
                start_new_session=True,
            )
            assert self._process.stdout is not None
            assert self._process.stdout.read(1), "the process that others are forked from did not start"
            atexit.register(self._process.kill)
        return f"{self._place.name}/forks"


def serve(address: str) -> NoReturn:
    """Fork a process for each connection, until this one is killed or its parent is gone."""
    for name in ("tars_settings.cli.app", "tars_settings.adapters.mqtt", "tars_settings.trust.sodium", "rich.table"):
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    listener.settimeout(1.0)
    os.write(1, b"!")
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            line, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            _carry_out(line)
        line.close()
    sys.exit()


def _carry_out(line: socket.socket) -> NoReturn:
    code = 70
    try:
        line.settimeout(None)
        size, descriptors, _, _ = socket.recv_fds(line, 4, 3)
        request = b""
        while len(request) < int.from_bytes(size, "big"):
            request += line.recv(_REQUEST_BYTES)
        words, environment, cwd = json.loads(request)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[1:] = words
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(n, mode, closefd=False) for n, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        from tars_settings.cli import main

        code = main()
    except BaseException:  # noqa: BLE001 - an interpreter prints it too, and goes on to its end
        import traceback

        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        line.send(str(code).encode())
        os._exit(code)
