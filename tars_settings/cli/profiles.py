"""Profiles: named sets of values across services, kept in the fleet as values of a scope of their own.

A profile is one value: signed like any other, and encrypted whole where a secret is in it, so that no ciphertext of one
place ever stands in another, and a rotation of secret keys finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tars_settings.cli.reading import opened
from tars_settings.core.delta import Assignment, Delta, DeltaBody
from tars_settings.core.names import check_key, is_key, is_scope
from tars_settings.core.register import Register
from tars_settings.core.stamp import Stamp
from tars_settings.core.undo import is_same
from tars_settings.errors import DecryptionError, MalformedError, RefusedError, UsageError
from tars_settings.sources.environment import Environment

SERVICE: Final = "profiles"
"""The service whose keys are the names of profiles. No worker may have this name."""


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Values by scope and key; ``secret`` names, as ``scope key``, those that are encrypted where they are applied."""

    scopes: dict[str, dict[str, Any]]
    secret: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Profile of {', '.join(sorted(self.scopes))}>"

    def is_secret(self, scope: str, key: str) -> bool:
        """Return whether a value is a secret."""
        return f"{scope} {key}" in self.secret

    def value(self) -> dict[str, Any]:
        """Return it as it is pushed."""
        return {"v": 1, "scopes": self.scopes, "secret": sorted(self.secret)}


def check_name(name: str) -> str:
    """Return a profile's name.

    Raises:
        UsageError: it can be none: it is one segment of a key.
    """
    if "." in check_key(name):
        raise UsageError(f"{name}: a profile's name has no dots")
    return name


def parse_profile(value: Any) -> Profile:
    """Return the profile in a value.

    Raises:
        MalformedError: a later release made it, or it is none.
    """
    match value:
        case {"v": 1, "scopes": dict(scopes), "secret": list(secret)} if _are_values(scopes):
            return Profile(scopes, frozenset(str(one) for one in secret))
    raise MalformedError("malformed profile: a later release made it, or another program")


def _are_values(scopes: Mapping[Any, Any]) -> bool:
    return all(is_scope(scope) and isinstance(keys, dict) and all(map(is_key, keys)) for scope, keys in scopes.items())


def opened_here(register: Register, environment: Environment) -> Any:
    """Return the value of a register, decrypted with this host's keys where it is a secret. Nobody is to see it.

    Raises:
        DecryptionError: it can't be decrypted here.
    """
    return opened(register, environment.secret_keys(), environment.fleet_id)


def profile_of(name: str, winners: Mapping[str, Register], environment: Environment) -> Profile:
    """Return a saved profile.

    Raises:
        RefusedError: there is none of this name.
        DecryptionError: it holds a secret, and this host lacks the key.
        MalformedError: it is none.
    """
    register = winners.get(check_name(name))
    if register is None or register.assignment.unset:
        raise RefusedError(f"there is no profile {name!r}; type: tars-settings profile list")
    return parse_profile(opened_here(register, environment))


def wish(scope: str, item: Assignment) -> Register:
    """Return an assignment that nobody signed yet as a register, to be shown and compared."""
    body = DeltaBody(scope, 0, 1, 1, (item,))
    return Register(item.key, item, Delta.of(Stamp(0, 1, "0" * 32, bytes(32)), body, b""))


def says(register: Register | None, wanted: Register, environment: Environment) -> bool:
    """Return whether a register says already what is wanted, secrets compared by what they hold.

    What can't be decrypted says something else.
    """
    if register is None or register.assignment.unset:
        return False
    if register.assignment.is_secret != wanted.assignment.is_secret:
        return False
    try:
        plain = [
            Register("k", Assignment("k", set=opened_here(one, environment)), one.delta) for one in (register, wanted)
        ]
    except DecryptionError:
        return False
    return is_same(*plain)
