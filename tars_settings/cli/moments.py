"""Moments as people type them: an epoch, a while ago, or a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from tars_settings.core.delta import Delta
from tars_settings.errors import UsageError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WHILE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)


@dataclass(frozen=True)
class Since:
    """A mark: what was written at or after it is newer. Exactly one of the two is set."""

    epoch: int | None = None
    at: datetime | None = None

    @classmethod
    def parse(cls, text: str, now: datetime) -> Since:
        """Return the mark that *text* names: ``41``, ``2h`` or an RFC 3339 time (UTC where it names no zone).

        >>> now = datetime(2026, 1, 2, tzinfo=timezone.utc)
        >>> Since.parse("41", now).epoch, str(Since.parse("2h", now).at), str(Since.parse("2026-01-01T10:00Z", now).at)
        (41, '2026-01-01 22:00:00+00:00', '2026-01-01 10:00:00+00:00')

        Raises:
            UsageError: it is none of these.
        """
        if text.isascii() and text.isdigit():
            return cls(epoch=int(text))
        found = _WHILE.fullmatch(text)
        try:
            if found is not None:
                return cls(at=now - timedelta(**{_UNITS[found[2]]: float(found[1])}))
            return cls(at=moment(text))
        except (ValueError, OverflowError):
            raise UsageError(
                f"{ascii(text)[:80]}: expected an epoch (41), a while ago (90s, 30m, 2h, 7d) or a time "
                "(2026-01-31T08:00Z)"
            ) from None

    def covers(self, delta: Delta) -> bool:
        """Return whether a delta was written at or after the mark; by time, as its writer's clock says."""
        if self.epoch is not None:
            return delta.stamp.epoch >= self.epoch
        try:
            return self.at is not None and moment(delta.body.at) >= self.at
        except ValueError:  # what a writer says of the time is for people, and may be nothing
            return False


def moment(text: str) -> datetime:
    """Return an RFC 3339 time; UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    # Python 3.10 reads no Z.
    parsed = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=timezone.utc)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


def span(seconds: float) -> str:
    """Return a while in the largest whole unit, for people.

    >>> span(7), span(90), span(7300), span(-3)
    ('7 s', '1 min', '2 h', '0 s')
    """
    whole = max(0, int(seconds))
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {word}"
    return f"{whole} s"
