"""Settings, and the live snapshots of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from tars_settings.settings.model import Settings, SettingsConfigDict

if TYPE_CHECKING:
    from tars_settings.settings.live import Built, SnapshotBuilder, diff
    from tars_settings.sources.fleet import service_of
    from tars_settings.sources.settle import Refused

__all__ = ["Built", "Refused", "Settings", "SettingsConfigDict", "SnapshotBuilder", "diff", "service_of"]

_HOMES: Final = {
    "Built": "settings.live",
    "Refused": "sources.settle",
    "SnapshotBuilder": "settings.live",
    "diff": "settings.live",
    "service_of": "sources.fleet",
}


def __getattr__(name: str) -> Any:
    # A process that only reads its settings pays for no snapshots, and one that declares a class not for reading it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tars_settings.{_HOMES[name]}"), name)
