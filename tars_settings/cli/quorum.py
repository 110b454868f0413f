"""How many of the asked workers must have applied a push for it to count as done."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from tars_settings.errors import UsageError
from tars_settings.writer import Report

_FORM: Final = re.compile(r"(?:([1-9][0-9]{0,6})|([0-9]{1,3}(?:\.[0-9]{1,3})?)%)", re.ASCII)


@dataclass(frozen=True)
class Quorum:
    """A number of workers, or a share of those that were asked. At least one in any case: nobody proves nothing."""

    number: int | None = None
    percent: float = 100.0

    @classmethod
    def of(cls, text: str) -> Quorum:
        """Return what *text* says: ``3``, or ``90%``.

        Raises:
            UsageError: it says neither.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None or (found[2] is not None and not 0 < float(found[2]) <= 100):
            raise UsageError(f"--quorum {text}: expected a number of workers or a share of those asked, such as 90%")
        return cls(int(found[1])) if found[1] is not None else cls(percent=float(found[2]))

    def needed(self, asked: int) -> int:
        """Return how many of *asked* workers must have applied.

        >>> [Quorum.of("90%").needed(asked) for asked in (0, 10, 11)], Quorum.of("3").needed(2)
        ([1, 9, 10], 3)
        """
        return self.number if self.number is not None else max(1, math.ceil(asked * self.percent / 100 - 1e-9))

    def is_reached(self, report: Report) -> bool:
        """Return whether enough applied."""
        return report.applied >= self.needed(report.asked)
