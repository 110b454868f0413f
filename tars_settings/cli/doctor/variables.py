"""The ``TARS_SETTINGS_*`` variables: those that are malformed, and those that nobody reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tars_settings.cli.doctor.finding import Finding
from tars_settings.sources.environment import PREFIX, VARIABLES, Environment

_ELSEWHERE: Final = ("TARS_SETTINGS_NEW_PASSPHRASE",)
"""Read by commands, and not by the environment of a worker."""
KNOWN: Final = (*VARIABLES, *_ELSEWHERE)


def look(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what there is to say of the names of *variables*; their values are not looked at."""
    ours = [name for name in variables if name.upper().startswith(PREFIX)]
    strangers = [name for name in sorted(ours) if name not in KNOWN]
    for name in strangers:
        yield Finding("environment", "unknown", "warning", f"nothing reads the variable {name}", _meant(name))
    if not strangers:
        count = len(ours)
        yield Finding("environment", "unknown", "ok", f"{count} {PREFIX}* variables are set, and all of them are read")
    if f"{PREFIX}PASSPHRASE" in variables:
        yield Finding(
            "environment",
            "passphrase",
            "hint",
            "the passphrase of key files stands in the environment, where every child process sees it",
            f"unset {PREFIX}PASSPHRASE  # it is asked for at a terminal",
        )


def _meant(name: str) -> str:
    found = nearest(name.upper(), KNOWN)
    return f"did you mean {found}?" if found else f"unset {name}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like *name*, empty where none is.

    >>> nearest("TARS_SETTINGS_BORKER", ["TARS_SETTINGS_BROKER", "TARS_SETTINGS_FLEET"])
    'TARS_SETTINGS_BROKER'
    """
    tails = {one.removeprefix(PREFIX): one for one in known}
    found = difflib.get_close_matches(name.removeprefix(PREFIX), tails, 1, 0.5)
    return tails[found[0]] if found else ""


def malformed(complaint: str) -> Finding:
    """Return the finding of an environment that can't be read; the complaint names variables, and what makes them."""
    return Finding("environment", "malformed", "problem", complaint.partition("; expected")[0], complaint)


def reading(environment: Environment) -> Iterator[Finding]:
    """Yield what there is to say of an environment that is well-formed."""
    if environment.secret_keys_text is not None and environment.secret_keys_path is None:
        yield Finding(
            "environment",
            "inline keys",
            "hint",
            "secret keys stand in the environment itself, where every child process sees them",
            f"{PREFIX}SECRET_KEYS=/path/to/secret.keys  # a file of mode 0600",
        )
