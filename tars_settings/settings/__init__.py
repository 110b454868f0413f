"""Settings, and the live snapshots of them."""

from __future__ import annotations

from tars_settings.settings.live import Built, SnapshotBuilder, diff
from tars_settings.settings.model import Settings, SettingsConfigDict, service_of
from tars_settings.sources.settle import Refused

__all__ = ["Built", "Refused", "Settings", "SettingsConfigDict", "SnapshotBuilder", "diff", "service_of"]
