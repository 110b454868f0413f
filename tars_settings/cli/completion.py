"""What the shell offers where a word is to be typed: it follows from the word's metavar, whichever command asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

Completer = Callable[[typer.Context, str], list[str]]

_TARGETS: Final = ("target", "service")


def _names(context: typer.Context) -> dict[str, set[str]]:
    from tars_settings.cli.names import known  # noqa: PLC0415 - only where somebody pressed Tab

    return known(**context.params)


def _services(context: typer.Context, incomplete: str) -> list[str]:
    from tars_settings.cli.names import targets  # noqa: PLC0415

    return _fitting(targets(_names(context), instances=False, everything=False), incomplete)


def _targets(context: typer.Context, incomplete: str) -> list[str]:
    from tars_settings.cli.names import targets  # noqa: PLC0415

    return _fitting(targets(_names(context)), incomplete)


def _keys(context: typer.Context, incomplete: str) -> list[str]:
    from tars_settings.cli.names import keys  # noqa: PLC0415

    target = next((found for name in _TARGETS if (found := context.params.get(name))), None)
    return _fitting(keys(_names(context), target), incomplete)


def _assignments(context: typer.Context, incomplete: str) -> list[str]:
    return [f"{key}=" for key in _keys(context, incomplete)]


def _instances(context: typer.Context, incomplete: str) -> list[str]:
    from tars_settings.cli.names import targets  # noqa: PLC0415

    wanted = next((found for name in _TARGETS if (found := context.params.get(name))), None)
    pairs = [name.partition("@") for name in targets(_names(context), everything=False)]
    return _fitting(dict.fromkeys(i for service, at, i in pairs if at and wanted in (None, service)), incomplete)


def _fitting(words: Any, incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


_BY_METAVAR: Final[Mapping[str, Completer]] = MappingProxyType(
    {
        "SERVICE": _services,
        "[SERVICE]": _services,
        "SERVICE[@INSTANCE]": _targets,
        "[SERVICE[@INSTANCE]]": _targets,
        "INSTANCE": _instances,
        "KEY": _keys,
        "KEY...": _keys,
        "[KEY]": _keys,
        "KEY=VALUE...": _assignments,
        "[KEY=VALUE...]": _assignments,
    }
)
_OTHER_KEYS: Final = frozenset({"--fleet", "--public", "--add", "--drop"})
"""Options whose KEY is no setting's."""


def offer_names(annotation: Any) -> None:
    """Have the shell complete an argument or option by its metavar, unless it completes itself."""
    for info in get_args(annotation)[1:]:
        if isinstance(info, (ArgumentInfo, OptionInfo)) and info.autocompletion is None:
            # In an annotation the first name of an option stands where its default would.
            declared = {info.default, *(info.param_decls or ())} if isinstance(info, OptionInfo) else set()
            if not declared & _OTHER_KEYS:
                info.autocompletion = _BY_METAVAR.get(str(info.metavar))
