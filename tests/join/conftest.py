"""A fleet in memory: the real agent, replicator and replica; the broker alone is a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tars_settings import Settings
from tars_settings.adapters.memory import MemoryBroker, MemoryTransport
from tars_settings.join import Fleet, Live
from tars_settings.writer import Writer
from tests.integration.fleets import TestFleet


class Stt(Settings, service="stt-worker"):
    vad_threshold: float = 0.5
    model: str = "base"


class Tts(Settings, service="tts-worker"):
    voice: str = "tars"


class InMemory:
    """A broker, a fleet's keys, and whoever was joined to it; all leave at the end."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.broker = MemoryBroker()
        self.keys = TestFleet(directory, "mqtt://in-memory")
        self._stack = stack
        self._writer: Writer | None = None

    def transport(self, *_: Any) -> MemoryTransport:
        return MemoryTransport(self.broker)

    def fleet(self, name: str = "pi-3", **more: Any) -> Fleet:
        return self._stack.enter_context(Fleet(transport=self.transport, **{**self.keys.given(name), **more}))

    def join(self, cls: type[Any] = Stt, name: str = "pi-3", **more: Any) -> Live[Any]:
        live = self.fleet(name, **more).join(cls)
        assert live.wait_until_ready(10) or more, live.status
        return live

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            self._writer = self._stack.enter_context(Writer(transport=self.transport, **self.keys.writer_given()))
        return self._writer

    def push(self, cls: type[Any] | str = Stt, **values: Any) -> Any:
        return self.writer.push(cls, values).wait(10)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[InMemory]:
    with ExitStack() as stack:
        yield InMemory(tmp_path / "fleet", stack)


@pytest.fixture
def started(memory: InMemory) -> Callable[..., Live[Any]]:
    """Return a function that joins once the fleet's trust document is on the broker."""
    assert memory.writer.sync("stt-worker") == "ready"
    return memory.join
