"""What a worker touches: ``join()``, ``Fleet``, and what they give."""

from __future__ import annotations

from tars_settings.agent.follower import Status
from tars_settings.join.fleet import Fleet, Join, join
from tars_settings.join.live import Live
from tars_settings.join.watch import Change, StatusWatch, Watch

__all__ = ["Change", "Fleet", "Join", "Live", "Status", "StatusWatch", "Watch", "join"]
