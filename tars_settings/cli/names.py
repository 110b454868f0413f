"""Names that this host has seen, for the shell: services, instances and keys. No value, and nothing of the network.

Commands that read schemas leave the names in ``names.json`` beside the replica; completing a word reads that and the
replica.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tars_settings.core.names import ALL, Scope, is_key, is_scope
from tars_settings.errors import TarsSettingsError
from tars_settings.sources.environment import Environment

FILE_NAME: Final = "names.json"
_MOST_BYTES: Final = 4 * 1024 * 1024

Names = dict[str, set[str]]


def remember(environment: Environment, names: Mapping[str, Iterable[str]]) -> None:
    """Keep the keys of scopes that were read, with those that were kept. Never raises."""
    with contextlib.suppress(OSError, ValueError, TarsSettingsError):
        path = environment.fleet_dir / FILE_NAME
        kept = _kept(path)
        before = {scope: set(keys) for scope, keys in kept.items()}
        for scope, keys in names.items():
            kept.setdefault(scope, set()).update(keys)
        if kept != before:
            _write(path, kept)


def _write(path: Path, names: Mapping[str, set[str]]) -> None:
    """Write the names whole or not at all: a shell may read them now."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({scope: sorted(keys) for scope, keys in sorted(names.items())}, file)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _kept(path: Path) -> Names:
    """Return the names in a file, none where it is missing or damaged; only what names may be."""
    try:
        with path.open("rb") as file:
            held: Any = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(held, dict):
        return {}
    return {
        scope: {key for key in keys if isinstance(key, str) and is_key(key)}
        for scope, keys in held.items()
        if is_scope(scope) and isinstance(keys, list)
    }


def known(**given: Any) -> Names:
    """Return the keys of each scope that this host has seen; arguments are options as they stand on the line.

    Never raises, writes nothing to a terminal, and opens no connection.
    """
    from tars_settings.cli.common import Common, in_a_fleet  # noqa: PLC0415 - they import this
    from tars_settings.cli.reading import from_replica  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    names: Names = {}
    try:
        common: Common = in_a_fleet(**{name: given[name] for name in ("fleet", "state_dir") if given.get(name)})
        environment = common.environment()
        names = _kept(environment.fleet_dir / FILE_NAME)
        for scope, winners in from_replica(environment, None).scopes.items():
            names.setdefault(scope, set()).update(winners)
    except Exception:  # noqa: BLE001 - whoever presses Tab wants words or nothing, and never a traceback
        return names
    finally:
        logging.disable(logging.NOTSET)
    return names


def targets(names: Names, *, instances: bool = True, everything: bool = True) -> Iterator[str]:
    """Yield what a command may be about: services, instances of them, and _all."""
    parsed = [Scope.parse(scope) for scope in names]
    yield from sorted({one.service for one in parsed if one.service})
    if instances:
        yield from sorted(str(one) for one in parsed if one.instance)
    if everything:
        yield ALL


def keys(names: Names, target: str | None) -> list[str]:
    """Return the keys of a service and of what it reads besides; all that are known where no target is named."""
    if target is None or not is_scope(target) or target == ALL:
        return sorted({key for keys in names.values() for key in keys})
    service = Scope.parse(target).service
    return sorted(
        {key for scope, keys in names.items() if Scope.parse(scope).service in (None, service) for key in keys}
    )
