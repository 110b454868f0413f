"""What a user's type checker must refuse: each marked line is an error, or the mark itself is one."""

from __future__ import annotations

import tars_settings
from tars_settings import Settings


class Stt(Settings, service="stt-worker"):
    threshold: float = 0.5


class NotSettings:
    threshold: float = 0.5


def mistaken() -> None:
    """A name that is not there, a value of another type, a class that is none of Settings."""
    with tars_settings.join(Stt) as live:
        print(live.current.thresold)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        text: str = live.current.threshold  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        print(text)
    tars_settings.join(NotSettings)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
