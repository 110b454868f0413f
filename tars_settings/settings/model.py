"""Settings: a BaseSettings whose chain ends with the fleet, and which starts whatever the fleet says.

Declaring a class imports nothing but pydantic-settings: what reads the fleet's values comes with the first object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pydantic_settings
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

if TYPE_CHECKING:
    from pydantic import ConfigDict
    from typing_extensions import Unpack

__all__ = ["Settings", "SettingsConfigDict"]


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
        from tars_settings.settings.construction import constructed  # noqa: PLC0415 - comes with the first object

        failure = constructed(__pydantic_self__, super().__init__, values)
        if failure is not None:
            values = {}  # tracebacks with locals would show them
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
        from tars_settings.settings.construction import with_fleet  # noqa: PLC0415 - as above

        return with_fleet(settings_cls, (init_settings, env_settings, dotenv_settings, file_secret_settings))


def _add_fleet(cls: type[Settings]) -> None:
    """Wrap a user's own settings_customise_sources, whichever class or mixin it comes from."""
    hook = getattr(cls.settings_customise_sources, "__func__", None)
    ours = getattr(Settings.settings_customise_sources, "__func__", None)
    if hook is None or hook is ours or getattr(hook, "_tars_settings", False):
        return

    def settings_customise_sources(
        owner: type[Settings], /, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        from tars_settings.settings.construction import with_fleet  # noqa: PLC0415 - as above

        return with_fleet(settings_cls, hook(owner, settings_cls, **sources))

    settings_customise_sources._tars_settings = True  # type: ignore[attr-defined]
    settings_customise_sources.__doc__ = hook.__doc__
    cls.settings_customise_sources = classmethod(settings_customise_sources)  # type: ignore[assignment]
