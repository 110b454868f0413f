"""The fleet as a source of the chain: in our Settings, or alone in a user's own BaseSettings.

It comes last, just above the defaults, unless a user puts it elsewhere. It reads the replica (or what was last known to
be good) when the chain runs, never the network.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
import pydantic_core
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from tars_settings.core.delta import Ciphertext
from tars_settings.core.names import check_service
from tars_settings.core.register import FleetView, Register
from tars_settings.errors import ConfigurationError, DecryptionError
from tars_settings.provenance.resolution import Origin, Resolution
from tars_settings.sources.environment import Environment
from tars_settings.sources.fold import Folded, Folder, Said, State, default_base, fresh, lay
from tars_settings.sources.overrides import overriding
from tars_settings.sources.settle import Refused, Settler
from tars_settings.sources.stored import StoredFleet, load_stored, merged
from tars_settings.trust.document import TrustDocument

if TYPE_CHECKING:
    from tars_settings.sources.lastgood import Kept
    from tars_settings.trust.keys import SecretKey

_log = logging.getLogger("tars_settings.sources")
_DEFAULTS: Final = "DefaultSettingsSource"
B = TypeVar("B", bound=BaseModel)


def service_of(settings_cls: type[BaseSettings]) -> str | None:
    """Return the service that a Settings class names, None where it names none.

    Raises:
        IllegalNameError: what it names is no service.
    """
    service = cast("str | None", settings_cls.model_config.get("service"))
    return None if service is None else check_service(service)


class Building(msgspec.Struct):
    """One construction of a settings object of a class that falls back by itself: which fleet sources took part.

    While ``capturing``, sources say nothing and read nothing: what the others say is wanted.
    """

    settings_cls: type
    capturing: bool = False
    sources: list[FleetSettingsSource] = []  # msgspec copies an empty default

    @property
    def source(self) -> FleetSettingsSource | None:
        """The fleet's source that spoke for the class, None where the chain has none."""
        return next((one for one in reversed(self.sources) if one.settings_cls is self.settings_cls), None)


building: Final = contextvars.ContextVar[Building | None]("tars_settings_building", default=None)


class Captured:
    """What the other sources of a chain said once: enough to build the state anew with other fleet values."""

    def __init__(self, source: FleetSettingsSource) -> None:
        states = {**source.settings_sources_data, **source.said_above}
        names = list(states)
        ours = names.index(source.name) if source.name in names else len(names)
        self.model = source.settings_cls
        self.fleet_source = source.name
        self.chain: tuple[Any, ...] = source.chain
        self.states: Mapping[str, Mapping[str, Any]] = states
        self.above: State = source.above
        self.defaults: Mapping[str, Any] = states.get(_DEFAULTS, {})
        self.below: State = {}
        for name in names[ours + 1 :]:
            if name != _DEFAULTS:
                self.below = lay(states[name], self.below)
        self._elsewhere = {*self.above, *self.below}

    def compose(self, folded: Folded) -> State:
        """Return the state that pydantic would see with these fleet values."""
        fleet = with_defaults(self.model, folded, self._elsewhere)
        state = lay(lay(self.below, fleet), self.above) if self.below else lay(fleet, self.above)
        overrides = overriding(self.model)
        state = lay(state, overrides) if overrides else state
        if not self.defaults:
            return state
        laid = lay(self.defaults, state)
        # As pydantic-settings does: an untouched default is left to the model, which copies it unvalidated.
        return {key: value for key, value in laid.items() if key not in self.defaults or self.defaults[key] != value}

    def attempt(self, folded: Folded, instance: B) -> B | ValidationError:
        """Validate *instance* in place and return it, or the error without secrets.

        By the model alone: neither the chain nor a user's ``__init__`` runs again.
        """
        state = self.compose(folded)
        try:
            # Before-validators take things out of the dicts that they are given: never out of what was captured.
            BaseModel.__init__(instance, **fresh(state))
        except ValidationError as error:
            return _without_secrets(error, self.model, state, folded)
        return instance


def with_defaults(model: type, folded: Folded, said_elsewhere: set[str]) -> State:
    """Return the fleet's state over the field defaults that its leaves reach into."""
    if not folded.is_deep or model_updates_defaults(model):
        return folded.state
    base = default_base(model, folded, said_elsewhere)
    return lay(base, folded.state) if base else folded.state


def model_updates_defaults(model: type) -> bool:
    """Return whether pydantic-settings itself lays values over the defaults of nested models for this class."""
    config: Mapping[str, Any] = getattr(model, "model_config", {})
    return bool(config.get("nested_model_default_partial_update"))


def _without_secrets(error: ValidationError, model: type, state: State, folded: Folded) -> ValidationError:
    """Return the error without the texts at secret fields and those that came encrypted, whatever type a field has."""
    from tars_settings.sources.failures import secret_texts, texts_of, without_secrets  # noqa: PLC0415 - rarely needed

    secrets = [text for one in folded.placed if one.register.assignment.is_secret for text in texts_of(one.value)]
    return without_secrets(error, model, (*secret_texts(model, state), *secrets))


def opener(fleet: str, secret_keys: Callable[[], Mapping[str, SecretKey]]) -> Callable[[Register], Any]:
    """Return what opens encrypted registers; each ciphertext is decrypted once."""
    opened: dict[tuple[bytes, str, bool], Any] = {}
    keys = functools.cache(lambda: dict(secret_keys()))

    def keys_with(wanted: str) -> dict[str, SecretKey]:
        held = keys()
        if wanted in held:
            return held
        # A key that was added to the file since: a rotation needs no restart.
        with contextlib.suppress(ConfigurationError):
            fresh = dict(secret_keys())
            if wanted in fresh:
                keys.cache_clear()
                return keys()
        return held

    def open_secret(register: Register) -> Any:
        from tars_settings.trust.secrets import decrypt  # noqa: PLC0415 - only where a value is encrypted

        place = (register.delta.stamp.digest, register.key, register.undone)
        if place not in opened:
            ciphertext: Ciphertext = register.assignment.secret  # type: ignore[assignment] # the caller asked is_secret
            plain = decrypt(
                ciphertext,
                keys_with(ciphertext.id),
                fleet=fleet,
                scope=register.delta.scope,
                key=register.key,
            )
            opened[place] = _json_of(plain, register)
        return opened[place]

    return open_secret


def _json_of(plain: bytes, register: Register) -> Any:
    try:
        return pydantic_core.from_json(plain, allow_inf_nan=False)
    except ValueError:
        pass
    # Raised out here: the other's context would hold the text.
    raise DecryptionError(f"{register.delta.scope} {register.key}: what was encrypted is no JSON")


class FleetSettingsSource(PydanticBaseSettingsSource):
    """Says what the fleet says, from the replica or from what was last known to be good.

    In our Settings it is there already. In a BaseSettings of one's own, add it in ``settings_customise_sources``:
    ``FleetSettingsSource(settings_cls, service="stt-worker")``. Without a service, or where ``TARS_SETTINGS_FLEET`` is
    not set, it says nothing. Fleet values never make a settings object fail: what does not validate is left out.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        *,
        service: str | None = None,
        environment: Environment | None = None,
    ) -> None:
        super().__init__(settings_cls)
        self.service = service_of(settings_cls) if service is None else check_service(service)
        self.chain: tuple[Any, ...] = ()
        self.origin: Origin = "none"
        self.stored: StoredFleet | None = None
        self.folded = Folded({})
        self.said = Said(FleetView())
        self.above: State = {}
        self.said_above: dict[str, Any] = {}
        self._given = environment
        self._opener: Callable[[Register], Any] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(service={self.service!r})"

    @property
    def name(self) -> str:
        """The name under which pydantic-settings keeps this source's state."""
        return type(self).__name__

    @property
    def environment(self) -> Environment:
        """Where and whom to trust: as given, else the process's.

        Raises:
            ConfigurationError: a variable is malformed.
        """
        return Environment.read() if self._given is None else self._given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return what the fleet says of a top-level field, after the source was called."""
        del field
        found = self.folder().steps_of(field_name)
        key = found[0].used if found else field_name
        return self.folded.state.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        """Return what the fleet says, in the model's input names."""
        current = building.get()
        heals = current is not None and current.settings_cls is self.settings_cls
        if current is not None and heals:
            current.sources.append(self)
            # Kept before the model sees them: its before-validators may take dicts apart.
            self.above = fresh(self.current_state)
            if current.capturing:
                self.said_above = fresh(self.settings_sources_data)
        if (heals and current is not None and current.capturing) or self.service is None:
            return {}
        environment = self.environment
        if environment.fleet is None:
            return {}
        self._load(self.service, environment)
        settler = Settler(self.said, self.folder(), self._attempt)
        settled = settler.opened() if heals else settler.settle_named()
        warn_refused(self.service, settled.refused)
        self.folded = settled.folded
        return with_defaults(self.settings_cls, self.folded, set(self.current_state))

    def _load(self, service: str, environment: Environment) -> None:
        self.stored = load_stored(environment, service)
        self.origin = "replica"
        view = self.stored.view
        before = _before_a_loop(environment, service, self.stored.document)
        if before is not None:
            self.origin = "last known good"
            _log.warning("%s: new values kept ending badly, reading those before them", service)
            view = before.view
        elif self.stored.trouble or self.stored.document.is_pin:
            kept = next(self.last_goods(), None)
            if kept is not None:
                self.origin = "last known good"
                _log.warning("%s: the replica is not whole, reading the last known good values too", service)
                view = merged(view, kept.view)
        self.said = Said(view)

    def folder(self) -> Folder:
        """Return what folds registers for this class, below what the sources above say."""
        if self._opener is None:
            environment = self.environment
            fleet = "" if environment.fleet is None else environment.fleet_id
            self._opener = opener(fleet, environment.secret_keys)
        return Folder(self.settings_cls, self.current_state, self._opener)

    def last_goods(self) -> Iterator[Kept]:
        """Yield this host's last known good values, newest first."""
        if self.service is not None and self.stored is not None:
            from tars_settings.sources.lastgood import usable_lkgs  # noqa: PLC0415 - only where the replica fails

            yield from usable_lkgs(self.environment, self.service, known=self.stored.document)

    def _attempt(self, folded: Folded) -> ValidationError | None:
        """Try the model with what is above: a class that can't fall back by itself gets only what validates."""
        state = lay(with_defaults(self.settings_cls, folded, set(self.current_state)), self.current_state)
        try:
            BaseModel.__init__(self.settings_cls.__new__(self.settings_cls), **fresh(state))
        except ValidationError as error:
            return _without_secrets(error, self.settings_cls, state, folded)
        return None

    @property
    def document(self) -> TrustDocument | None:
        """The trust document that judged the values."""
        return None if self.stored is None else self.stored.document

    def resolution(self, folded: Folded, origin: Origin) -> Resolution:
        """Return how an instance with these fleet values came about."""
        return Resolution(
            self.settings_cls,
            self.settings_sources_data,
            self.chain,
            self.name,
            folded.placed,
            origin,
            self.document,
        )


def _before_a_loop(environment: Environment, service: str, document: TrustDocument) -> Kept | None:
    """Return the values to read where processes keep ending badly on the newest ones, None where they don't."""
    if not os.path.lexists(environment.starts_path(service)):
        return None
    from tars_settings.sources.starts import StartMarks, previous_good  # noqa: PLC0415 - only while on probation

    looping = StartMarks(environment, service, lambda: time.time_ns() // 1_000_000).looping()
    return previous_good(environment, service, looping, document) if looping else None


def warn_refused(service: str | None, refused: tuple[Refused, ...]) -> None:
    """Log one line that names the deltas that were left out."""
    if refused:
        named = ", ".join(f"{one.delta.scope}@{one.delta.stamp.epoch} ({', '.join(one.keys)})" for one in refused)
        _log.warning("%s: left out what does not validate here: %s", service, named)
