"""What the fleet says, read from the broker or, without one, from this host's replica."""

from __future__ import annotations

import getpass
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tars_settings.cli.common import Common
from tars_settings.cli.moments import now
from tars_settings.cli.names import remember
from tars_settings.cli.render import MASK
from tars_settings.cli.session import session
from tars_settings.cli.tried import used_now
from tars_settings.core.audit import REVEALED
from tars_settings.core.delta import Ciphertext, Delta
from tars_settings.core.names import ALL, Scope
from tars_settings.core.records import DeltaRow, TrustRow
from tars_settings.core.register import Register, Registers
from tars_settings.errors import BrokerUnreachableError, DecryptionError, RejectedError
from tars_settings.schema import is_secret, keys_of
from tars_settings.sources.audit import note_audit
from tars_settings.sources.environment import Environment
from tars_settings.sources.fold import fresh, lay, standing, take_away
from tars_settings.sources.stored import follow_all
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.keys import SecretKey
from tars_settings.trust.secrets import decrypt
from tars_settings.trust.validity import Verdict, read_delta
from tars_settings.writer import Writer
from tars_settings.writer.archive import rows_of

_audit: Final = logging.getLogger("tars_settings.audit")

Winners = Mapping[str, Register]
NOTHING: Final[Any] = object()


@dataclass(frozen=True)
class Reading:
    """Winners by scope and key, under which trust, from where, and how complete each scope was.

    Where a trial is over, by this host's clock, a winner says what is used since.
    """

    trust: TrustDocument
    scopes: Mapping[str, Winners]
    source: Literal["broker", "replica"]
    states: Mapping[str, str] = field(default_factory=dict)
    schemas: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    deltas: tuple[Delta, ...] = ()
    """All that are held of these scopes, whether they won or not."""

    def of(self, scope: Scope) -> Reading:
        """Return it without what an instance, or a service as a whole, does not read."""
        wanted = bearing_on(scope)
        return replace(self, scopes={name: winners for name, winners in self.scopes.items() if name in wanted})

    def writer_name(self, register: Register) -> str:
        """Return who wrote it, by name where the trust document has one."""
        return self.trust.name_of(register.delta.stamp.kid)

    def is_secret(self, register: Register) -> bool:
        """Return whether a value is encrypted, or a worker's schema calls its key a secret."""
        service = Scope.parse(register.delta.scope).service
        known = self.schemas.get(service, ()) if service is not None else ()
        said = any(item.is_secret for item in register.delta.said() if item.key == register.key)
        return said or any(is_secret(schema, register.key) for schema in known)


def read(
    common: Common,
    service: Scope | None,
    *,
    offline: bool,
    timeout_s: float,
    look: Callable[[Writer], None] | None = None,
    glance: Callable[[Writer], None] | None = None,
) -> Reading:
    """Return what the fleet says: of one service and its instances, or of all that is known.

    From the replica when *offline*, or when the broker can't be reached (which is said). *look* sees the open
    connection, before it closes, and can't do without one; *glance* can.

    Raises:
        ConfigurationError: fleet, keys or broker are not configured.
        ReplicaError: neither can be read.
    """
    environment = common.environment()
    if offline:
        return from_replica(environment, service)
    try:
        return _from_broker(common, service, timeout_s, look or glance)
    except BrokerUnreachableError as error:
        if look is not None:
            raise
        common.out.note(f"{error}\nShown is what this host's replica holds, which may be old.")
        return from_replica(environment, service)


def _from_broker(
    common: Common, service: Scope | None, timeout_s: float, look: Callable[[Writer], None] | None
) -> Reading:
    with session(common) as writer:
        states = Followed(common, writer, service).states(timeout_s)
        reading = taken(writer, states)
        if look is not None:
            look(writer)
    told = {name: {key for schema in known for key in keys_of(schema)} for name, known in reading.schemas.items()}
    seen = {*reading.scopes, *told}
    remember(common.environment(), {name: {*reading.scopes.get(name, ()), *told.get(name, ())} for name in seen})
    return reading


class Followed:
    """The scopes that an open connection reads for one service, or for all: more, when more workers report."""

    def __init__(self, common: Common, writer: Writer, service: Scope | None) -> None:
        self._writer = writer
        self._service = service
        self._kept = set(from_replica(common.environment(), None).scopes)

    def states(self, timeout_s: float = 0.0) -> dict[str, str]:
        """Return the state of each scope that there is now, and wait for each at most *timeout_s*."""
        names = _wanted(self._service, {*self._kept, *spoken_for(self._writer, self._service)})
        return {name: self._writer.sync(name, timeout_s) for name in names}


def taken(writer: Writer, states: Mapping[str, str]) -> Reading:
    """Return what an open connection holds of the scopes in *states* now."""
    wall = now()
    scopes = {name: used_now(writer.view(name), wall) for name in states}
    services = {Scope.parse(name).service for name in states} - {None}
    schemas = {name: tuple(writer.schemas(name)) for name in services if name is not None}
    return Reading(writer.trust, scopes, "broker", states, schemas, _held(writer, states))


def _held(writer: Writer, names: Iterable[str]) -> tuple[Delta, ...]:
    found: list[Delta] = []
    registers = writer.agent.replicator.peer.registers
    writer.agent.call(lambda: found.extend(one for name in names for one in registers.deltas(name)))
    return tuple(found)


def spoken_for(writer: Writer, service: Scope | None) -> set[str]:
    """Return the scopes of the workers that reported: which others there are, a broker does not say."""
    workers = writer.presences(None if service is None else service.service)
    return {str(Scope(one.service, instance)) for one in workers for instance in (None, one.instance)}


def bearing_on(scope: Scope) -> tuple[str, ...]:
    """Return the scopes whose values bear on a scope, lowest first.

    >>> bearing_on(Scope("stt-worker", "pi-3")), bearing_on(Scope.parse("_all"))
    (('_all', 'stt-worker', 'stt-worker@pi-3'), ('_all',))
    """
    own = [] if scope.service is None else [str(Scope(scope.service))]
    return tuple(dict.fromkeys([ALL, *own, str(scope)]))


def _wanted(service: Scope | None, seen: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes to read: all of them, or those that bear on one service or one instance."""
    if service is None:
        return tuple(sorted({ALL, *seen}))
    if service.instance is not None:
        return bearing_on(service)
    own = {name for name in seen if Scope.parse(name).service == service.service}
    return tuple(sorted({ALL, str(service), *own}))


def from_replica(environment: Environment, service: Scope | None) -> Reading:
    """Return what this host's replica holds, every signature verified again.

    Raises:
        ReplicaError: it can't be read.
    """
    rows = rows_of(environment.replica_path)
    raws = [row.raw for row in rows if isinstance(row, TrustRow)]
    trust, _ = follow_all(environment.pinned(), raws)
    registers = Registers()
    for row in rows:
        if isinstance(row, DeltaRow):
            _offer(registers, row.raw, trust)
    names = _wanted(service, registers.scopes())
    wall = now()
    held = tuple(one for name in names for one in registers.deltas(name))
    return Reading(trust, {name: used_now(registers.winners(name), wall) for name in names}, "replica", deltas=held)


def _offer(registers: Registers, raw: bytes, trust: TrustDocument) -> None:
    try:
        delta, judgement = read_delta(raw, trust)
    except RejectedError:
        return
    if judgement.verdict is Verdict.VALID:
        registers.offer(delta)


class Values:
    """Values of registers as they may be shown: secrets masked, unless their key was asked for by name.

    A revealed value leaves an entry in the audit trail and a line in the log ``tars_settings.audit``.
    """

    def __init__(self, reading: Reading, environment: Environment, reveal: Collection[str] = ()) -> None:
        self._reading = reading
        self._environment = environment
        self._keys: dict[str, SecretKey] = environment.secret_keys() if reveal else {}
        self._reveal = frozenset(reveal)
        self.revealed: list[str] = []

    def shown(self, register: Register) -> Any:
        """Return the value that may be shown.

        Raises:
            DecryptionError: it was asked for, and can't be decrypted here.
        """
        if register.assignment.unset or not self._reading.is_secret(register):
            return register.assignment.set
        if register.key not in self._reveal:
            return MASK
        where = f"{register.delta.scope} {register.key}"
        value = opened(register, self._keys, self._reading.trust.fleet)
        self._noted(where)
        return value

    def plain(self, scope: str, key: str, value: Any, *, secret: bool) -> Any:
        """Return a value that was decrypted before, as it may be shown."""
        if not secret:
            return value
        if key not in self._reveal:
            return MASK
        self._noted(f"{scope} {key}")
        return value

    def _noted(self, where: str) -> None:
        if where not in self.revealed:
            self.revealed.append(where)
            self._note(where)

    def _note(self, where: str) -> None:
        user = getpass.getuser()
        _audit.info("revealed: %s, to %s", where, user, extra={"tars_event": "revealed"})
        if not note_audit(self._environment, REVEALED, f"{where} {user}", place=where, detail=f"shown to {user}"):
            _audit.warning("it could not be noted in the replica", extra={"tars_event": "revealed"})

    def holds(self, register: Register, value: Any) -> bool:
        """Return whether a register holds a value; an encrypted one that can't be opened here is taken to differ."""
        keys = self._environment.secret_keys() if register.assignment.is_secret else {}
        try:
            held = opened(register, keys, self._reading.trust.fleet)
        except DecryptionError:
            return False
        return json.dumps(held, sort_keys=True) == json.dumps(value, sort_keys=True)


def opened(register: Register, keys: dict[str, SecretKey], fleet: str) -> Any:
    """Return the value of a register, decrypted where it is a secret. Nobody is to see it.

    Raises:
        DecryptionError: it can't be decrypted with these keys.
    """
    ciphertext = register.assignment.secret
    if not isinstance(ciphertext, Ciphertext):
        return register.assignment.set
    scope, key = register.delta.scope, register.key
    try:
        return json.loads(decrypt(ciphertext, keys, fleet=fleet, scope=scope, key=key))
    except DecryptionError as error:
        reason = str(error)
    except ValueError:
        reason = "what was encrypted is no JSON"
    # Raised out here: the context would hold what was decrypted.
    raise DecryptionError(f"{scope} {key}: {reason.removeprefix(f'{scope} {key}: ')}")


def folded(reading: Reading, values: Values) -> dict[str, Any]:
    """Return what the scopes say together, as nested objects: instance over service over ``_all``."""
    state: dict[str, Any] = {}
    for _, winners in sorted(reading.scopes.items(), key=lambda item: _precedence(item[0])):
        layer: dict[str, Any] = {}
        for register in standing(winners.values()):
            path = register.key.split(".")
            if register.assignment.unset:
                take_away(layer, path)
            else:
                # A copy: a leaf that is put into it below must not change what its delta says.
                put(layer, path, fresh(values.shown(register)))
        state = lay(state, layer)
    return state


def at(state: Any, key: str) -> Any:
    """Return the value at a dotted key, :data:`NOTHING` where there is none.

    >>> at({"a": {"b": 1}}, "a.b"), at({"a": 1}, "a.b") is NOTHING
    (1, True)
    """
    for part in key.split("."):
        if not isinstance(state, dict) or part not in state:
            return NOTHING
        state = state[part]
    return state


def _precedence(scope: str) -> int:
    parsed = Scope.parse(scope)
    return (parsed.service is not None) + (parsed.instance is not None)


def put(state: dict[str, Any], path: list[str], value: Any) -> None:
    """Set the value at a dotted path, making objects on the way.

    >>> state = {"a": 1}
    >>> put(state, ["a", "b"], 2); state
    {'a': {'b': 2}}
    """
    for part in path[:-1]:
        below = state.get(part)
        if not isinstance(below, dict):
            below = state[part] = {}
        state = below
    state[path[-1]] = value
