"""A fleet on a broker: its writer, its workers, and what the broker holds of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import tars_settings
from tars_settings import Settings
from tars_settings.core.head import segment_digest
from tars_settings.join import Live
from tars_settings.trust.document import TrustBody
from tars_settings.trust.keys import SigningKey
from tars_settings.writer import Report, Writer
from tars_settings.writer.receipt import Need
from tests.brokers import eventually
from tests.conformance.onlooker import retained
from tests.integration.fleets import TestFleet

SCOPE = "stt-worker"
PREFIX = f"system/config/{SCOPE}"
TOPIC = f"{PREFIX}/vad_threshold"
PATIENCE_S = 40.0
_SEGMENT = re.compile(r"/_head/[0-9a-f]{32}/[0-9]+$")

S = TypeVar("S", bound=Settings)


class Stt(Settings, service=SCOPE):
    vad_threshold: float = 0.5
    model: str = "base"
    language: str = "en"


class TwoWritersFleet(TestFleet):
    """A fleet with a second writer, for the other side of a cut."""

    __test__ = False

    def _found(self, name: str) -> None:
        self.second = SigningKey("writer", "second", os.urandom(32))
        writers = (self._entry(self.writer), self._entry(self.second))
        self.trust = self._signed(TrustBody(1, 1, (self.root.public,), 1, writers))
        super()._found(name)


class Scene:
    """The members of one fleet; each may be at a broker of its own. Everything entered is left with ``stack``."""

    def __init__(self, directory: Path, url: str, stack: ExitStack, **given: Any) -> None:
        self.fleet = TwoWritersFleet(directory / "fleet", url, **{"audit_s": 4.0, **given})
        self.stack = stack
        self.given: dict[str, Any] = {}

    def worker(self, name: str, cls: type[S] = Stt, **given: Any) -> Live[S]:
        """Return a worker that has joined; it need not be ready."""
        return self.stack.enter_context(tars_settings.join(cls, **{**self.fleet.given(name), **self.given, **given}))

    def second_writer(self, **given: Any) -> Writer:
        """Return the other writer, connected."""
        mine = {**self.fleet.given("second"), "writer_key": self.fleet.second}
        return self.stack.enter_context(Writer(**{**mine, **self.given, **given}))

    def writer(self, **given: Any) -> Writer:
        """Return the writer, connected."""
        return self.stack.enter_context(Writer(**{**self.fleet.writer_given(), **self.given, **given}))


@contextmanager
def scene(directory: Path, url: str, **given: Any) -> Iterator[Scene]:
    """Give a fleet that is taken apart at the end."""
    with ExitStack() as stack:
        yield Scene(directory, url, stack, **given)


def ready(live: Live[S], deadline_s: float = PATIENCE_S) -> Live[S]:
    """Wait until a worker is ready, and return it."""
    await_(live, deadline_s, lambda: live.status.state == "ready")
    return live


def push(writer: Writer, values: dict[str, Any], *, unset: tuple[str, ...] = (), need: Need = "applied") -> Report:
    """Push, and return how strong the result is; it is *retained*, or the test ends here."""
    report = writer.push(Stt, values, unset=unset).wait(PATIENCE_S, need)
    assert report.stage == "retained", report
    return report


def until(live: Live[Any], deadline_s: float = PATIENCE_S, **wanted: Any) -> None:
    """Wait until a worker's snapshot holds these values."""
    await_(live, deadline_s, lambda: all(getattr(live.current, key) == value for key, value in wanted.items()))


def await_(live: Live[Any], deadline_s: float, condition: Callable[[], bool]) -> None:
    """Wait for something of a worker's; in vain, its status is told."""
    try:
        eventually(condition, deadline_s=deadline_s)
    except AssertionError:
        raise AssertionError(f"not within {deadline_s} s: {live.current!r:.300}, {live.status!r:.1500}") from None


def until_held(port: int, topic: str, payload: bytes) -> None:
    """Wait until the broker retains exactly this on a topic."""
    eventually(
        lambda: retained(port, topic).get(topic) == payload,
        deadline_s=PATIENCE_S,
        what=f"the broker holds the winner on {topic}",
    )


def held_of_fleet(port: int) -> dict[str, bytes]:
    """Return what a broker must hold: trust, deltas and indexes, and each segment that an index names."""
    held = {t: p for t, p in retained(port, "system/config/#").items() if "/_schema/" not in t}
    named = b"".join(held.values())
    return {t: p for t, p in held.items() if not _SEGMENT.search(t) or segment_digest(p).encode() in named}
