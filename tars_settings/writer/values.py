"""From what an operator says to assignments: typed and checked, secrets encrypted."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from pydantic_settings import BaseSettings

from tars_settings.core.delta import Algorithm, Assignment, Ciphertext
from tars_settings.core.names import Scope, check_key
from tars_settings.core.register import Register
from tars_settings.core.wire import check_value, encode
from tars_settings.errors import InvalidValueError, PlainOrSecretError, SecretKeyMissingError, UsageError
from tars_settings.schema import check, is_secret, schema_of, values_for
from tars_settings.sources.environment import Environment
from tars_settings.trust.secrets import DEFAULT_ALGORITHM, NONCE_BYTES, choose_key, encrypt


class Wish(msgspec.Struct, frozen=True):
    """What an operator wants of one scope; *secret* and *plain* are keys of which he says so."""

    scope: str
    values: Mapping[str, Any]
    unset: tuple[str, ...] = ()
    secret: Collection[str] = ()
    plain: Collection[str] = ()

    def check(self) -> None:
        """Refuse what is no wish.

        Raises:
            IllegalNameError, UsageError: a key that can be none, one that is set and unset at once, or nothing at all.
        """
        for key in (*self.values, *self.unset):
            check_key(key)
        if both := set(self.values) & set(self.unset):
            raise UsageError(f"set and unset at once: {', '.join(sorted(both))}")
        if not self.values and not self.unset:
            raise UsageError("nothing to push")


def assignments(
    wish: Wish,
    target: type[BaseSettings] | str,
    published: Callable[[], Sequence[bytes]],
    held: Mapping[str, Register],
    seal: Callable[[str, Any, Algorithm], Ciphertext],
) -> tuple[Assignment, ...]:
    """Return the assignments of a wish, values checked against the class, else against every *published* schema.

    *held* are the winners of the scope; *seal* encrypts the value of a key. One that is held keeps its algorithm.

    Raises:
        InvalidValueError: values do not fit; all bad keys are named together.
        PlainOrSecretError: nobody said whether the first value of a key is a secret.
    """
    wish.check()
    if isinstance(target, str):
        schemas = published()
        checked = checked_by(schemas, wish.values)
    else:
        schemas = [schema_of(target)]
        checked = values_for(target, dict(wish.values))
    items = [
        _assignment(
            key, value, seal, _algorithm(held.get(key)) if _is_secret(wish, key, schemas, held.get(key)) else None
        )
        for key, value in checked.items()
    ]
    return (*items, *(Assignment(key, unset=True) for key in wish.unset))


def _is_secret(wish: Wish, key: str, schemas: Sequence[bytes], earlier: Register | None) -> bool:
    said = [is_secret(schema, key) for schema in schemas]
    if key in wish.secret or any(said) or (earlier is not None and earlier.assignment.is_secret):
        if key in wish.plain:
            raise InvalidValueError(f"{key} is a secret; it can't be pushed in plain text")
        return True
    if key in wish.plain or earlier is not None or any(one is False for one in said):
        return False
    raise PlainOrSecretError(
        f"nobody described {key} yet: no worker published a schema with it, and no delta holds it. "
        f"Say --plain or --secret {key}, or --model module:Class"
    )


def _algorithm(earlier: Register | None) -> Algorithm:
    held = None if earlier is None else earlier.assignment.secret
    return held.alg if isinstance(held, Ciphertext) else DEFAULT_ALGORITHM


def _assignment(
    key: str, value: Any, seal: Callable[[str, Any, Algorithm], Ciphertext], alg: Algorithm | None
) -> Assignment:
    check_value(value)
    return Assignment(key, set=value) if alg is None else Assignment(key, secret=seal(key, value, alg))


def sealed(
    environment: Environment, scope: str, key: str, value: Any, alg: Algorithm, token: Callable[[int], bytes]
) -> Ciphertext:
    """Return a value encrypted for one key of one scope, under the service's secret key or the first that is held.

    Raises:
        SecretKeyMissingError: no secret key is held.
    """
    secret_key = choose_key(environment.secret_keys(), Scope.parse(scope).service)
    if secret_key is None:
        raise SecretKeyMissingError(f"{key} is a secret, and TARS_SETTINGS_SECRET_KEYS holds no key to encrypt it with")
    nonce = token(NONCE_BYTES[alg])
    return encrypt(encode(value), secret_key, fleet=environment.fleet_id, scope=scope, key=key, nonce=nonce, alg=alg)


def checked_by(schemas: Sequence[bytes], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON, checked against every schema in use.

    Raises:
        InvalidValueError: one does not fit, or is no JSON value.
    """
    plain: dict[str, Any] = {}
    complaints: list[str] = []
    for key, value in values.items():
        try:
            plain[key] = json.loads(encode(value))
        except (TypeError, ValueError, OverflowError):
            complaints.append(f"{key}: not a value that JSON can carry; push with the Settings class")
            continue
        complaints += dict.fromkeys(
            f"{key}: {message}" for schema in schemas for message in check(schema, key, plain[key])
        )
    if complaints:
        raise InvalidValueError("\n".join(complaints))
    return plain
