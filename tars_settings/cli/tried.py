"""Trials in words: how long, what shows meanwhile, and what to type.

When a trial is over each worker says for itself, in its presence. Here, where only deltas are seen, it is an estimate
by the time that the delta names and this host's clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from tars_settings.core.delta import MAX_TRIAL_S, Delta
from tars_settings.core.presence import Presence, TrialReport
from tars_settings.core.register import Register, used
from tars_settings.errors import UsageError
from tars_settings.sources.trials import age_s

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", re.ASCII)


def seconds(text: str, option: str) -> int:
    """Return the whole seconds of a span such as ``90s``, ``10m``, ``1.5h`` or ``2d``; a bare number is seconds.

    >>> seconds("10m", "--bake"), seconds("1.5h", "--bake"), seconds("45", "--bake")
    (600, 5400, 45)

    Raises:
        UsageError: it is none, below a second, or above a week.
    """
    found = _SPAN.fullmatch(text)
    whole = round(float(found[1]) * _UNITS[found[2] or "s"]) if found is not None else 0
    if not 1 <= whole <= MAX_TRIAL_S:
        raise UsageError(f"{option} {ascii(text)[:40]}: expected a span of 1s to 7d, such as 90s, 10m or 2h")
    return whole


def span(whole_s: float) -> str:
    """Return a span in words, as it is typed.

    >>> span(45), span(600), span(5400), span(93_600)
    ('45s', '10m', '1h30m', '1d2h')
    """
    left, words = max(0, round(whole_s)), []
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words[:2]) or "0s"


def left_s(delta: Delta, wall: datetime) -> float:
    """Return how long a delta's trial runs still, by its own time; 0 where it is over or there is none."""
    return 0.0 if delta.trial is None else max(0.0, delta.trial.within_s - age_s(delta, wall))


def used_now(winners: Mapping[str, Register], wall: datetime) -> dict[str, Register]:
    """Return what of winners workers use now: of what is on trial, what its time says."""
    return {key: used(one, lambda delta: left_s(delta, wall) <= 0) for key, one in winners.items()}


def words(register: Register, wall: datetime) -> str:
    """Return what there is to say of a register's trial; nothing where it has none."""
    trial = register.delta.trial
    if trial is None:
        return ""
    if register.undone:
        return f"undone after a trial of {span(trial.within_s)}"
    return f"on trial, reverts in {span(left_s(register.delta, wall))}"


def document(register: Register, wall: datetime) -> dict[str, Any] | None:
    """Return a register's trial as a document."""
    trial = register.delta.trial
    if trial is None:
        return None
    return {
        "within_s": trial.within_s,
        "reverts_in_s": round(left_s(register.delta, wall)),
        "undone": register.undone,
        "canary": trial.canary or None,
    }


def reported(presence: Presence, wall: datetime) -> tuple[str, ...]:
    """Return what a worker says of its trials, in words; what is left is counted on since its report."""
    return tuple(f"{_what(one)} {_when(_left_s(one, presence, wall))}" for one in presence.trials)


def _what(one: TrialReport) -> str:
    return f"{one.scope} epoch {one.epoch} ({', '.join(one.keys)})"


def _when(rest_s: float | None) -> str:
    return "is undone after its trial" if rest_s is None else f"is on trial, reverts in {span(rest_s)}"


def _left_s(one: TrialReport, presence: Presence, wall: datetime) -> float | None:
    if one.left_s <= 0:
        return None
    try:
        since_s = (wall - datetime.fromisoformat(presence.at.replace("Z", "+00:00"))).total_seconds()
    except (ValueError, TypeError):
        since_s = 0.0
    return max(0.0, one.left_s - max(0.0, since_s))
