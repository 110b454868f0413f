"""What a resolution leaves behind for explain(): references to what the sources said, kept beside the instance.

Nothing is looked up or formatted before someone asks. An instance is found by identity and held weakly: models are
unhashable or hash by value, and a private attribute would take part in comparison, copies and pickles.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from tars_settings.core.register import Register
from tars_settings.trust.document import TrustDocument

Origin = Literal["replica", "last known good", "live", "none"]
"""Where fleet values came from."""


class Placed(msgspec.Struct, frozen=True):
    """A register of the fleet at its place in the model; ``path`` is made of the model's input names.

    ``value`` is decrypted where it was secret: it must not leave the process.
    """

    scope: str
    path: tuple[str, ...]
    register: Register
    value: Any = None

    def __repr__(self) -> str:
        return f"<Placed {self.scope} {'.'.join(self.path)}>"

    @property
    def key(self) -> str:
        """The key as it was pushed."""
        return self.register.key

    @property
    def digest(self) -> bytes:
        """The digest of the delta that carries it."""
        return self.register.delta.stamp.digest

    @property
    def unset(self) -> bool:
        """Whether it takes a value away instead of giving one."""
        return self.register.assignment.unset


class Resolution(msgspec.Struct, frozen=True, eq=False):
    """How one instance came about.

    ``states`` maps the names of the chain's sources, highest first, to what they said; the fleet's own is among them.
    ``chain`` holds the source objects where they are known, for the labels of values. ``placed`` is what the fleet
    said, lowest scope first, in stamp order within a scope.
    """

    model: type
    states: Mapping[str, Mapping[str, Any]]
    chain: tuple[Any, ...] = ()
    fleet_source: str = "FleetSettingsSource"
    placed: tuple[Placed, ...] = ()
    origin: Origin = "none"
    document: TrustDocument | None = None

    def __repr__(self) -> str:
        return f"<Resolution of {self.model.__name__}, {self.origin}>"  # states hold secrets


class _Registry:
    """Maps instances to their resolutions by identity, for as long as the instance lives."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], Resolution]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, instance: object, resolution: Resolution) -> None:
        """Remember how *instance* came about."""
        where = id(instance)
        self._held[where] = (weakref.ref(instance, lambda dead: self._drop(where, dead)), resolution)

    def _drop(self, where: int, dead: weakref.ref[Any]) -> None:
        # The id may be another instance's by now.
        held = self._held.get(where)
        if held is not None and held[0] is dead:
            del self._held[where]

    def get(self, instance: object) -> Resolution | None:
        """Return how *instance* came about, None for one that nobody put here."""
        held = self._held.get(id(instance))
        return held[1] if held is not None and held[0]() is instance else None


resolutions: Final = _Registry()
"""The resolutions of all living instances."""
