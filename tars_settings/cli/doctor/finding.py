"""What a look brought: a severity, one sentence, and what to change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["ok", "hint", "warning", "problem"]
Area = Literal["broker", "state", "keys", "environment"]

ORDER: Final[tuple[Severity, ...]] = ("ok", "hint", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """One finding. ``name`` is the same in every release; ``change`` is a command or a line of configuration."""

    area: Area
    name: str
    severity: Severity
    message: str
    change: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether it is worse than a hint."""
        return ORDER.index(self.severity) > ORDER.index("hint")


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity, ok where there is none.

    >>> worst([Finding("broker", "version", "ok", ""), Finding("broker", "nagle", "hint", "")])
    'hint'
    """
    return max((one.severity for one in findings), key=ORDER.index, default="ok")
