"""Which settings a listing shows: by type, complexity, writer and age."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tars_settings.cli.described import Described
from tars_settings.cli.moments import Since
from tars_settings.cli.reading import Reading
from tars_settings.core.register import Register
from tars_settings.errors import UsageError
from tars_settings.schema import Entry


@dataclass(frozen=True)
class Selection:
    """What is wanted; None wants everything."""

    type: str | None = None
    complexity: str | None = None
    writer: str | None = None
    since: Since | None = None

    @property
    def asks_schemas(self) -> bool:
        """Whether only a schema can answer."""
        return self.type is not None or self.complexity is not None

    @property
    def asks_writers(self) -> bool:
        """Whether only what somebody wrote can be meant."""
        return self.writer is not None or self.since is not None

    def check(self) -> None:
        """Raise UsageError unless it can mean anything."""
        if self.complexity not in (None, "simple", "advanced"):
            raise UsageError(f"--complexity {ascii(self.complexity)[:40]}: expected simple or advanced")

    def takes(self, reading: Reading, described: Described, register: Register) -> bool:
        """Return whether a value that somebody set is wanted."""
        if self.writer is not None and self.writer not in (reading.writer_name(register), register.delta.stamp.kid):
            return False
        if self.since is not None and not self.since.covers(register.delta):
            return False
        return not self.asks_schemas or self.fits(described.at(register.delta.scope, register.key))

    def fits(self, entries: Iterable[Entry]) -> bool:
        """Return whether any of what is said of a key is wanted."""
        return any(
            self.complexity in (None, one.complexity) and (self.type is None or _is_of_type(one, self.type))
            for one in entries
        )


def _is_of_type(entry: Entry, wanted: str) -> bool:
    """Return whether a type in words is or begins with what is wanted: ``list`` is every list.

    A choice (``one of "a", "b"``) is a ``choice``.
    """
    if wanted == "choice":
        return "one of " in entry.type
    return any(one == wanted or one.startswith(f"{wanted} ") for one in entry.type.split(" or "))
