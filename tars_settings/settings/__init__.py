"""Settings, and the live snapshots of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tars_settings.settings.model import Settings, SettingsConfigDict, service_of
from tars_settings.sources.settle import Refused

if TYPE_CHECKING:
    from tars_settings.settings.live import Built, SnapshotBuilder, diff

__all__ = ["Built", "Refused", "Settings", "SettingsConfigDict", "SnapshotBuilder", "diff", "service_of"]

_LIVE: Final = frozenset({"Built", "SnapshotBuilder", "diff"})


def __getattr__(name: str) -> Any:
    # A process that only reads its settings pays for no snapshots.
    if name not in _LIVE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tars_settings.settings import live  # noqa: PLC0415

    return getattr(live, name)
