"""Whether a worker is well on a change: what its presence says of it now, beside what it said before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tars_settings.cli.outcome import one_line
from tars_settings.core.presence import Presence, refusal_of

Word = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Health:
    """Good, bad, or unknown yet; and why."""

    word: Word
    why: str = ""


def health_of(digest: str, before: Presence, now: Presence | None) -> Health:
    """Return how a worker is that was told to use a delta (hex digest) after it reported *before*.

    Good: it applied it, is ready, and is the same process as before. Presence is unsigned: a claim.
    """
    if now is None:
        return Health("bad", "its report is gone")
    if now.state == "offline":
        return Health("bad", "it went offline")
    if now.ext.get("session") != before.ext.get("session"):
        return Health("bad", "it was restarted")
    if (refusal := refusal_of(now, digest)) is not None:
        return Health("bad", f"it refused it: {one_line(refusal)}")
    if now.state in ("degraded", "stale"):
        return Health("bad", f"it is {now.state}" + (f": lacks {', '.join(now.lacking)}" if now.lacking else ""))
    if news := [note for note in now.notes if note not in before.notes]:
        return Health("bad", news[0])
    if any(one.digest == digest and one.left_s <= 0 for one in now.trials):
        return Health("bad", "for it the trial is over already")
    if now.acked.get(digest) != "applied":
        return Health("unknown", "it has not answered")
    return Health("good") if now.state == "ready" else Health("unknown", f"it is {now.state}")
