"""Which source won, and what it shadows. It falls out of resolution; nothing is resolved a second time."""

from __future__ import annotations

from tars_settings.provenance.explanation import Candidate, Explanation, Explanations, explain
from tars_settings.provenance.resolution import Resolution, resolutions

__all__ = ["Candidate", "Explanation", "Explanations", "Resolution", "explain", "resolutions"]
