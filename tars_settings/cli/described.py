"""What the schemas in use say of keys, by service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tars_settings.core.names import Scope
from tars_settings.schema import Entry, entries_of

_NAMES = ("type", "complexity", "unit", "description")


class Described:
    """The entries of every schema in use. Several of one key, where workers of several releases are there."""

    def __init__(self, schemas: Mapping[str, Iterable[bytes]]) -> None:
        self._entries: dict[str, dict[str, list[Entry]]] = {}
        for service, published in sorted(schemas.items()):
            by_key = self._entries.setdefault(service, {})
            for schema in published:
                for entry in entries_of(schema):
                    known = by_key.setdefault(entry.key, [])
                    if entry not in known:
                        known.append(entry)

    @property
    def services(self) -> tuple[str, ...]:
        """Those of which any schema is known."""
        return tuple(service for service, entries in self._entries.items() if entries)

    def keys(self, service: str) -> tuple[str, ...]:
        """Return the keys of a service, in declared order."""
        return tuple(self._entries.get(service, ()))

    def of(self, service: str, key: str) -> tuple[Entry, ...]:
        """Return what is said of a key, none where no schema has it."""
        return tuple(self._entries.get(service, {}).get(key, ()))

    def at(self, scope: str, key: str) -> tuple[Entry, ...]:
        """Return what is said of a key of a scope; of ``_all``, what any service says."""
        service = Scope.parse(scope).service
        services = self._entries if service is None else (service,)
        return tuple(dict.fromkeys(one for name in services for one in self.of(name, key)))


def about(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return type, complexity, unit and description as JSON values; of several, the first that says something."""
    found = list(entries)
    return {name: next((str(value) for one in found if (value := getattr(one, name))), "") for name in _NAMES}
