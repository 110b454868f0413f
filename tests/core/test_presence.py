"""Facts of reports: what a worker that refuses thousands of deltas still says."""

from __future__ import annotations

from typing import Any

import pytest

from tars_settings.core.presence import (
    MAX_REFUSED,
    MAX_REFUSED_BYTES,
    MORE_REFUSED,
    NOT_LISTED,
    Presence,
    RefusalReport,
    first_of,
    lists_all,
    refusal_of,
)
from tars_settings.core.wire import encode

DIGEST = "ab" * 32
SMALL = [RefusalReport("stt-worker", n, f"{n:064x}", ("vad",), "too large") for n in range(5000)]
LARGE = [
    RefusalReport("stt-worker", n, f"{n:064x}", tuple(f"k{key}{'x' * 120}" for key in range(64)), "\0" * 500)
    for n in range(9)
]


def test_of_small_refusals_a_number_is_listed_the_first() -> None:
    assert list(first_of(SMALL)) == SMALL[:MAX_REFUSED]
    assert list(first_of(SMALL[:3])) == SMALL[:3]


def test_of_large_refusals_as_many_as_fit_and_one_always_does() -> None:
    found = first_of(LARGE)
    assert list(found) == LARGE[:1]
    assert sum(len(encode(one)) for one in found) <= MAX_REFUSED_BYTES < sum(len(encode(one)) for one in LARGE[:2])


def test_what_just_fits_is_listed() -> None:
    size = len(encode(LARGE[0]))
    rest = RefusalReport("s", 1, DIGEST, (), "")
    exact = RefusalReport("s", 1, DIGEST, (), "y" * (MAX_REFUSED_BYTES - size - len(encode(rest))))
    assert list(first_of([LARGE[0], exact])) == [LARGE[0], exact]
    over = RefusalReport("s", 1, DIGEST, (), exact.message + "y")
    assert list(first_of([LARGE[0], over, rest])) == [LARGE[0]], "nothing after what did not fit: the first are meant"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"refused": (RefusalReport("s", 1, DIGEST, (), "no"),)}, "no"),
        ({"refused": (RefusalReport("s", 1, DIGEST, (), ""),)}, ""),
        ({"refused": (RefusalReport("s", 1, "cd" * 32, (), "no"),)}, None),
        ({"acked": {DIGEST: "refused"}}, None),
        ({"acked": {DIGEST: "refused"}, "notes": (f"1 {MORE_REFUSED}",)}, NOT_LISTED),
        ({"acked": {DIGEST: "applied"}, "notes": (f"1 {MORE_REFUSED}",)}, None),
        ({"notes": (f"1 {MORE_REFUSED}",)}, None),
    ],
)
def test_a_refusal_is_said_where_it_is_listed_or_acknowledged_without_room(said: dict[str, Any], why: str) -> None:
    presence = Presence(1, "s", "i", "ready", **said)
    assert refusal_of(presence, DIGEST) == why
    assert lists_all(presence) is ("notes" not in said)
