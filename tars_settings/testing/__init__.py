"""For users' tests and for ours.

:func:`override` puts values above everything else for a while. :class:`MemoryFleet` is a fleet without broker and
network: the real agent, replicator and replica. With pytest both are fixtures: ``override_settings`` and
``memory_fleet``. :class:`Mesh` runs real replicators against a broker model in virtual time, seeded, with faults that
are counted.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tars_settings.testing.memory import MemoryFleet
    from tars_settings.testing.mesh import Mesh
    from tars_settings.testing.overriding import override

__all__ = ["MemoryFleet", "Mesh", "override"]

_HOMES: Final = {"MemoryFleet": "memory", "Mesh": "mesh", "override": "overriding"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
