"""Ctrl-C and polite ends, taken note of at once and acted on only where nothing can be left behind.

A signal that raised wherever it struck could strike between the start of a process and taking note of it, and the
process would outlive the demo. So the first one only asks: whoever waits looks, and raises. A second one raises where
it strikes, for the impatient; while things are cleaned up none does.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Whether the demo was asked to end."""

    def __init__(self) -> None:
        self._asked = 0
        self._shielded = 0

    def check(self) -> None:
        """Raise KeyboardInterrupt if the demo was asked to end."""
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        self._asked += 1
        if self._asked > 1 and not self._shielded:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Take signals from now on, until it is left."""
        self._asked = 0
        before = {one: signal.signal(one, self._ask) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Let no signal raise while something is begun or cleaned up."""
        self._shielded += 1
        try:
            yield
        finally:
            self._shielded -= 1


interruption: Final = Interruption()
"""The process's: signals belong to all of it."""
