"""The canary over all files: whatever a test writes below the run's temporary directories is searched for it.

Every secret that a test pushes contains :data:`MARK`. When the run ends (and before a directory goes), each process
searches what it wrote, and a run in which the mark lies anywhere in clear fails, whatever its tests said. Under xdist
each worker searches its own files and tells the one that they report to.
"""

from __future__ import annotations

import base64
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

MARK: Final = "canary-in-a-mine"
"""Part of every secret that is pushed; nobody writes it into a file but by accident."""
OF_THE_DEMO: Final = "sk-robot-0451"
_VARIABLE: Final = "TESTS_CANARY"
_AT_A_TIME: Final = 1 << 20
_LEAKS: Final = "leaks"

found: Final[set[str]] = set()
searched: Final[list[int]] = [0]


def forms(mark: str) -> tuple[bytes, ...]:
    """Return what gives the mark away: as it is, backwards, in UTF-16, in hex, and in base64 wherever it begins."""
    raw = mark.encode()
    shifted = (base64.b64encode(b"\0" * pad + raw)[4 if pad else 0 : -4] for pad in range(3))
    return tuple(dict.fromkeys((raw, raw[::-1], mark.encode("utf-16-le"), raw.hex().encode(), *shifted)))


FORMS: Final = tuple(form for mark in (os.environ.get(_VARIABLE, MARK), OF_THE_DEMO) for form in forms(mark))


def leaks(directory: Path) -> Iterator[str]:
    """Yield each file below *directory* that holds the mark in any of its forms."""
    # What vanishes meanwhile, or may not be entered, is passed over: os.walk and its like raise nothing.
    for where, _, names in os.walk(directory):
        for path in (Path(where, name) for name in names):
            # Sockets and pipes are no files; copies of our own sources name the marks themselves.
            try:
                hit = path.suffix not in (".py", ".pyc") and stat.S_ISREG(path.lstat().st_mode) and holds(path)
            except OSError:
                continue
            searched[0] += 1
            if hit:
                yield str(path)


def holds(path: Path) -> bool:
    """Return whether a file holds the mark, also where it lies across two reads."""
    longest = max(map(len, FORMS))
    with path.open("rb") as file:
        before = b""
        while chunk := file.read(_AT_A_TIME):
            window = before + chunk
            if any(form in window for form in FORMS):
                return True
            before = window[-longest:]
    return False


_rmtree: Final = shutil.rmtree


def _searching(base: Callable[[], Path | None]) -> Callable[..., Any]:
    """Return what searches a directory before it removes it; not those of earlier runs, which pytest removes."""

    def search_and_remove(path: Any, *more: Any, **options: Any) -> Any:
        directory, own = Path(os.fsdecode(path)), base()
        is_within = own is not None and own in directory.parents
        if is_within or not (directory == own or any(part.startswith("pytest-of-") for part in directory.parts)):
            found.update(leaks(directory))
        return _rmtree(path, *more, **options)

    return search_and_remove


def _base(config: pytest.Config) -> Path | None:
    factory = getattr(config, "_tmp_path_factory", None)
    return None if factory is None else factory._basetemp or factory._given_basetemp


def pytest_configure(config: pytest.Config) -> None:
    """Look into each directory before it goes."""
    shutil.rmtree = _searching(lambda: _base(config))  # type: ignore[assignment]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove directories as ever."""
    shutil.rmtree = _rmtree


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take note of what a worker of xdist found."""
    output = getattr(node, "workeroutput", {})
    found.update(output.get(_LEAKS, ()))
    searched[0] += output.get("searched", 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search what this process wrote; a leak fails the run."""
    base = _base(session.config)
    if base is not None:
        found.update(leaks(base))
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output.update({_LEAKS: sorted(found), "searched": searched[0]})
    elif found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which files hold a secret."""
    if found:
        terminalreporter.section("secrets in files", red=True)
        for path in sorted(found):
            terminalreporter.write_line(path)
    elif searched[0]:
        terminalreporter.write_line(f"canary: {searched[0]} files searched, in none of them a secret")
