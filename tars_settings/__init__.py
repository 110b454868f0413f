"""Live, signed settings for a fleet of Python workers over MQTT.

What is named here is the whole of the public interface. Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tars_settings import errors, testing
    from tars_settings._version import __version__
    from tars_settings.agent import notices
    from tars_settings.join import Change, Fleet, Live, join
    from tars_settings.provenance import Explanation, Explanations, explain
    from tars_settings.schema import About
    from tars_settings.settings import Settings, SettingsConfigDict, SnapshotBuilder
    from tars_settings.sources import Environment, FleetSettingsSource
    from tars_settings.writer import Receipt, Writer

__all__ = [
    "About",
    "Change",
    "Environment",
    "Explanation",
    "Explanations",
    "Fleet",
    "FleetSettingsSource",
    "Live",
    "Receipt",
    "Settings",
    "SettingsConfigDict",
    "SnapshotBuilder",
    "Writer",
    "__version__",
    "errors",
    "explain",
    "join",
    "notices",
    "testing",
]

_HOMES: Final = {
    "About": "schema",
    "Change": "join",
    "Environment": "sources",
    "Explanation": "provenance",
    "Explanations": "provenance",
    "Fleet": "join",
    "FleetSettingsSource": "sources",
    "Live": "join",
    "Receipt": "writer",
    "Settings": "settings",
    "SettingsConfigDict": "settings",
    "SnapshotBuilder": "settings",
    "Writer": "writer",
    "__version__": "_version",
    "errors": "",
    "explain": "provenance",
    "join": "join",
    "notices": "agent",
    "testing": "",
}


class _Facade(ModuleType):
    """This package: a function ``join`` and a submodule ``join`` share a name, and the function is what is meant."""

    def __setattr__(self, name: str, value: object) -> None:
        # The import system sets a submodule on its package when it is imported, whoever imports it.
        if name == "join" and isinstance(value, ModuleType):
            value = vars(value)["join"]
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name] or name}")
    value = getattr(home, name) if _HOMES[name] else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
