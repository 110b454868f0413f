"""Founding a fleet: its keys, its first trust document, and the files that its hosts need.

Everything is made or nothing is: what stands in the way is found before the first key is made, and what was written
goes again when a later step fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from tars_settings.adapters.keyfiles import private_dir, read_key, write_key
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.cli.onlooker import Onlooker
from tars_settings.core.records import TrustRow
from tars_settings.core.topics import Topics, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.errors import BrokerError, RefusedError, RejectedError
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustBody, TrustDocument, Writer, follow, pin
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_id, fleet_text
from tars_settings.writer import Writer as SessionWriter

TRUST_FILE: Final = "trust.json"
FIRST_SECRET_ID: Final = "k1"
EXAMPLE_BROKER: Final = "mqtt://localhost:1883"
GRANTS: Final = ("*", "_all")
_ENVIRONMENT: Final = "TARS_SETTINGS_"
_POLL_S: Final = 0.01
_REPLAY_S: Final = 0.3
"""How long a retained message may take after the subscription: a broker does not say that it has none."""


@dataclass(frozen=True)
class Fleet:
    """A new fleet: its public root key as text, what this host's environment needs, and where the files are.

    ``worker`` names those variables that a worker needs; the others are for who pushes.
    """

    fleet: str
    environment: Mapping[str, str]
    worker: tuple[str, ...]
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Keys:
    """The keys of a new fleet. All of them are secrets."""

    root: SigningKey
    writer: SigningKey
    secret: SecretKey

    @classmethod
    def new(cls, writer: str) -> Keys:
        """Make them from the system's randomness."""
        root, pusher, secret = os.urandom(32), os.urandom(32), os.urandom(32)
        return cls(
            SigningKey("root", "root", root),
            SigningKey("writer", writer, pusher),
            SecretKey(FIRST_SECRET_ID, secret),
        )

    @property
    def fleet(self) -> str:
        """The text of the root's public key: what pins trust."""
        return fleet_text(self.root.public)


def first_trust(keys: Keys) -> TrustDocument:
    """Return trust document 1: one root, one writer, who may write everything."""
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    writer = Writer(keys.writer.name, keys.writer.public, GRANTS)
    body = TrustBody(1, 0, (keys.root.public,), 1, (writer,), at=at, reason="the fleet was founded")
    payload = keys.root.sign("trust", fleet_id(keys.root.public), encode(body))
    return follow(pin(keys.root.public), payload)


def found(directory: Path, *, writer: str, state_dir: Path, broker: str | None = None) -> Fleet:
    """Make a fleet in *directory*, and put its trust document into the replica below *state_dir*.

    Raises:
        RefusedError: a file of that name exists already; nothing was changed.
        StateDirError, KeyFileError, ReplicaError: it can't be written; nothing is left behind.
    """
    for place in (directory, state_dir):
        private_dir(place)
    files = _files(directory)
    _refuse_to_overwrite(files.values())
    keys = Keys.new(writer)
    trust = first_trust(keys)
    environment = Environment.read(fleet=keys.fleet, state_dir=state_dir)
    made = _fleet(keys, files, environment, broker)
    written: list[Path] = []
    try:
        for name, text in _contents(keys, trust, made, broker or EXAMPLE_BROKER).items():
            write_key(files[name], text)
            written.append(files[name])
        store_trust(environment, trust)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return made


def _files(directory: Path) -> dict[str, Path]:
    names = {
        "root_key": "root.key",
        "writer_key": "writer.key",
        "secret_keys": "secret.keys",
        "trust": TRUST_FILE,
        "operator_environment": "env",
        "worker_environment": "worker.env",
    }
    return {name: directory.absolute() / file for name, file in names.items()}


def _refuse_to_overwrite(paths: Iterable[Path]) -> None:
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        raise RefusedError(
            f"{', '.join(there)} exists already, and nothing is ever overwritten; "
            "name another directory with --dir, or move the files away"
        )


def _fleet(keys: Keys, files: Mapping[str, Path], environment: Environment, broker: str | None) -> Fleet:
    variables = {
        "BROKER": broker,
        "FLEET": keys.fleet,
        "SECRET_KEYS": str(files["secret_keys"]),
        "STATE_DIR": str(environment.state_dir.absolute()),
        "WRITER_KEY": str(files["writer_key"]),
    }
    named = {f"{_ENVIRONMENT}{name}": value for name, value in variables.items() if value is not None}
    worker = tuple(f"{_ENVIRONMENT}{name}" for name in ("BROKER", "FLEET", "SECRET_KEYS"))
    return Fleet(keys.fleet, named, worker, {**files, "replica": environment.replica_path.absolute()})


def _contents(keys: Keys, trust: TrustDocument, made: Fleet, broker: str) -> dict[str, str]:
    everything = {f"{_ENVIRONMENT}BROKER": broker, **made.environment}
    return {
        "root_key": keys.root.to_text(),
        "writer_key": keys.writer.to_text(),
        "secret_keys": f"# Encrypts the fleet's secret values; workers and writers need it.\n{keys.secret.to_text()}\n",
        "trust": trust.raw.decode() + "\n",
        "operator_environment": "".join(f"export {name}={quoted(value)}\n" for name, value in everything.items()),
        "worker_environment": "".join(f"{name}={everything[name]}\n" for name in made.worker),
    }


def quoted(text: str) -> str:
    r"""Return *text* as one word of a shell.

    >>> print(quoted("it's"))
    'it'\''s'
    """
    return "'" + text.replace("'", "'\\''") + "'"


def store_trust(environment: Environment, trust: TrustDocument) -> None:
    """Put a trust document into the replica, on the disk when this returns.

    Raises:
        StateDirError, ReplicaError: nothing was changed.
    """
    private_dir(environment.state_dir)
    private_dir(environment.fleet_dir)
    replica = SqliteReplica(environment.replica_path)
    try:
        replica.apply([TrustRow(trust.version, trust.digest, trust.raw)])
    finally:
        replica.close()


def publish_trust(environment: Environment, *, within_s: float) -> None:
    """Put the fleet's trust document onto its broker, and see it there.

    Raises:
        BrokerError: the broker can't be reached, does not give the document back within *within_s*, or holds that of
            another fleet, which is left alone.
        ConfigurationError: there is no broker, or no writer's key.
    """
    topic = Topics(environment.prefix, environment.health_prefix).format(TrustTopic())
    given: dict[str, Any] = {
        "broker": environment.broker_address(),
        "fleet": environment.fleet,
        "state_dir": environment.state_dir,
        "writer_key": environment.writer_key_file,
    }
    with Onlooker(environment.broker_address(), environment.protocol, topic) as onlooker:
        _await(lambda: onlooker.is_connected, within_s, "the broker does not answer")
        time.sleep(_REPLAY_S)
        if (found := onlooker.retained().get(topic)) is not None:
            _refuse_another(environment, found)
        with SessionWriter(connect_within_s=within_s, **given) as writer:
            ours = writer.trust.raw
            _await(lambda: onlooker.retained().get(topic) == ours, within_s, "the broker does not keep it")


def _await(condition: Callable[[], bool], within_s: float, complaint: str) -> None:
    due_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > due_s:
            raise BrokerError(f"{complaint} within {within_s:g} s")
        time.sleep(_POLL_S)


def _refuse_another(environment: Environment, payload: bytes) -> None:
    try:
        follow(environment.pinned(), payload)
    except RejectedError:
        pass
    else:
        return
    raise BrokerError(
        f"the broker holds the trust document of another fleet under {environment.prefix}; "
        "take another broker, or another TARS_SETTINGS_PREFIX"
    )


def adopt_trust(environment: Environment) -> None:
    """Take the trust document that lies beside the writer's key, where the replica holds none yet.

    So a writer's key and its trust document, copied to another host, are enough to push from there.

    Raises:
        MalformedError, UntrustedError: the file is no trust document of this fleet.
        StateDirError, KeyFileError, ReplicaError: a file can't be read or written.
    """
    key = environment.writer_key_file
    beside = key.with_name(TRUST_FILE) if key is not None else None
    if beside is None or not beside.is_file() or _holds_trust(environment):
        return
    store_trust(environment, follow(environment.pinned(), read_key(beside).encode()))


def _holds_trust(environment: Environment) -> bool:
    replica = SqliteReplica(environment.replica_path, create=False)
    try:
        return any(isinstance(row, TrustRow) for row in replica.load(()))
    finally:
        replica.close()
