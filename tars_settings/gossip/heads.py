"""Writers' heads as far as they are here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from tars_settings.core.head import Index, segment_digest

MAX_PENDING: Final = 4
"""Segments per head that wait for the index which names them."""


class Head:
    """One writer's head in a scope: the index in force, the segments that it names, and what each lists."""

    __slots__ = ("index", "listed", "pending", "segments")

    def __init__(self) -> None:
        self.index: Index | None = None
        self.segments: dict[int, bytes] = {}
        self.listed: dict[int, tuple[bytes, ...]] = {}
        self.pending: dict[int, bytes] = {}

    def missing(self) -> tuple[int, ...]:
        """Return the numbers of the segments that the index names and that are not here."""
        if self.index is None:
            return ()
        return tuple(ref.n for ref in self.index.body.segments if ref.n not in self.segments)

    def names(self, n: int, payload: bytes) -> bool:
        """Return whether the index in force names these bytes as segment *n*."""
        refs = () if self.index is None else self.index.body.segments
        return any(ref.n == n and ref.digest == segment_digest(payload) for ref in refs)

    def wait(self, n: int, payload: bytes) -> None:
        """Keep a segment until the index that names it comes; it goes out before that."""
        self.pending[n] = payload
        while len(self.pending) > MAX_PENDING:
            del self.pending[next(iter(self.pending))]

    def clear(self) -> tuple[int, ...]:
        """Forget index and segments, for the index is void; return the numbers that were held."""
        numbers = tuple(self.segments)
        self.index = None
        self.segments, self.listed = {}, {}
        return numbers

    def adopt(self, index: Index) -> Adoption:
        """Put a greater index in force; segments that it names by the same digest stay as they are."""
        before = {} if self.index is None else {ref.n: ref.digest for ref in self.index.body.segments}
        wanted = {ref.n: ref.digest for ref in index.body.segments}
        kept = {n for n in self.segments if wanted.get(n) == before.get(n)}
        dropped = tuple(n for n in self.segments if n not in kept)
        at_hand = [*self.pending.items(), *((n, self.segments[n]) for n in dropped)]
        self.index, self.pending = index, {}
        self.segments = {n: self.segments[n] for n in kept}
        self.listed = {n: self.listed[n] for n in kept if n in self.listed}
        fresh = {n: payload for n, payload in at_hand if n not in kept and wanted.get(n) == segment_digest(payload)}
        return Adoption(tuple(fresh.items()), tuple(n for n in dropped if n not in wanted))


class Adoption(msgspec.Struct, frozen=True):
    """What an index changed: segments that were at hand and are to be read, and numbers that it does not name."""

    fresh: tuple[tuple[int, bytes], ...]
    dropped: tuple[int, ...]


class Heads(dict[tuple[str, str], Head]):
    """Heads by (scope, writer)."""

    def of(self, scope: str, kid: str) -> Head:
        """Return a writer's head in a scope, empty where nothing is held."""
        return self.setdefault((scope, kid), Head())

    def within(self, scope: str) -> Iterator[tuple[str, Head]]:
        """Yield (writer, head) of a scope."""
        for (of, kid), head in tuple(self.items()):
            if of == scope:
                yield kid, head
