"""Code run as an ordinary user, for whom modes and read-only directories mean something (not for root)."""

from __future__ import annotations

import ctypes
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

_NOBODY = 65534


@contextmanager
def ordinary_dir() -> Iterator[Path]:
    """Yield a directory of mode 0700 that belongs to the user that :func:`as_ordinary_user` runs as."""
    directory = Path(tempfile.mkdtemp(prefix="tars-settings-test-"))
    try:
        if os.geteuid() == 0:
            os.chown(directory, _NOBODY, _NOBODY)
        yield directory
    finally:
        for path, _, _ in os.walk(directory):
            Path(path).chmod(0o700)
        rmtree(directory)


def as_ordinary_user(step: Callable[[], object]) -> None:
    """Run *step* in a child process that is not root.

    Raises:
        AssertionError: it raised; the child's traceback is on stderr.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(_NOBODY, _NOBODY, _NOBODY)
                os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            step()
            code = 0
        except BaseException:  # noqa: BLE001 (a child of fork must end here, whatever happened)
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it failed as an ordinary user"


_CAPABILITIES_V3 = 0x20080522
_PASSES_MODES = 0b1110
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER."""


@contextmanager
def modes_matter() -> Iterator[None]:
    """Take from root, in this thread and those that it starts, what lets it pass modes; harmless for other users."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0, os.strerror(ctypes.get_errno())
    lowered = (ctypes.c_uint32 * 6)(*held)
    lowered[0] &= ~_PASSES_MODES & 0xFFFFFFFF
    assert libc.capset(header, lowered) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0, os.strerror(ctypes.get_errno())
