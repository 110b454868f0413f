"""Where and whom to trust: the ``TARS_SETTINGS_*`` variables of a process.

Reading them costs a dozen look-ups as long as nothing changed. Key files are read when their keys are asked for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tars_settings.core.names import is_prefix, is_service
from tars_settings.core.wire import short_hash
from tars_settings.errors import ConfigurationError, IllegalNameError, KeyFileError, PassphraseError, StateDirError
from tars_settings.trust.document import TrustDocument, pin
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_id, parse_fleet

if TYPE_CHECKING:
    from tars_settings.trust.seal import SealKey

T = TypeVar("T")
PREFIX: Final = "TARS_SETTINGS_"
_OUTSIDE: Final = ("XDG_STATE_HOME", "HOME")
_LAST_RESORT: Final = "/var/lib/tars-settings"
"""Where neither XDG_STATE_HOME nor a home directory is known, as for some services."""


def default_instance(host: str | None = None) -> str:
    """Return the host's name in the form that an instance takes.

    >>> default_instance("Pi-3.lan"), default_instance("3rd_board"), default_instance("")
    ('pi-3-lan', 'h3rd_board', 'host')
    """
    name = socket.gethostname() if host is None else host
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name.lower()).strip("-_")
    if not plain:
        return "host"
    return (plain if plain[0].isalpha() else f"h{plain}")[:63]


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(_LAST_RESORT) if base.startswith("~") else Path(base) / "tars-settings"


class Environment(BaseSettings):
    """A process's ``TARS_SETTINGS_*`` variables, checked. Make it with :meth:`read`.

    Without ``fleet`` the process belongs to none, and Settings are plain.
    """

    model_config = SettingsConfigDict(
        alias_generator=lambda name: PREFIX + name.upper(),
        populate_by_name=True,
        case_sensitive=True,
        frozen=True,
        extra="forbid",
    )

    broker: str | None = Field(default=None, repr=False)
    fleet: str | None = None
    state_dir: Path = Field(default_factory=_default_state_dir)
    instance: str = Field(default_factory=default_instance)
    secret_keys_text: SecretStr | None = Field(default=None, validation_alias=f"{PREFIX}SECRET_KEYS")
    seal_key_text: SecretStr | None = Field(default=None, validation_alias=f"{PREFIX}SEAL_KEY")
    passphrase_text: SecretStr | None = Field(default=None, validation_alias=f"{PREFIX}PASSPHRASE")
    writer_key_file: Path | None = Field(default=None, validation_alias=f"{PREFIX}WRITER_KEY")
    prefix: str = "system/config"
    health_prefix: str = "system/health"
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    repair: Literal["all", "keepers", "off"] = "all"
    repair_delay_s: float = Field(default=5.0, ge=0, le=600)
    audit_s: float = Field(default=600.0, ge=1, le=86_400)
    probation_s: float = Field(default=30.0, ge=0, le=86_400)

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        # Docker and systemd files often say VARIABLE= for "not this one".
        if value == "":
            raise ValueError("it is empty; leave it out or give it a value")
        return value

    @field_validator("fleet")
    @classmethod
    def _is_fleet(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_fleet(value)
            except KeyFileError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("instance")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not is_service(value):
            raise ValueError("expected a name of [a-z][a-z0-9_-]*, at most 63 characters")
        return value

    @field_validator("prefix", "health_prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if not is_prefix(value):
            raise ValueError("expected one to three plain topic levels, such as system/config")
        return value

    @field_validator("state_dir", "writer_key_file")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        if value is not None and "\0" in str(value):
            raise ValueError("a path holds no NUL")
        return None if value is None else Path(os.path.expanduser(value))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return arguments and variables; no dotenv file and no secrets directory is ever named."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @classmethod
    def read(cls, **given: Any) -> Environment:
        """Return the process's environment, with what is *given* (and not None) in place of its variables.

        Names: broker, fleet, state_dir, instance, secret_keys, seal_key, writer_key, prefix, health_prefix, protocol,
        repair, repair_delay_s, audit_s, probation_s.

        Raises:
            ConfigurationError: a variable or an argument is malformed; the message names each and what makes it.
        """
        arguments = {_ARGUMENTS.get(name, name): value for name, value in given.items() if value is not None}
        if arguments:
            return _read(cls, arguments)
        content = tuple(os.environ.get(name) for name in _WATCHED)
        if _cache.get("content") != content:
            _cache.update(environment=_read(cls, {}), content=content)
        environment: Environment = _cache["environment"]
        return environment

    @property
    def root(self) -> bytes:
        """The fleet's public root key.

        Raises:
            ConfigurationError: there is no fleet.
        """
        return parse_fleet(self._needed("fleet", self.fleet))

    @property
    def fleet_id(self) -> str:
        """The id of the fleet: 32 hex digits.

        Raises:
            ConfigurationError: there is no fleet.
        """
        return fleet_id(self.root)

    def pinned(self) -> TrustDocument:
        """Return the start of the trust chain: the root key alone, under which nothing is valid.

        Raises:
            ConfigurationError: there is no fleet.
        """
        return pin(self.root)

    def broker_address(self) -> str:
        """Return the broker's URL; it may hold a password.

        Raises:
            ConfigurationError: there is none.
        """
        return self._needed("broker", self.broker)

    @property
    def fleet_dir(self) -> Path:
        """The directory of this fleet below the state directory; not made here."""
        return self.state_dir / self.fleet_id

    @property
    def replica_path(self) -> Path:
        """The replica's file."""
        return self.fleet_dir / "replica.sqlite3"

    @property
    def seal_key_path(self) -> Path:
        """The file of the seal key that is made where TARS_SETTINGS_SEAL_KEY gives none."""
        return self.fleet_dir / "seal.key"

    def lkg_dir(self, service: str) -> Path:
        """Return the directory of a service's last known good values; a hash, never the name itself."""
        return self.fleet_dir / f"lkg-{short_hash(service.encode())}"

    def starts_path(self, service: str) -> Path:
        """Return the file of a service's starts on values that are on probation; there only while they are."""
        return self.fleet_dir / f"starts-{short_hash(service.encode())}"

    def trials_path(self, service: str) -> Path:
        """Return the file of a service's trials and what is left of them; there only while there are any."""
        return self.fleet_dir / f"trials-{short_hash(service.encode())}"

    def secret_keys(self) -> dict[str, SecretKey]:
        """Return the secret keys by id, none where the variable is not set.

        Raises:
            ConfigurationError: the variable, or the file that it names, holds something else.
        """
        if self.secret_keys_text is None:
            return {}
        text = self.secret_keys_text.get_secret_value()
        return _parsed("SECRET_KEYS", text, _secret_keys)

    @property
    def secret_keys_path(self) -> Path | None:
        """The file that TARS_SETTINGS_SECRET_KEYS names; None where it holds the keys themselves, or is not set."""
        text = None if self.secret_keys_text is None else self.secret_keys_text.get_secret_value()
        return None if text is None or _is_inline(text) else Path(os.path.expanduser(text))

    def seal_key(self, *, create: bool = False) -> SealKey | None:
        """Return the seal key: the variable's, else that of the state directory.

        With *create* a missing file is made, mode 0600; without, None is returned.

        Raises:
            ConfigurationError: the variable, or the file that it names, holds no seal key.
            KeyFileError, StateDirError: the state directory's file is no key, not ours alone, or can't be made.
        """
        if self.seal_key_text is not None:
            return _parsed("SEAL_KEY", self.seal_key_text.get_secret_value(), _seal_key)
        return _seal_key_file(self.seal_key_path, create=create)

    def writer_key(self) -> SigningKey:
        """Return the writer's key.

        Raises:
            ConfigurationError: there is none, or the file holds something else.
        """
        path = self._needed("writer_key", self.writer_key_file)
        return _parsed("WRITER_KEY", str(path), lambda text: self.signing_key(Path(text)))

    def signing_key(self, path: Path) -> SigningKey:
        """Return the key in a file, opened with TARS_SETTINGS_PASSPHRASE where it is locked.

        Raises:
            PassphraseError: it is locked, and the variable is not set or does not open it.
            KeyFileError: it can't be read, or holds something else.
        """
        from tars_settings.trust.locked import is_locked, unlock  # noqa: PLC0415 - only for who signs

        text = _read_key(path)
        if not is_locked(text):
            return SigningKey.from_text(text)
        if self.passphrase_text is None:
            raise PassphraseError(f"{path} is under a passphrase; set {PREFIX}PASSPHRASE")
        return unlock(text, self.passphrase_text.get_secret_value())

    def _needed(self, name: str, value: T | None) -> T:
        if value is None:
            raise ConfigurationError(f"{PREFIX}{name.upper()} is not set: {_MADE_BY[name]}")
        return value


_ARGUMENTS: Final = {
    "secret_keys": f"{PREFIX}SECRET_KEYS",
    "seal_key": f"{PREFIX}SEAL_KEY",
    "writer_key": f"{PREFIX}WRITER_KEY",
    "passphrase": f"{PREFIX}PASSPHRASE",
}
_FIELDS: Final = {
    "secret_keys_text": "secret_keys",
    "seal_key_text": "seal_key",
    "writer_key_file": "writer_key",
    "passphrase_text": "passphrase",
}
VARIABLES: Final = tuple(f"{PREFIX}{_FIELDS.get(name, name).upper()}" for name in Environment.model_fields)
"""The names of all variables that are read."""
_WATCHED: Final = (*VARIABLES, *_OUTSIDE)
_INIT: Final = "'tars-settings init' prints it"
_MADE_BY: Final = {
    "broker": "the broker's URL, such as mqtt://localhost:1883",
    "fleet": f"the fleet's public root key; {_INIT}",
    "state_dir": "a directory of this user's own",
    "instance": "a name for this running copy, such as its host's",
    "secret_keys": f"ID:BASE64 of each secret key, or the path of a file that holds such lines; {_INIT}",
    "seal_key": "base64 of 32 bytes, or the path of a file that holds it",
    "writer_key": "the path of the writer's key file; 'tars-settings init' makes one",
    "passphrase": "what opens key files that 'tars-settings keys passphrase' locked",
    "prefix": "the topic prefix of settings, the same in all of the fleet",
    "health_prefix": "the topic prefix of presence, the same in all of the fleet",
    "protocol": "auto, 5 or 3.1.1",
    "repair": "all, keepers or off",
    "repair_delay_s": "seconds, 0 to 600, that a repair waits for somebody else's at the most",
    "audit_s": "seconds, 1 to 86400, between comparisons of what is held with what the broker holds",
    "probation_s": "seconds, 0 to 86400, that a worker stays healthy on new values before they count as good",
}
SEAL_KEY_HEADER: Final = "# Seals this host's last known good values. Whoever has it can make them up."
_cache: Final[dict[str, Any]] = {}


def _read(cls: type[Environment], arguments: dict[str, Any]) -> Environment:
    complaints: list[str] = []
    try:
        return cls(**arguments)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_context=False, include_input=False)
        complaints += [_complaint(str(one["loc"][0]), one["msg"], arguments) for one in lines]
    # Raised outside the except block: the cause would carry the values.
    raise ConfigurationError("; ".join(complaints))


def _complaint(location: str, message: str, arguments: dict[str, Any]) -> str:
    name = location.removeprefix(PREFIX).lower()
    name = _FIELDS.get(name, name)
    given = location in arguments or name in arguments
    where = f"the argument {name!r}" if given else f"{PREFIX}{name.upper()}"
    expected = _MADE_BY.get(name, "no such variable is known")
    return f"{where} is malformed ({message.removeprefix('Value error, ')}); expected {expected}"


def _parsed(name: str, text: str, parse: Callable[[str], T]) -> T:
    reason = ""
    try:
        return parse(text)
    except (KeyFileError, IllegalNameError, StateDirError, OSError) as error:
        reason = str(error) if not isinstance(error, OSError) else (error.strerror or type(error).__name__)
    except ValueError:  # of the operating system's, and it may quote what it met
        reason = "it holds a NUL, or what is no text"
    raise ConfigurationError(f"{PREFIX}{name} is malformed ({reason}); expected {_MADE_BY[name.lower()]}")


def _secret_keys(text: str) -> dict[str, SecretKey]:
    lines = text.split(",") if _is_inline(text) else _lines_of(text)
    keys = [SecretKey.from_text(line) for line in lines if line.strip()]
    if len({key.id for key in keys}) != len(keys):
        raise KeyFileError("two secret keys have one id")
    return {key.id: key for key in keys}


def _is_inline(text: str) -> bool:
    # An id and a colon: no path of a key file begins so.
    return ":" in text and not text.startswith(("/", ".", "~"))


def _lines_of(path: str) -> list[str]:
    lines = _read_key(Path(os.path.expanduser(path))).splitlines()
    return [line for line in lines if not line.lstrip().startswith("#")]


def _seal_key(text: str) -> SealKey:
    from tars_settings.trust.seal import SealKey  # noqa: PLC0415 - only for who reads or writes what is sealed

    try:
        return SealKey.from_text(text)
    except KeyFileError:
        if not text.startswith(("/", ".", "~")):
            raise
    return SealKey.from_text(_key_line(Path(os.path.expanduser(text))))


def _key_line(path: Path) -> str:
    return "\n".join(line for line in _read_key(path).splitlines() if not line.startswith("#"))


def _seal_key_file(path: Path, *, create: bool) -> SealKey | None:
    from tars_settings.adapters.keyfiles import private_dir, write_key  # noqa: PLC0415 - only where keys are
    from tars_settings.trust.seal import SealKey  # noqa: PLC0415 - as above

    if os.path.lexists(path):
        return SealKey.from_text(_key_line(path))
    if not create:
        return None
    private_dir(path.parent)
    made = SealKey(os.urandom(32))
    try:
        write_key(path, f"{SEAL_KEY_HEADER}\n{made.to_text()}\n")
    except KeyFileError:
        if not os.path.lexists(path):
            raise
        return SealKey.from_text(_key_line(path))  # another process of this host was faster
    return made


def _read_key(path: Path) -> str:
    from tars_settings.adapters.keyfiles import read_key  # noqa: PLC0415 - only where keys are

    return read_key(path)
