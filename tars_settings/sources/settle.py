"""Which deltas a model can live with: the values of the fleet that validate together.

Pure search over what is left out. A delta is taken or left as a whole. First go the deltas whose keys an error names,
then, where an error names none of them (a rule across fields), one at a time: lowest scope first, newest first. What
was left out is then tried again, oldest last-left first, so that nothing is left out that would have fitted. The result
depends on what is said and on the last good snapshot, never on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec
from pydantic import ValidationError

from tars_settings.core.delta import Delta
from tars_settings.provenance.resolution import Placed
from tars_settings.sources.fold import Folded, Folder, Said

T = TypeVar("T")


class Refused(msgspec.Struct, frozen=True):
    """A delta that the model refused whole: which of its keys the errors name (all where none), and what they say.

    ``message`` is pydantic's, without input values.
    """

    delta: Delta
    keys: tuple[str, ...]
    message: str


class Settled(msgspec.Struct, Generic[T], frozen=True):
    """What validated, from which folded values, and what was left out for it."""

    value: T
    folded: Folded
    refused: tuple[Refused, ...] = ()


class Nothing(Exception):  # noqa: N818 - a signal within this package
    """Nothing that the fleet says is the reason: it fails with everything left out, for ``error``."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__("no set of fleet values validates")
        self.error = error


class Settler(Generic[T]):
    """Finds a largest set of deltas that validates.

    *attempt* returns the value for folded fleet values, or a ValidationError without inputs. *held_back* maps digests
    of deltas that are left out in any case to the reason.
    """

    def __init__(
        self,
        said: Said,
        folder: Folder,
        attempt: Callable[[Folded], T | ValidationError],
        held_back: Mapping[bytes, str] = MappingProxyType({}),
    ) -> None:
        self._said = said
        self._folder = folder
        self._attempt = attempt
        self._left: dict[bytes, Refused] = {}
        self._hopeless: set[bytes] = set()
        for delta in said.deltas() if held_back else ():
            self._hold_back(delta, held_back.get(delta.stamp.digest))

    def _hold_back(self, delta: Delta, reason: str | None) -> None:
        keys = tuple(item.key for item in delta.assign if self._folder.steps_of(item.key) is not None)
        if reason is not None and keys:
            self._left[delta.stamp.digest] = Refused(delta, keys, reason)
            self._hopeless.add(delta.stamp.digest)

    def settle(self) -> Settled[T]:
        """Return the value of a largest set of deltas that validates.

        Raises:
            Nothing: it fails even with every delta left out.
        """
        found = self._search()
        if len(self._left) > 1:
            found = self._take_back(found)
        return msgspec.structs.replace(found, refused=tuple(self._left.values())) if self._left else found

    def settle_named(self) -> Settled[T | None]:
        """Return what stands when only deltas that errors name are left out; other errors are not ours to judge."""
        while True:
            folded = self._fold()
            outcome = self._attempt(folded)
            if isinstance(outcome, ValidationError) and self._leave_named(folded, outcome, exactly=True):
                continue
            value = None if isinstance(outcome, ValidationError) else outcome
            return Settled(value, folded, tuple(self._left.values()))

    def opened(self) -> Settled[None]:
        """Return what stands when only deltas with secrets that do not open are left out; nothing is validated."""
        folded = self._fold()
        return Settled(None, folded, tuple(self._left.values()))

    def _search(self) -> Settled[T]:
        while True:
            folded = self._fold()
            outcome = self._attempt(folded)
            if not isinstance(outcome, ValidationError):
                return Settled(outcome, folded)
            if not self._leave_named(folded, outcome) and not self._leave_one(outcome):
                raise Nothing(outcome)

    def _take_back(self, found: Settled[T]) -> Settled[T]:
        for digest in reversed(list(self._left)):
            if digest in self._hopeless:
                continue
            refused = self._left.pop(digest)
            folded = self._folder.fold(self._said.without(self._left))
            outcome = self._attempt(folded)
            if isinstance(outcome, ValidationError) or folded.sealed:
                self._left[digest] = refused
            else:
                found = Settled(outcome, folded)
        return found

    def _fold(self) -> Folded:
        """Return what stands; deltas with a secret that does not open are left out first."""
        while True:
            folded = self._folder.fold(self._said.without(self._left))
            if not folded.sealed:
                return folded
            for digest, (placed, message) in folded.sealed.items():
                self._left[digest] = Refused(placed.register.delta, (placed.key,), message)
                self._hopeless.add(digest)

    def _leave_named(self, folded: Folded, error: ValidationError, *, exactly: bool = False) -> bool:
        named = blame(folded, self._unsets(), error, exactly=exactly)
        for digest, (delta, keys, messages) in named.items():
            self._left[digest] = Refused(delta, tuple(keys), "; ".join(messages))
        return bool(named)

    def _unsets(self) -> Iterable[Placed]:
        """Yield the unsets that are in force, at their places: one of them may have taken away what is missing."""
        for scope, registers in self._said.without(self._left):
            for register in registers:
                found = self._folder.steps_of(register.key) if register.assignment.unset else None
                if found is not None:
                    yield Placed(scope, tuple(one.used for one in found), register)

    def _leave_one(self, error: ValidationError) -> bool:
        from tars_settings.sources.failures import lines_of  # noqa: PLC0415 - only where something does not validate

        for delta in self._said.deltas():
            keys = tuple(item.key for item in delta.assign if self._folder.steps_of(item.key) is not None)
            if delta.stamp.digest not in self._left and keys:
                self._left[delta.stamp.digest] = Refused(delta, keys, "; ".join(text for _, text in lines_of(error)))
                return True
        return False


Blamed = dict[bytes, tuple[Delta, dict[str, None], dict[str, None]]]


def blame(folded: Folded, unsets: Iterable[Placed], error: ValidationError, *, exactly: bool = False) -> Blamed:
    """Return the deltas that the errors name, by digest, each with its keys and the messages.

    An error names the registers at, above and below its place; where there is none (a missing sibling), and unless
    *exactly*, those of the same top-level field.
    """
    from tars_settings.sources.failures import lines_of  # noqa: PLC0415 - as above

    named: Blamed = {}
    everything = [*folded.placed, *unsets]
    for location, message in lines_of(error):
        hit = [one for one in everything if _meets(location, one.path)]
        if not hit and location and not exactly:
            hit = [one for one in everything if one.path[0] == location[0]]
        for one in hit:
            _, keys, messages = named.setdefault(one.digest, (one.register.delta, {}, {}))
            keys[one.key] = None
            messages[message] = None
    return named


def _meets(location: tuple[int | str, ...], path: tuple[str, ...]) -> bool:
    """Return whether an error's location lies at, below or above a path.

    Locations hold labels that are no input names (a union's tag, a validator's name): what does not fit is passed over,
    but only below the first segment, and never at the end.

    >>> _meets(("pet", "cat", "age"), ("pet", "age")), _meets(("audio", "gain"), ("audio", "rate"))
    (True, False)
    >>> _meets(("audio",), ("audio", "gain")), _meets(("words", 3), ("words",)), _meets((), ("words",))
    (True, True, False)
    """
    if not location or location[0] != path[0]:
        return False
    matched = 0
    for part in location:
        if matched < len(path) and part == path[matched]:
            matched += 1
    return matched == len(path) or location[-1] == path[matched - 1]
