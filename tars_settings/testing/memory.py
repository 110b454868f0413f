"""A fleet without broker and network, for tests: the real agent, replicator and replica in one process."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic_settings import BaseSettings

from tars_settings.adapters.keyfiles import write_key
from tars_settings.adapters.memory import MemoryBroker, name_broker
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.records import TrustRow
from tars_settings.core.topics import Topics, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.join import Fleet, Live
from tars_settings.trust.document import TrustBody, follow, pin
from tars_settings.trust.document import Writer as TrustedWriter
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_text
from tars_settings.writer import Report, Writer

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T", bound=BaseSettings)
WITHIN_S: Final = 10.0


class MemoryFleet:
    """A fleet of its own: keys, a trust document, a broker in memory, state directories below *directory*.

    Everything that joined through it leaves with it::

        with MemoryFleet() as fleet:
            live = fleet.join(SttSettings)
            fleet.push(SttSettings, vad_threshold=0.6)
            assert live.current.vad_threshold == 0.6

    Code that joins by itself finds it through :meth:`environment`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._stack = ExitStack()
        if directory is None:
            directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tars-settings-")))
        self.directory = directory
        self.broker = MemoryBroker()
        self.address = name_broker(secrets.token_hex(8), self.broker)
        self._root = SigningKey("root", "root", os.urandom(32))
        self._signer = SigningKey("writer", "tests", os.urandom(32))
        self._secret = SecretKey("tests", os.urandom(32))
        self._writer: Writer | None = None
        self._key_file = directory / "writer.key"
        write_key(self._key_file, self._signer.to_text())
        self._found()

    def _found(self) -> None:
        """Put the trust document on the broker and into the writer's replica, as ``tars-settings init`` does."""
        listed = (TrustedWriter(self._signer.name, self._signer.public, ("*", "_all")),)
        raw = self._root.sign("trust", self._root.kid, encode(TrustBody(1, 1, (self._root.public,), 1, listed)))
        document = follow(pin(self._root.public), raw)
        replica = SqliteReplica(self._state_dir("writer") / self._root.kid / "replica.sqlite3")
        replica.apply([TrustRow(document.version, document.digest, document.raw)])
        replica.close()
        self.broker.publish(Topics().format(TrustTopic()), raw)

    def _state_dir(self, instance: str) -> Path:
        return self.directory / f"state-{instance}"

    def given(self, instance: str = "test") -> dict[str, Any]:
        """Return the arguments with which ``join()`` and ``Fleet`` find it, as one running copy of a service."""
        return {
            "broker": self.address,
            "fleet": fleet_text(self._root.public),
            "state_dir": self._state_dir(instance),
            "instance": instance,
            "secret_keys": self._secret.to_text(),
        }

    def environment(self, instance: str = "test") -> dict[str, str]:
        """Return the same as ``TARS_SETTINGS_*`` variables."""
        given = {**self.given(instance), "writer_key": self._key_file}
        return {f"TARS_SETTINGS_{name.upper()}": str(value) for name, value in given.items()}

    def join(self, cls: type[T], instance: str = "test", *, service: str | None = None, **more: Any) -> Live[T]:
        """Return a live object of *cls* that is ready.

        Raises:
            TimeoutError: it did not get ready within ten seconds; the message is its status.
        """
        live = self._stack.enter_context(Fleet(**{**self.given(instance), **more})).join(cls, service=service)
        if not live.wait_until_ready(WITHIN_S):
            raise TimeoutError(f"not ready within {WITHIN_S:.0f} s: {live.status}")
        return live

    @property
    def writer(self) -> Writer:
        """A writer of this fleet, as an operator has one."""
        if self._writer is None:
            given = {**self.given("writer"), "writer_key": self._key_file}
            self._writer = self._stack.enter_context(Writer(**given))
        return self._writer

    def push(
        self,
        cls: type[BaseSettings] | str,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        reason: str = "",
        **more: Any,
    ) -> Report:
        """Push values, wait until every joined worker has answered, and return who applied and who refused."""
        return self.writer.push(cls, {**(values or {}), **more}, reason=reason).wait(WITHIN_S)

    def close(self) -> None:
        """Leave with everyone; what was stored in a temporary directory is gone."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
