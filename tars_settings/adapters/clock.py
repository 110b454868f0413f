"""The machine's clock and randomness."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from random import SystemRandom


class SystemClock:
    """Fulfils :class:`tars_settings.ports.Clock`.

    Randomness comes from the kernel: a generator with a state would give both sides of a fork the same numbers, and
    all children the same jitter.
    """

    def __init__(self) -> None:
        self._random = SystemRandom()

    def now_s(self) -> float:
        """Return seconds on the monotonic clock."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Return the time of day in UTC."""
        return datetime.now(timezone.utc)

    def random(self) -> float:
        """Return a random number in [0, 1)."""
        return self._random.random()

    def token(self, size: int) -> bytes:
        """Return *size* bytes fit for keys and nonces."""
        return os.urandom(size)
