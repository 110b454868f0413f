"""What this host remembers of its trials: a small sealed file for each service, so that a restart goes on counting.

It is written anew at most a few times in a trial. Lost, or not to be written, it costs a trial its countdown: then the
delta's own time says how long it is under way. Forged, it makes a trial shorter, and never longer than its delta says.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import datetime, timezone

from tars_settings.core.delta import Delta
from tars_settings.core.trial import TrialMark, TrialMarks, parse_marks
from tars_settings.core.wire import encode
from tars_settings.errors import RejectedError, SurroundingsError
from tars_settings.sources.environment import Environment
from tars_settings.trust.seal import seal, unseal

_log = logging.getLogger("tars_settings.sources")

PURPOSE = "trials"


class TrialStore:
    """The file of one service on this host."""

    def __init__(self, environment: Environment, service: str) -> None:
        self._environment = environment
        self._service = service
        self._path = environment.trials_path(service)

    def read(self) -> tuple[TrialMark, ...]:
        """Return what is remembered; nothing where it can't be used, which is logged and raises nothing."""
        if not os.path.lexists(self._path):
            return ()
        from tars_settings.adapters.starts import read_whole  # noqa: PLC0415 - only where there is something to read

        try:
            sealed, key = read_whole(self._path), self._environment.seal_key()
            if sealed is None or key is None:
                return ()
            fleet = self._environment.fleet_id
            return parse_marks(unseal(sealed, key, purpose=PURPOSE, fleet=fleet, service=self._service)).trials
        except (SurroundingsError, RejectedError) as error:
            _log.warning("%s: the marks of trials can't be used: %s", self._service, error)
            return ()

    def write(self, marks: Iterable[TrialMark]) -> None:
        """Remember these, and nothing else; where there are none the file goes.

        Raises:
            SurroundingsError: it can't be written; what was there is still there.
        """
        from tars_settings.adapters.starts import remove, replace_whole  # noqa: PLC0415 - as above

        trials = tuple(marks)
        if not trials:
            remove(self._path)
            return
        key = self._environment.seal_key(create=True)
        if key is not None:
            fleet = self._environment.fleet_id
            content = seal(encode(TrialMarks(1, trials)), key, purpose=PURPOSE, fleet=fleet, service=self._service)
            replace_whole(self._path, content)


def age_s(delta: Delta, wall: datetime) -> float:
    """Return how long ago a delta says that it was made, by the time *wall*: a hint, for either clock may be wrong.

    0 where it says nothing that can be read, or names a time to come.
    """
    try:
        at = datetime.fromisoformat(delta.body.at.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    made = at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)
    return max(0.0, (wall - made).total_seconds())
