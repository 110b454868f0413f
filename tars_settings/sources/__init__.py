"""The fleet as a source of the chain: environment variables of ours, the replica, what was last known to be good."""

from __future__ import annotations

from tars_settings.sources.environment import Environment
from tars_settings.sources.fleet import FleetSettingsSource, service_of

__all__ = ["Environment", "FleetSettingsSource", "service_of"]
