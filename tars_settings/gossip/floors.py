"""Floors as far as they are here: which one is in force, and which part of a greater one's list is missing."""

from __future__ import annotations

from collections.abc import Callable

from tars_settings.core.floor import Floor, FloorMark

NONE = FloorMark()


class Floors:
    """Per (scope, writer) the greatest valid floor; over writers the greatest whose list is complete is in force."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Floor]] = {}
        self._parts: dict[str, dict[str, tuple[frozenset[bytes], bytes]]] = {}
        self._marks: dict[str, FloorMark] = {}

    def mark(self, scope: str) -> FloorMark:
        """Return what the floors of a scope say."""
        return self._marks.get(scope, NONE)

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes of which a floor is held."""
        return tuple(self._held)

    def greatest(self, scope: str) -> Floor | None:
        """Return the greatest valid floor, whether all of its list is here or not."""
        return max(self._held.get(scope, {}).values(), key=lambda one: one.order, default=None)

    def offer(self, floor: Floor) -> bool:
        """Hold a valid floor where it is greater than the held ones; return whether it is."""
        held = self.greatest(floor.body.scope)
        if held is not None and held.order >= floor.order:
            return False
        self._held.setdefault(floor.body.scope, {})[floor.kid] = floor
        self._recount(floor.body.scope)
        return True

    def missing(self, scope: str) -> tuple[str, ...]:
        """Return the hashes of the parts that the greatest floor names and that are not here."""
        floor = self.greatest(scope)
        here = self._parts.get(scope, {})
        return () if floor is None else tuple(part for part in floor.body.segments if part not in here)

    def part(self, scope: str, name: str) -> bytes | None:
        """Return a part of the list by its hash."""
        held = self._parts.get(scope, {}).get(name)
        return None if held is None else held[1]

    def parts(self, scope: str) -> tuple[str, ...]:
        """Return the hashes of the parts of the greatest floor that are here."""
        floor = self.greatest(scope)
        here = self._parts.get(scope, {})
        return () if floor is None else tuple(name for name in floor.body.segments if name in here)

    def take_part(self, scope: str, name: str, digests: frozenset[bytes], payload: bytes) -> None:
        """Hold a part that the greatest floor names."""
        self._parts.setdefault(scope, {})[name] = (digests, payload)
        self._recount(scope)

    def rejudge(self, is_valid: Callable[[Floor], bool]) -> tuple[Floor, ...]:
        """Drop the floors that are no longer valid and return them."""
        dropped = [floor for held in self._held.values() for floor in held.values() if not is_valid(floor)]
        for floor in dropped:
            del self._held[floor.body.scope][floor.kid]
            self._recount(floor.body.scope)
        return tuple(dropped)

    def _recount(self, scope: str) -> None:
        self._drop_unnamed(scope)
        ordered = sorted(self._held.get(scope, {}).values(), key=lambda one: one.order, reverse=True)
        whole = next((floor for floor in ordered if self._is_whole(floor)), None)
        mark = FloorMark() if whole is None else FloorMark(whole.body.gen, whole.body.epoch, self._live(whole))
        if ordered and ordered[0] is not whole:
            awaited = ordered[0]
            mark = FloorMark(
                mark.gen, mark.epoch, mark.live, (awaited.body.gen, awaited.body.epoch), self._live(awaited)
            )
        self._marks[scope] = mark

    def _drop_unnamed(self, scope: str) -> None:
        named = {name for floor in self._held.get(scope, {}).values() for name in floor.body.segments}
        parts = self._parts.get(scope, {})
        for name in parts.keys() - named:
            del parts[name]

    def _is_whole(self, floor: Floor) -> bool:
        return all(name in self._parts.get(floor.body.scope, {}) for name in floor.body.segments)

    def _live(self, floor: Floor) -> frozenset[bytes]:
        here = self._parts.get(floor.body.scope, {})
        inline = frozenset(bytes.fromhex(digest) for digest in floor.body.live)
        return inline.union(*(here[name][0] for name in floor.body.segments if name in here))
