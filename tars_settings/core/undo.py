"""From what is set now to what was set then: which keys differ, and the pushes that make it so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from tars_settings.core.delta import MAX_ASSIGNMENTS, MAX_FANOUT_BYTES, Assignment, Delta
from tars_settings.core.names import overlap
from tars_settings.core.past import Moment
from tars_settings.core.register import Register, effective
from tars_settings.core.wire import MAX_ENVELOPE_BYTES, encode

_ENVELOPE_BYTES: Final = 2048
"""More than an envelope has besides its assignments."""
_OVER_BYTES: Final = 80
"""What naming the replaced delta adds to an assignment."""


class Change(msgspec.Struct, frozen=True, eq=False):
    """A key that says something else now than then; None where it is not set."""

    key: str
    now: Register | None
    then: Register | None


class Plan(msgspec.Struct, frozen=True, eq=False):
    """What differs, the pushes that undo it (in order), and the keys that are left since somebody set them later."""

    changes: tuple[Change, ...]
    pushes: tuple[tuple[Assignment, ...], ...]
    left: tuple[Register, ...] = ()


def is_same(first: Register | None, second: Register | None) -> bool:
    """Return whether two registers say the same: one JSON value, or one ciphertext.

    >>> from tars_settings.core.delta import Assignment
    >>> one, two = (Register("a", Assignment("a", set=value), None) for value in (1, True))
    >>> is_same(one, one), is_same(one, two), is_same(one, None)
    (True, False, False)
    """
    if first is None or second is None:
        return first is second
    return _content(first.assignment) == _content(second.assignment)


def _content(item: Assignment) -> bytes:
    return encode(msgspec.structs.replace(item, over=msgspec.UNSET))


def differences(now: Iterable[Register], then: Iterable[Register]) -> tuple[Change, ...]:
    """Return, by key, where the effective registers of two states differ; tombstones and covered keys say nothing."""
    here, there = ({one.key: one for one in effective(state)} for state in (now, then))
    keys = sorted(here.keys() | there.keys())
    found = (Change(key, here.get(key), there.get(key)) for key in keys)
    return tuple(one for one in found if not is_same(one.now, one.then))


def back_to(now: Mapping[str, Register], then: Moment) -> Plan:
    """Return how a scope comes back to a moment."""
    changes = differences(now.values(), then.winners.values())
    return Plan(changes, pushes_of(changes, effective(then.winners.values())))


def without(delta: Delta, now: Mapping[str, Register], before: Moment) -> Plan:
    """Return how the effect of one delta is taken back, where nobody set its keys later."""
    keys = [item.key for item in delta.assign]
    left = [one for one in now.values() if one.delta.stamp > delta.stamp and _touches(one.key, keys)]
    later = [one.key for one in left]

    def concerned(registers: Iterable[Register]) -> list[Register]:
        return [one for one in registers if _touches(one.key, keys) and not _touches(one.key, later)]

    here, there = concerned(now.values()), concerned(before.winners.values())
    changes = differences(here, there)
    return Plan(changes, pushes_of(changes, effective(there)), tuple(left))


def _touches(key: str, others: Iterable[str]) -> bool:
    return any(overlap(key, other) for other in others)


def pushes_of(changes: Iterable[Change], then: Iterable[Register]) -> tuple[tuple[Assignment, ...], ...]:
    """Return the assignments that carry out *changes*, as the pushes that they need: one, but for rare cases.

    Within a push no key lies below another, so what is to stand below a key that is set as a whole comes after it, with
    all that stood there *then*; and a push has its limits.
    """
    return in_pushes({one.key: _assignment(one.key, one.then) for one in changes}, then)


def in_pushes(items: Mapping[str, Assignment], then: Iterable[Register] = ()) -> tuple[tuple[Assignment, ...], ...]:
    """Return assignments by key as the pushes that they need, as :func:`pushes_of` says."""
    wanted = dict(items)
    wanted = {key: item for key, item in wanted.items() if not (item.unset and _above(key, wanted.__contains__))}
    for one in then:
        if one.key not in wanted and _above(one.key, wanted.__contains__):
            wanted[one.key] = _assignment(one.key, one)
    levels: dict[int, list[Assignment]] = {}
    for key, item in sorted(wanted.items()):
        levels.setdefault(len(_above(key, wanted.__contains__)), []).append(item)
    return tuple(push for _, items in sorted(levels.items()) for push in _fitting(items))


def _above(key: str, is_wanted: Callable[[str], bool]) -> list[str]:
    parts = key.split(".")
    return [above for n in range(1, len(parts)) if is_wanted(above := ".".join(parts[:n]))]


def _assignment(key: str, register: Register | None) -> Assignment:
    if register is None:
        return Assignment(key, unset=True)
    return Assignment(key, set=register.assignment.set, secret=register.assignment.secret)


def _fitting(items: Iterable[Assignment]) -> Iterator[tuple[Assignment, ...]]:
    push: list[Assignment] = []
    size = _ENVELOPE_BYTES
    for item in items:
        more = len(encode(item)) + _OVER_BYTES
        full = len(push) == MAX_ASSIGNMENTS or size + more > MAX_ENVELOPE_BYTES
        if push and (full or (size + more) * (len(push) + 1) > MAX_FANOUT_BYTES):
            yield tuple(push)
            push, size = [], _ENVELOPE_BYTES
        push.append(item)
        size += more
    if push:
        yield tuple(push)
