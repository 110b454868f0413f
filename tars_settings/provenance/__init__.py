"""Which source won, and what it shadows. It falls out of resolution; nothing is resolved a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tars_settings.provenance.resolution import Resolution, resolutions

if TYPE_CHECKING:
    from tars_settings.provenance.explanation import Candidate, Explanation, Explanations, explain

__all__ = ["Candidate", "Explanation", "Explanations", "Resolution", "explain", "resolutions"]

_EXPLANATION: Final = frozenset({"Candidate", "Explanation", "Explanations", "explain"})


def __getattr__(name: str) -> Any:
    # A process that only reads its settings explains nothing.
    if name not in _EXPLANATION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tars_settings.provenance import explanation  # noqa: PLC0415

    return getattr(explanation, name)
