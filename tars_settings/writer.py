"""What an operator touches: signing pushes, and hearing who applied them.

``Writer`` is what the command line is made of. It wires an agent that holds a writer's key, follows the scopes that it
is asked about, and listens to presence.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import msgspec
from pydantic_settings import BaseSettings

from tars_settings import errors
from tars_settings.agent.assemble import TransportFactory, assemble, mqtt_transport
from tars_settings.agent.loop import Agent
from tars_settings.core.delta import Ack, Assignment, Ciphertext
from tars_settings.core.names import ALL, Scope, check_key
from tars_settings.core.presence import Presence, parse_presence
from tars_settings.core.register import Register
from tars_settings.core.session import Received, SessionDown, SessionUp
from tars_settings.core.topics import PresenceTopic, SchemaTopic
from tars_settings.core.wire import check_value, encode, short_hash
from tars_settings.errors import (
    BrokerUnreachableError,
    InvalidValueError,
    MalformedError,
    NoServiceError,
    PlainOrSecretError,
    RefusedError,
    SecretKeyMissingError,
    UsageError,
)
from tars_settings.gossip.effects import Follow, Notice, Push, Stage
from tars_settings.schema import check, is_secret, schema_of, values_for
from tars_settings.settings import service_of
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.keys import SigningKey
from tars_settings.trust.secrets import DEFAULT_ALGORITHM, NONCE_BYTES, encrypt

T = TypeVar("T")

CONNECT_WITHIN_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.02
SETTLE_S: Final = 0.3
"""How long a replay of presences and schemas may stay silent before it counts as complete."""
ASK_ALL_UP_TO: Final = 100
"""Workers that are all asked to report at once; of more, about this many are."""

Need = Literal["accepted", "retained", "applied"]
Fate = Literal["applied", "refused", "silent", "offline"]
_ENDS: Final = ("retained", "superseded", "unconfirmed", "refused")


class Reply(msgspec.Struct, frozen=True):
    """What became of a push at one worker; ``after_s`` is how long after the push its report arrived."""

    service: str
    instance: str
    fate: Fate
    message: str = ""
    shadowed: dict[str, str] = {}
    after_s: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """The result of a push: how strong it is at the broker, and what each worker said."""

    stage: str
    reason: str = ""
    replies: tuple[Reply, ...] = ()
    asked: int = 0

    @property
    def applied(self) -> int:
        """How many workers applied it."""
        return sum(1 for reply in self.replies if reply.fate == "applied")

    @property
    def refused(self) -> tuple[Reply, ...]:
        """The workers whose model refused it."""
        return tuple(reply for reply in self.replies if reply.fate == "refused")


class Receipt:
    """A push that was signed. ``stage`` grows: signed, accepted, then retained, superseded or unconfirmed."""

    def __init__(self, writer: Writer, scope: str, keys: tuple[str, ...]) -> None:
        self.scope = scope
        self.keys = keys
        self.gen = 0
        self.epoch = 0
        self.digest = ""
        self.stage = ""
        self.reason = ""
        self.synced = True
        self.error = ""
        self.pushed_s = time.monotonic()
        self._writer = writer

    def __repr__(self) -> str:
        return f"<Receipt {self.scope} epoch {self.epoch} {self.stage}>"

    def take(self, stage: Stage) -> None:
        """Take note of progress; in the agent's thread, under the writer's lock."""
        self.stage, self.reason, self.error = stage.stage, stage.reason, stage.error
        if stage.epoch:
            self.gen, self.epoch, self.digest = stage.gen, stage.epoch, stage.digest
        if stage.stage == "signed":
            self.synced = stage.synced

    def wait(
        self, timeout_s: float = 5.0, need: Need = "applied", *, on_reply: Callable[[Reply], None] | None = None
    ) -> Report:
        """Wait for a result of the strength *need* for *timeout_s* at most, and return how far it came.

        ``applied`` waits for a report of every live worker that was asked; *on_reply* is told of each as it comes.
        """
        return self._writer.wait(self, timeout_s, need, on_reply)


class Writer:
    """A peer that holds a writer's key. Connects on entering; arguments stand in for ``TARS_SETTINGS_*`` variables.

    *writer_key* is a path, or a SigningKey; in its absence TARS_SETTINGS_WRITER_KEY names the file. With *read_only* it
    only looks, and needs no key.
    """

    def __init__(
        self,
        *,
        writer_key: Path | str | SigningKey | None = None,
        read_only: bool = False,
        transport: TransportFactory = mqtt_transport,
        connect_within_s: float = CONNECT_WITHIN_S,
        **given: Any,
    ) -> None:
        is_key = isinstance(writer_key, SigningKey)
        path = None if is_key or writer_key is None else str(writer_key)
        self._environment = Environment.read(writer_key=path, **given)
        self._signer: SigningKey | None = None
        if isinstance(writer_key, SigningKey):
            self._signer = writer_key
        elif not read_only:
            self._signer = self._environment.writer_key()
        self._connect_within_s = connect_within_s
        self._agent = assemble(self._environment, name="writer", signer=self._signer, transport=transport)
        self._changed = threading.Condition()
        self._receipts: dict[int, Receipt] = {}
        self._presences: dict[tuple[str, str], tuple[Presence, float]] = {}
        self._schemas: dict[str, dict[str, bytes]] = {}
        self._heard_s = 0.0
        self._refs = 0
        self._followed: set[str] = set()

    # --- entering and leaving ----------------------------------------------------------------------------------------

    def __enter__(self) -> Writer:
        self._agent.load()
        self._agent.add_listener(self)
        self._agent.start()
        if not self._until(lambda: self._agent.connected, self._connect_within_s):
            reason = self._agent.disconnect_reason or "it does not answer"
            self.close()
            raise BrokerUnreachableError(f"no connection to the broker within {self._connect_within_s:g} s: {reason}")
        # Whoever holds a key sees to it that the broker holds the trust document, however short the visit.
        self._until(lambda: self._agent.replicator.knows_trust, self._connect_within_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; harmless twice. What was signed and not read back is sent again by the next writer here."""
        self._agent.stop()

    @property
    def environment(self) -> Environment:
        """Where and whom this writer trusts."""
        return self._environment

    @property
    def trust(self) -> TrustDocument:
        """The trust document in force; the pin where none was found."""
        return self._agent.replicator.peer.trust

    @property
    def agent(self) -> Agent:
        """The thread behind it."""
        return self._agent

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def on_session(self, event: SessionUp | SessionDown) -> None:
        """Wake whoever waits for the connection, and follow again what was followed."""
        if isinstance(event, SessionUp) and self._followed:
            self._agent.subscribe(tuple(sorted(self._followed)))
        with self._changed:
            self._changed.notify_all()

    def on_burst(self, notices: Sequence[Notice]) -> None:
        """Take note of progress."""
        with self._changed:
            for notice in notices:
                if isinstance(notice, Stage) and notice.ref in self._receipts:
                    self._receipts[notice.ref].take(notice)
            self._changed.notify_all()

    def on_message(self, received: Received) -> None:
        """Take note of presence and schemas; both are claims, and only shown or made stricter by."""
        topic = self._agent.replicator.topics.parse(received.topic)
        with self._changed:
            self._heard_s = time.monotonic()
            if isinstance(topic, PresenceTopic):
                self._on_presence(topic, received.payload)
            elif isinstance(topic, SchemaTopic) and short_hash(received.payload) == topic.hash:
                self._schemas.setdefault(topic.scope, {})[topic.hash] = received.payload
            self._changed.notify_all()

    def _on_presence(self, topic: PresenceTopic, payload: bytes) -> None:
        if not payload:
            self._presences.pop((topic.service, topic.instance), None)
            return
        with contextlib.suppress(MalformedError):
            presence = parse_presence(payload)
            if (presence.service, presence.instance) == (topic.service, topic.instance):
                self._presences[topic.service, topic.instance] = (presence, time.monotonic())

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        due_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left_s = due_s - time.monotonic()
                if left_s <= 0:
                    return False
                # Not everything that is waited for has a notice of its own.
                self._changed.wait(min(left_s, LOOK_AGAIN_S))
        return True

    def _settled(self, timeout_s: float) -> None:
        """Wait until a replay has been silent for a moment."""
        began_s = time.monotonic()
        with self._changed:
            self._heard_s = began_s
            while (now_s := time.monotonic()) < began_s + timeout_s and now_s < self._heard_s + SETTLE_S:
                self._changed.wait(max(0.0, self._heard_s + SETTLE_S - now_s))

    def _follow(self, topic_filter: str, timeout_s: float) -> None:
        """Subscribe to a filter of presences or schemas for good, and wait for its replay the first time."""
        if topic_filter in self._followed:
            return
        self._followed.add(topic_filter)
        self._agent.submit(lambda: self._agent.subscribe((topic_filter,)))
        self._settled(timeout_s)

    # --- looking -----------------------------------------------------------------------------------------------------

    def sync(self, scope: str, timeout_s: float = 6.0) -> str:
        """Catch up with a scope and return its state: ready, degraded, or joining where it took too long.

        Raises:
            IllegalNameError: no such scope can be.
        """
        name = str(Scope.parse(scope))
        if name not in self._agent.replicator.scopes:
            self._agent.submit(lambda: self._agent.feed(Follow(name)))
        self._until(lambda: self._agent.replicator.state_of(name) != "joining", timeout_s)
        return self._agent.replicator.state_of(name)

    def view(self, scope: str) -> dict[str, Register]:
        """Return the winners of a scope by key, tombstones too; call :meth:`sync` first."""
        found: dict[str, Register] = {}
        self._agent.call(lambda: found.update(self._agent.replicator.peer.registers.winners(scope)))
        return found

    def presences(self, service: str | None = None, timeout_s: float = 2.0) -> list[Presence]:
        """Return what workers say of themselves, by service and instance.

        A worker whose process died is ``offline`` even where only a sibling's last will says so.
        """
        self._follow(self._agent.replicator.topics.presence_filter(service), timeout_s)
        with self._changed:
            held = [one for one, _ in self._presences.values() if service in (None, one.service)]
        gone = {one.ext.get("session") for one in held if one.state == "offline"} - {None}
        known = [
            msgspec.structs.replace(one, state="offline") if one.ext.get("session") in gone else one for one in held
        ]
        return sorted(known, key=lambda one: (one.service, one.instance))

    def schemas(self, service: str, timeout_s: float = 2.0) -> list[bytes]:
        """Return the JSON Schemas that workers of a service published; advice, since anyone can publish one."""
        self._follow(self._agent.replicator.topics.schema_filter(service), timeout_s)
        with self._changed:
            return [schema for _, schema in sorted(self._schemas.get(service, {}).items())]

    # --- pushing -----------------------------------------------------------------------------------------------------

    def push(  # noqa: PLR0913 - each is a flag that an operator types
        self,
        target: type[BaseSettings] | str,
        values: Mapping[str, Any],
        *,
        unset: Iterable[str] = (),
        instance: str | None = None,
        secret: Collection[str] = (),
        plain: Collection[str] = (),
        reason: str = "",
        by: str | None = None,
        expect_epoch: int | None = None,
        force: bool = False,
        timeout_s: float = 10.0,
    ) -> Receipt:
        """Sign and publish a change of one scope, and return its receipt as soon as it is signed and stored.

        *target* is a Settings class, or a scope such as ``stt-worker``, ``stt-worker@pi-3`` or ``_all``. Values are
        checked against the class, else against every schema that workers of the service published. A key is encrypted
        when the class, a schema, an earlier signed delta or *secret* says so; *plain* says that it is none.

        Raises:
            InvalidValueError: values do not fit; all bad keys are named together. Nothing was signed.
            PlainOrSecretError: nobody said whether the first value of a key is a secret.
            NotGrantedError, NotSyncedError, ConflictError, EpochExhaustedError: the answer is no. Nothing was signed.
            TooLargeError: it does not fit a delta; the message says which split would.
        """
        scope = self._scope_of(target, instance)
        self.sync(scope)
        assign = self._assignments(target, scope, values, tuple(unset), secret=secret, plain=plain)
        receipt = Receipt(self, scope, tuple(item.key for item in assign))
        with self._changed:
            self._refs += 1
            ref = self._refs
            self._receipts[ref] = receipt
        self.presences(Scope.parse(scope).service)
        push = Push(
            ref,
            scope,
            assign,
            at=self._agent.clock.wall().isoformat(timespec="seconds").replace("+00:00", "Z"),
            by=_user() if by is None else by,
            reason=reason,
            ack=self._ack(scope),
            expect_epoch=expect_epoch,
            force=force,
        )
        receipt.pushed_s = time.monotonic()
        self._agent.submit(lambda: self._agent.feed(push))
        if not self._until(lambda: receipt.stage != "", timeout_s):
            raise errors.NotSyncedError(f"{scope} could not be caught up within {timeout_s:g} s")
        if receipt.stage == "refused":
            raise _refusal(receipt)
        return receipt

    def unset(self, target: type[BaseSettings] | str, keys: Iterable[str], **more: Any) -> Receipt:
        """Take a scope's opinion on *keys* away; the next lower scope's, or the default, shows again."""
        return self.push(target, {}, unset=keys, **more)

    def _scope_of(self, target: type[BaseSettings] | str, instance: str | None) -> str:
        service = target if isinstance(target, str) else service_of(target)
        if service is None:
            raise NoServiceError(f"{target!r} names no service")
        if instance is not None:
            if "@" in service or service == ALL:
                raise UsageError(f"{service!r} is not a service alone; leave the instance out")
            service = f"{service}@{instance}"
        return str(Scope.parse(service))

    def _ack(self, scope: str) -> Ack:
        live = [one for one in self._relevant(scope) if one.state != "offline"]
        if len(live) <= ASK_ALL_UP_TO:
            return Ack(1, 0.0)
        return Ack(len(live) // ASK_ALL_UP_TO, 1.0)

    def _relevant(self, scope: str) -> list[Presence]:
        """Return the presences of the workers that read a scope."""
        wanted = Scope.parse(scope)
        with self._changed:
            held = [one for one, _ in self._presences.values()]
        return [
            one for one in held if (wanted.service in (None, one.service)) and (wanted.instance in (None, one.instance))
        ]

    # --- values ------------------------------------------------------------------------------------------------------

    def _assignments(
        self,
        target: type[BaseSettings] | str,
        scope: str,
        values: Mapping[str, Any],
        unset: tuple[str, ...],
        *,
        secret: Collection[str],
        plain: Collection[str],
    ) -> tuple[Assignment, ...]:
        for key in (*values, *unset):
            check_key(key)
        if both := set(values) & set(unset):
            raise UsageError(f"set and unset at once: {', '.join(sorted(both))}")
        if not values and not unset:
            raise UsageError("nothing to push")
        service = Scope.parse(scope).service
        if isinstance(target, str):
            schemas = self.schemas(service) if service is not None else []
            checked = _checked(schemas, values)
        else:
            schemas = [schema_of(target)]
            checked = values_for(target, dict(values))
        held = self.view(scope)
        items = [
            self._assignment(scope, key, value, is_secret=self._is_secret(key, schemas, held, secret, plain))
            for key, value in checked.items()
        ]
        return (*items, *(Assignment(key, unset=True) for key in unset))

    def _is_secret(
        self,
        key: str,
        schemas: Sequence[bytes],
        held: Mapping[str, Register],
        secret: Collection[str],
        plain: Collection[str],
    ) -> bool:
        said = [is_secret(schema, key) for schema in schemas]
        earlier = held.get(key)
        if key in secret or any(said) or (earlier is not None and earlier.assignment.is_secret):
            if key in plain:
                raise InvalidValueError(f"{key} is a secret; it can't be pushed in plain text")
            return True
        if key in plain or earlier is not None or any(one is False for one in said):
            return False
        raise PlainOrSecretError(
            f"nobody described {key} yet: no worker published a schema with it, and no delta holds it. "
            f"Say --plain {key} or --secret {key}, or --model module:Class"
        )

    def _assignment(self, scope: str, key: str, value: Any, *, is_secret: bool) -> Assignment:
        check_value(value)
        if not is_secret:
            return Assignment(key, set=value)
        return Assignment(key, secret=self._encrypted(scope, key, value))

    def _encrypted(self, scope: str, key: str, value: Any) -> Ciphertext:
        keys = self._environment.secret_keys()
        service = Scope.parse(scope).service or "all"
        secret_key = keys.get(service) or next(iter(keys.values()), None)
        if secret_key is None:
            raise SecretKeyMissingError(
                f"{key} is a secret, and TARS_SETTINGS_SECRET_KEYS holds no key to encrypt it with"
            )
        return encrypt(
            encode(value),
            secret_key,
            fleet=self._environment.fleet_id,
            scope=scope,
            key=key,
            nonce=self._agent.clock.token(NONCE_BYTES[DEFAULT_ALGORITHM]),
        )

    # --- results -----------------------------------------------------------------------------------------------------

    def wait(
        self, receipt: Receipt, timeout_s: float, need: Need, on_reply: Callable[[Reply], None] | None = None
    ) -> Report:
        """Wait as :meth:`Receipt.wait` says."""
        due_s = time.monotonic() + timeout_s
        enough = ("accepted", *_ENDS) if need == "accepted" else _ENDS
        told: set[tuple[str, str]] = set()
        with self._changed:
            while True:
                replies = self._replies(receipt)
                for reply in replies:
                    if on_reply is not None and reply.fate != "silent" and (reply.service, reply.instance) not in told:
                        told.add((reply.service, reply.instance))
                        on_reply(reply)
                silent = any(reply.fate == "silent" for reply in replies)
                failed = receipt.stage in ("superseded", "unconfirmed", "refused")
                done = receipt.stage in enough and (need != "applied" or not silent or failed)
                left_s = due_s - time.monotonic()
                if done or left_s <= 0:
                    break
                self._changed.wait(left_s)
        asked = sum(1 for reply in replies if reply.fate != "offline")
        return Report(receipt.stage, receipt.reason, tuple(replies), asked)

    def _replies(self, receipt: Receipt) -> list[Reply]:
        wanted = Scope.parse(receipt.scope)
        return [
            self._reply(receipt, presence, at_s)
            for (service, instance), (presence, at_s) in sorted(self._presences.items())
            if wanted.service in (None, service) and wanted.instance in (None, instance)
        ]

    def _reply(self, receipt: Receipt, presence: Presence, at_s: float) -> Reply:
        fate = self._fate(receipt, presence)
        message = "; ".join(one.message for one in presence.refused if one.digest == receipt.digest)
        shadowed = {key: by for key, by in presence.shadowed.items() if key in receipt.keys}
        after_s = max(0.0, at_s - receipt.pushed_s) if fate in ("applied", "refused") else 0.0
        return Reply(presence.service, presence.instance, fate, message, shadowed, after_s)

    def _fate(self, receipt: Receipt, presence: Presence) -> Fate:
        said = presence.acked.get(receipt.digest)
        if said is not None:
            return said
        return "offline" if presence.state == "offline" else "silent"


def _user() -> str:
    # No entry for this user in the password database and no variable that names one: a container.
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def _refusal(receipt: Receipt) -> errors.TarsSettingsError:
    kind = getattr(errors, receipt.error, RefusedError)
    refusal: errors.TarsSettingsError = kind(receipt.reason)
    return refusal


def _checked(schemas: Sequence[bytes], values: Mapping[str, Any]) -> dict[str, Any]:
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


__all__ = ["Receipt", "Reply", "Report", "Writer"]
