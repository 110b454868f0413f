"""Constructing settings objects: the chain with the fleet in it, and what happens where its values do not validate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from tars_settings.provenance.resolution import resolutions
from tars_settings.sources.fleet import Building, FleetSettingsSource, building
from tars_settings.sources.overrides import with_overrides

if TYPE_CHECKING:
    from tars_settings.settings.model import Settings


def constructed(instance: Settings, init: Callable[..., None], values: dict[str, Any]) -> Exception | None:
    """Construct *instance* with pydantic's *init*; return what to raise where it can't be.

    Returned and not raised, so that no context holds the original: it shows what was given.
    """
    current = _current_building(type(instance))
    token = building.set(current)
    failure: Exception | None = None
    try:
        init(**values)
    except ValidationError as error:
        failure = error
    except SettingsError as error:
        # Built anew: its cause is a JSONDecodeError, which holds the whole text.
        failure = SettingsError(*error.args)
    finally:
        building.reset(token)
    source = current.source
    if isinstance(failure, ValidationError):
        from tars_settings.settings.recovery import recover  # noqa: PLC0415 - only where something is wrong

        return recover(instance, source, failure)
    if failure is None and source is not None:
        resolutions.put(instance, source.resolution(source.folded, source.origin))
    return failure


def _current_building(settings_cls: type) -> Building:
    """Return the construction that this is part of: a capture of the class that was asked for, else a new one."""
    outer = building.get()
    if outer is not None and outer.capturing and outer.settings_cls is settings_cls and not outer.sources:
        return outer
    return Building(settings_cls)


def with_fleet(
    settings_cls: type[BaseSettings], chain: tuple[PydanticBaseSettingsSource, ...]
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return a chain with our source in it, last unless it is there already, and knowing its neighbours."""
    if not any(isinstance(source, FleetSettingsSource) for source in chain):
        chain = (*chain, FleetSettingsSource(settings_cls))
    current = building.get()
    if current is None or not current.capturing:
        chain = with_overrides(settings_cls, chain)
    for source in chain:
        if isinstance(source, FleetSettingsSource):
            source.chain = chain
    return chain
