"""The one thread of a joined process, and the only place where effects are carried out.

It waits on the broker's socket, feeds the replicator, swaps snapshots, then writes the replica, and wakes whoever
watches. Other threads hand it jobs.
"""

from __future__ import annotations

from tars_settings.agent import notices

__all__ = ["notices"]
