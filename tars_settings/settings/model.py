"""Settings: a BaseSettings whose chain ends with the fleet, and which starts whatever the fleet says."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic_settings
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from tars_settings.provenance.fields import look_up, names_of
from tars_settings.provenance.labels import kind_of, source_named, where_of
from tars_settings.provenance.resolution import Resolution, resolutions
from tars_settings.sources.failures import Location, add_notes, secret_texts, without_secrets
from tars_settings.sources.fleet import (
    Building,
    Captured,
    FleetSettingsSource,
    building,
    service_of,
    warn_refused,
)
from tars_settings.sources.fold import Said
from tars_settings.sources.overrides import with_overrides
from tars_settings.sources.settle import Nothing, Settler

if TYPE_CHECKING:
    from pydantic import ConfigDict
    from typing_extensions import Unpack

__all__ = ["Settings", "SettingsConfigDict", "note_sources", "service_of", "with_fleet"]

_log = logging.getLogger("tars_settings.settings")


class SettingsConfigDict(pydantic_settings.SettingsConfigDict, total=False):
    """pydantic-settings' configuration, and the service that a class belongs to."""

    service: str | None


class Settings(BaseSettings):
    """Settings of one service: arguments > environment > dotenv > secrets directory > the fleet > defaults.

    A drop-in for BaseSettings. The service is named as a class keyword, ``class Stt(Settings, service="stt-worker")``,
    or in ``model_config = SettingsConfigDict(service="stt-worker")``. Fleet values come from what this host has stored,
    without any network. Where they do not validate it falls back to the last known good ones, then to leaving out the
    deltas that do not fit, which a warning names.

    Raises:
        ValidationError: what the operator of this process controls is invalid or missing; ``str()`` shows no input
            value and nothing shows a secret, notes name the source of each.
        SettingsError: a source could not be read or parsed.
        ConfigurationError: a ``TARS_SETTINGS_*`` variable is malformed.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(service=None)

    def __init__(__pydantic_self__, **values: Any) -> None:  # noqa: N805 - a field may be called self
        current = _current_building(type(__pydantic_self__))
        token = building.set(current)
        failure: Exception | None = None
        try:
            super().__init__(**values)
        except ValidationError as error:
            failure = error
        except SettingsError as error:
            # Built anew: its cause is a JSONDecodeError, which holds the whole text.
            failure = SettingsError(*error.args)
        finally:
            building.reset(token)
        source = current.source
        if isinstance(failure, ValidationError):
            failure = _recover(__pydantic_self__, source, failure)
        elif failure is None and source is not None:
            resolutions.put(__pydantic_self__, source.resolution(source.folded, source.origin))
        if failure is not None:
            values = {}  # tracebacks with locals would show them
            # Outside of the except block, so that no context holds the original.
            raise failure

    def __init_subclass__(cls, *, service: str | None = None, **kwargs: Unpack[ConfigDict]) -> None:
        # pydantic hands an unknown class keyword to this and to __pydantic_init_subclass__; both must take it.
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, service: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if service is not None:
            cls.model_config["service"] = service
        _add_fleet(cls)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, highest first. Override it freely: where ours is not placed, it comes last."""
        return with_fleet(settings_cls, (init_settings, env_settings, dotenv_settings, file_secret_settings))


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


def _add_fleet(cls: type[Settings]) -> None:
    """Wrap a user's own settings_customise_sources, whichever class or mixin it comes from."""
    hook = getattr(cls.settings_customise_sources, "__func__", None)
    ours = getattr(Settings.settings_customise_sources, "__func__", None)
    if hook is None or hook is ours or getattr(hook, "_tars_settings", False):
        return

    def settings_customise_sources(
        owner: type[Settings], /, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return with_fleet(settings_cls, hook(owner, settings_cls, **sources))

    settings_customise_sources._tars_settings = True  # type: ignore[attr-defined]
    settings_customise_sources.__doc__ = hook.__doc__
    cls.settings_customise_sources = classmethod(settings_customise_sources)  # type: ignore[assignment]


def _current_building(settings_cls: type) -> Building:
    """Return the construction that this is part of: a capture of the class that was asked for, else a new one."""
    outer = building.get()
    if outer is not None and outer.capturing and outer.settings_cls is settings_cls and not outer.sources:
        return outer
    return Building(settings_cls)


def _recover(
    instance: Settings, source: FleetSettingsSource | None, failure: ValidationError
) -> ValidationError | None:
    """Fall back to values that validate, in place; return the error to raise where none does."""
    if source is None:
        return without_secrets(failure, type(instance))
    captured = Captured(source)
    if not source.said.view.scopes:
        secrets = secret_texts(captured.model, captured.compose(source.folded))
        error = without_secrets(failure, captured.model, secrets)
    else:
        if _run_on_last_good(instance, source, captured):
            return None
        outcome = _run_on_what_fits(instance, source, captured)
        if outcome is None:
            return None
        error = outcome
    note_sources(error, source.resolution(source.folded, source.origin))
    return error


def _run_on_last_good(instance: Settings, source: FleetSettingsSource, captured: Captured) -> bool:
    """Validate with the last known good values alone; return whether there are any and they do."""
    for kept in source.last_goods() if source.origin == "replica" else ():
        folded = Settler(Said(kept.view), source.folder(), lambda _: None).opened().folded
        if not isinstance(captured.attempt(folded, instance), ValidationError):
            _log.warning(
                "%s: the stored fleet values do not validate here; running on the last known good", source.service
            )
            resolutions.put(instance, source.resolution(folded, "last known good"))
            return True
    return False


def _run_on_what_fits(instance: Settings, source: FleetSettingsSource, captured: Captured) -> ValidationError | None:
    """Validate with as many of the stored deltas as fit together; return the error where not even none of them does."""
    model = type(instance)
    settler = Settler(source.said, source.folder(), lambda folded: captured.attempt(folded, model.__new__(model)))
    try:
        settled = settler.settle()
    except Nothing as nothing:
        return nothing.error
    outcome = captured.attempt(settled.folded, instance)
    if isinstance(outcome, ValidationError):
        return outcome  # a validator that gives two answers to one question
    warn_refused(source.service, settled.refused)
    resolutions.put(instance, source.resolution(settled.folded, source.origin))
    return None


def note_sources(error: ValidationError, resolution: Resolution) -> None:
    """Add notes to the error that name the source of each bad value."""
    names = {used: field for field, used in _inputs(resolution.model)}

    def label(location: Location) -> str | None:
        if not location:
            return None
        key = ".".join([names.get(str(location[0]), str(location[0])), *map(str, location[1:])])
        return _source_of(resolution, key) or "no source sets it"

    add_notes(error, label)


def _inputs(model: type) -> list[tuple[str, str]]:
    return [(field.name, used) for field in names_of(model).values() for used in field.inputs]


def _source_of(resolution: Resolution, key: str) -> str | None:
    from tars_settings.provenance.explanation import fleet_candidates  # noqa: PLC0415 - only where something is wrong

    for name, state in resolution.states.items():
        if name == resolution.fleet_source:
            first = next(fleet_candidates(resolution, key), None)
            if first is not None:
                return f"from the {first}"
        elif name != "DefaultSettingsSource":
            top = key.partition(".")[0]
            for one in (key, top):
                # What a dotenv file holds and the class does not is among the state's names as it stands.
                if look_up(resolution.model, one, state)[0] or (one == top and top in state):
                    where = where_of(source_named(resolution.chain, name), name, resolution.model, one)
                    return f"from the {kind_of(name)} {where}".rstrip()
    return None
