"""The crash-loop guard: starts on values that are on probation, and what to run on when they keep ending badly.

A worker that joins leaves a mark: its process and the time. Who leaves in order takes it away; when the values have
proven good, the file goes. So a mark of a process that is no more means that it was killed or crashed on new values.
The third start within a minute runs on the values before, and says so. Reading never writes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from tars_settings.core.lastgood import Start, Starts, parse_starts
from tars_settings.core.wire import encode
from tars_settings.errors import RejectedError, SurroundingsError
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import Kept, usable_lkgs
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.seal import seal, unseal

_log = logging.getLogger("tars_settings.sources")

PURPOSE: Final = "starts"
WINDOW_MS: Final = 60_000
MOST: Final = 3
"""This many starts within the window, the one that asks counted, are a crash loop."""
_KEPT: Final = 16


class StartMarks:
    """The marks of one service on this host. *now_ms* tells the time (milliseconds since 1970)."""

    def __init__(self, environment: Environment, service: str, now_ms: Callable[[], int]) -> None:
        self._environment = environment
        self._service = service
        self._now_ms = now_ms
        self._path = environment.starts_path(service)
        self._own: Start | None = None

    def read(self) -> Starts | None:
        """Return the marks, None where there are none or they can't be used; that is logged, and raises nothing."""
        if not os.path.lexists(self._path):
            return None
        from tars_settings.adapters.starts import read_whole  # noqa: PLC0415 - only where there is something to read

        try:
            sealed, key = read_whole(self._path), self._environment.seal_key()
            if sealed is None or key is None:
                return None
            fleet = self._environment.fleet_id
            return parse_starts(unseal(sealed, key, purpose=PURPOSE, fleet=fleet, service=self._service))
        except (SurroundingsError, RejectedError) as error:
            _log.warning("%s: the marks of starts can't be used: %s", self._service, error)
            return None

    def looping(self) -> str:
        """Return the name of the set that processes keep ending badly on, empty where they don't."""
        held = self.read()
        if held is None:
            return ""
        now_ms = self._now_ms()
        ended = [one for one in held.starts if 0 <= now_ms - one.at_ms < WINDOW_MS and self._is_gone(one)]
        return held.set_name if len(ended) >= MOST - 1 else ""

    def _is_gone(self, start: Start) -> bool:
        # In a container every process has the same number: a mark with ours that we did not make is of the one before.
        if start.pid == os.getpid():
            return start != self._own
        try:
            os.kill(start.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def mark(self, set_name: str) -> None:
        """Note that this process starts on a set; marks on another set are forgotten.

        Raises:
            SurroundingsError: it can't be written.
        """
        held = self.read()
        before = held.starts if held is not None and held.set_name == set_name else ()
        self._own = Start(os.getpid(), self._now_ms())
        self._write(Starts(1, set_name, (*before[-_KEPT:], self._own)))

    def unmark(self) -> None:
        """Take this process's mark away: it ended in order.

        Raises:
            SurroundingsError: it can't be written.
        """
        own, self._own = self._own, None
        held = self.read() if own is not None else None
        if held is None or own not in held.starts:
            return
        left = tuple(one for one in held.starts if one != own)
        if left:
            self._write(Starts(1, held.set_name, left))
        else:
            self._remove()

    def clear(self, set_name: str) -> None:
        """Forget the marks on a set: it has proven good.

        Raises:
            SurroundingsError: they can't be removed.
        """
        held = self.read()
        if held is not None and held.set_name == set_name:
            self._own = None
            self._remove()

    def _remove(self) -> None:
        from tars_settings.adapters.starts import remove  # noqa: PLC0415 - as above

        remove(self._path)

    def _write(self, starts: Starts) -> None:
        from tars_settings.adapters.starts import replace_whole  # noqa: PLC0415 - as above

        key = self._environment.seal_key(create=True)
        if key is not None:
            fleet = self._environment.fleet_id
            replace_whole(self._path, seal(encode(starts), key, purpose=PURPOSE, fleet=fleet, service=self._service))


def previous_good(
    environment: Environment, service: str, looping: str, known: TrustDocument | None = None
) -> Kept | None:
    """Return the newest proven values of this host that are another set than the *looping* one.

    None where there are none, or where that set itself has proven good: then something else is the matter.
    """
    proven = [kept for kept in usable_lkgs(environment, service, known=known) if kept.proven]
    if any(kept.set_name == looping for kept in proven):
        return None
    return proven[0] if proven else None
