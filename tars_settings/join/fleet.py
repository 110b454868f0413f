"""Joining: where a worker's parts are wired together."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Generic, TypeVar

from pydantic_settings import BaseSettings

from tars_settings.agent.assemble import TransportFactory, assemble, mqtt_transport
from tars_settings.agent.follower import Follower, keys_of_model
from tars_settings.agent.keep import LastGood
from tars_settings.agent.loop import Agent
from tars_settings.errors import ClosedError
from tars_settings.join.live import Live
from tars_settings.schema import schema_hash, schema_of
from tars_settings.settings import SnapshotBuilder
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustDocument

T = TypeVar("T", bound=BaseSettings)


class Fleet:
    """One connection for several services of a process.

    Arguments stand in for ``TARS_SETTINGS_*`` variables: *broker*, *fleet*, *state_dir*, *instance* and the others of
    :meth:`Environment.read`. It connects with the first :meth:`join` and closes on leaving.

    Raises:
        ConfigurationError: broker or fleet are missing or malformed; the message names the variable.
    """

    def __init__(self, *, transport: TransportFactory = mqtt_transport, **given: Any) -> None:
        self._environment = Environment.read(**given)
        self._transport = transport
        self._agent: Agent | None = None
        self._lives: list[Live[Any]] = []
        self._session = ""
        self._closed = False
        self._environment.root  # noqa: B018 - missing or malformed, it is said here and not in a thread

    def join(self, cls: type[T], *, service: str | None = None) -> Live[T]:
        """Return a live object of *cls*, entered already, with the best values that this host has.

        *service* is for a class that names none itself, such as a BaseSettings of the user's own.

        Raises:
            NoServiceError: neither the class nor the argument names a service.
            ValidationError: what this process's operator controls is wrong (environment, arguments, a required field
                that nobody sets); fleet values never raise.
            ClosedError: the fleet was left.
        """
        if self._closed:
            raise ClosedError("this fleet was left; make another")
        builder = SnapshotBuilder(cls, environment=self._environment, service=service, trust=self._trust)
        is_first = self._agent is None
        agent = self._agent or self._assemble(builder.service)
        follower = self._follow(agent, cls, builder)
        live = Live(agent, follower)
        if is_first:
            follower.begin()
            agent.start()
        else:
            agent.call(follower.take_part)
        self._lives.append(live)
        return live

    def _assemble(self, name: str) -> Agent:
        agent = assemble(self._environment, name=name, transport=self._transport)
        self._session = agent.clock.token(8).hex()
        agent.load()
        self._agent = agent
        return agent

    def _trust(self) -> TrustDocument:
        return self._environment.pinned() if self._agent is None else self._agent.replicator.peer.trust

    def _follow(self, agent: Agent, cls: type[T], builder: SnapshotBuilder[T]) -> Follower[T]:
        environment, name = self._environment, builder.service
        schema = schema_of(cls)
        hashed = schema_hash(schema)
        return Follower(
            agent,
            builder,
            service=name,
            instance=environment.instance,
            keys=keys_of_model(schema),
            schema=(hashed, schema),
            lkg=LastGood(environment, name, hashed, agent.clock, agent.replicator.peer.chain.documents),
            session=self._session,
        )

    def close(self) -> None:
        """Leave: say goodbye, end every watch, close the connection; harmless twice."""
        self._leave(crashed=False)

    def _leave(self, *, crashed: bool) -> None:
        self._closed = True
        for live in self._lives:
            live.leave(crashed=crashed)
        if self._agent is not None:
            self._agent.stop()
        self._lives = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error that ends the worker may be the new values' fault; an interrupt or a cancelled task is not.
        self._leave(crashed=kind is not None and issubclass(kind, Exception))

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))


class Join(Generic[T]):
    """A join of one class, entered with ``with`` or ``async with``; entering gives the :class:`Live` object."""

    def __init__(self, cls: type[T], service: str | None, given: dict[str, Any]) -> None:
        self._cls = cls
        self._service = service
        self._given = given
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Live[T]:
        fleet = self._stack.enter_context(Fleet(**self._given))
        try:
            return fleet.join(self._cls, service=self._service)
        except BaseException:
            self._stack.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    async def __aenter__(self) -> Live[T]:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self._stack.__exit__, kind, error, trace))


def join(cls: type[T], *, service: str | None = None, **given: Any) -> Join[T]:
    """Return the join of one Settings class; where and whom to trust is in ``TARS_SETTINGS_*`` or *given*.

    It connects on entering::

        with tars_settings.join(SttSettings) as live:
            live.current.vad_threshold

    Raises, on entering, what :class:`Fleet` and :meth:`Fleet.join` raise.
    """
    return Join(cls, service, given)
