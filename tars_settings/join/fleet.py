"""Joining: where a worker's parts are wired together."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from pydantic_settings import BaseSettings

from tars_settings.agent.assemble import TransportFactory, assemble, mqtt_transport
from tars_settings.agent.follower import Follower, keys_of_model
from tars_settings.agent.keep import LastGood
from tars_settings.agent.loop import STOP_WITHIN_S, Agent
from tars_settings.agent.notices import Callback, until_ended
from tars_settings.agent.trials import Trials
from tars_settings.errors import ClosedError
from tars_settings.join.live import Live
from tars_settings.schema import schema_hash, schema_of
from tars_settings.settings import SnapshotBuilder
from tars_settings.sources.environment import Environment
from tars_settings.sources.trials import TrialStore
from tars_settings.trust.document import TrustDocument

T = TypeVar("T", bound=BaseSettings)


_fleets: Final[weakref.WeakSet[Fleet]] = weakref.WeakSet()
AT_EXIT_S: Final = 1.0


def _after_fork() -> None:
    for fleet in list(_fleets):
        fleet.forget()


def _at_exit() -> None:
    """Leave what nobody left: an interpreter that ends would freeze the agent's thread in the middle of a word."""
    crashed = getattr(sys, "last_type", None) is not None  # an exception that nobody caught was printed
    for fleet in list(_fleets):
        fleet.leave(crashed=crashed, within_s=AT_EXIT_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


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
        self._hooks: list[Callback] = []
        self._session = ""
        self._closed = False
        self._started = False
        self._environment.root  # noqa: B018 - missing or malformed, it is said here and not in a thread
        _fleets.add(self)

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
        joined = self._enter(cls, service)
        live = Live(joined, lambda: self._enter(cls, service), self._begin)
        self._begin(joined)
        self._lives.append(live)
        return live

    def _enter(self, cls: type[T], service: str | None) -> tuple[Agent, Follower[T]]:
        builder = SnapshotBuilder(cls, environment=self._environment, service=service, trust=self._trust)
        agent = self._agent or self._assemble(builder.service)
        return agent, self._follow(agent, cls, builder)

    def _begin(self, joined: tuple[Agent, Follower[Any]]) -> None:
        agent, follower = joined
        if self._started:
            agent.call(follower.take_part)
            return
        self._started = True
        follower.begin()
        agent.start()

    def _assemble(self, name: str) -> Agent:
        agent = assemble(self._environment, name=name, transport=self._transport)
        self._session = agent.clock.token(8).hex()
        for hook in self._hooks:
            agent.board.add(hook)
        agent.load()
        self._agent = agent
        return agent

    def _trust(self) -> TrustDocument:
        return self._environment.pinned() if self._agent is None else self._agent.replicator.peer.trust

    def _follow(self, agent: Agent, cls: type[T], builder: SnapshotBuilder[T]) -> Follower[T]:
        environment, name = self._environment, builder.service
        schema = schema_of(cls)
        hashed = schema_hash(schema)
        registers = agent.replicator.peer.registers
        return Follower(
            agent,
            builder,
            service=name,
            instance=environment.instance,
            keys=keys_of_model(schema),
            schema=(hashed, schema),
            lkg=LastGood(environment, name, hashed, agent.clock, agent.replicator.peer.chain.documents),
            trials=Trials(TrialStore(environment, name), agent.clock, registers.holds),
            session=self._session,
        )

    def on_notice(self, callback: Callback) -> Callable[[], None]:
        """Have *callback* called with each notice (``tars_settings.notices``); return a function that ends this.

        What the connection brings to all services of this process: applied, refused, rejected and repaired deltas,
        fights, conflicts, another trust document, the session's beginning and end. Called before the first
        :meth:`join`, it misses nothing.

        Callbacks run one after the other on a thread of their own, in order. One that raises is logged and counted
        (``notice failures``) and stops nothing; one that blocks delays its successors, never the settings. Of more than
        1,024 that wait the oldest are dropped and counted (``notices dropped``). It goes on in a forked child that
        joins again.

        Raises:
            UsageError: it is a coroutine function.
        """
        hook, ended = until_ended(callback)
        self._hooks.append(hook)
        stop = None if self._agent is None else self._agent.board.add(hook)

        def end() -> None:
            ended.set()
            self._hooks = [one for one in self._hooks if one is not hook]
            if stop is not None:
                stop()

        return end

    def close(self) -> None:
        """Leave: say goodbye, end every watch, close the connection; harmless twice."""
        self.leave()

    def leave(self, *, crashed: bool = False, within_s: float = STOP_WITHIN_S) -> None:
        """As :meth:`close`; *crashed* says that an error ends this worker, which counts against new values."""
        self._closed = True
        for live in self._lives:
            live.leave(crashed=crashed, within_s=within_s)
        if self._agent is not None:
            self._agent.stop(within_s)
        self._lives = []

    def forget(self) -> None:
        """In a forked child: the connection is the parent's. Lives that are used here make another."""
        self._agent = None
        self._started = False

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error that ends the worker may be the new values' fault; an interrupt or a cancelled task is not.
        self.leave(crashed=kind is not None and issubclass(kind, Exception))

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
