"""The stage: a fleet in a temporary directory, its broker, its workers, and everything gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final

from tars_settings.cli.demo.interruption import interruption
from tars_settings.cli.demo.processes import Broker, BrokerKind, Worker, eventually
from tars_settings.cli.founding import found
from tars_settings.cli.onlooker import Onlooker
from tars_settings.cli.render import MASK
from tars_settings.writer import Writer

ROOMS: Final = ("kitchen", "hall", "study", "attic")
SERVICES: Final = ("stt-worker", "tts-worker", "router")
MOST_WORKERS: Final = len(ROOMS) * len(SERVICES)
PREFIX: Final = "system/config"
REPAIR_DELAY_S: Final = "0.3"
PINNED_MODEL: Final = "tiny.en"
_OURS: Final = ("TARS_SETTINGS_", "STT_", "TTS_", "ROUTER_")


def cast_of(workers: int) -> list[tuple[str, str]]:
    """Return who plays: (service, instance), one room after the other.

    >>> cast_of(4)
    [('stt-worker', 'kitchen'), ('tts-worker', 'kitchen'), ('router', 'kitchen'), ('stt-worker', 'hall')]
    """
    return [(service, room) for room in ROOMS for service in SERVICES][:workers]


class Stage:
    """Entered, the broker runs and the fleet is founded; left, no process and no file of it is there any more."""

    def __init__(self, kind: BrokerKind, workers: int) -> None:
        self.workers: list[Worker] = []
        self.cast = cast_of(workers)
        self._kind = kind
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        with interruption.shielded(), contextlib.ExitStack() as stack:
            # The processes' logs and replicas; a process that is killed late may still write.
            place = tempfile.TemporaryDirectory(prefix="tars-settings-demo-", ignore_cleanup_errors=True)
            self.directory = Path(stack.enter_context(place))
            self.fleet = found(self.directory / "operator", writer="operator", state_dir=self.directory / "operator")
            self.broker = Broker(self._kind, self.directory)
            stack.callback(self.broker.kill)
            self.broker.start()
            self.onlooker = stack.enter_context(Onlooker(self.broker.url, self.broker.protocol, f"{PREFIX}/#"))
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with interruption.shielded():
            self._stack.close()

    def _end_workers(self) -> None:
        # All stdins first: they leave at the same time.
        for worker in self.workers:
            if worker.process.stdin is not None:
                with contextlib.suppress(OSError):
                    worker.process.stdin.close()
        for worker in self.workers:
            worker.end()

    @property
    def pinned(self) -> str:
        """The worker whose own environment pins a value: the last one that hears."""
        return next(f"{service}@{room}" for service, room in reversed(self.cast) if service == "stt-worker")

    def employ(self, service: str, instance: str) -> Worker:
        """Start a worker with a state directory of its own, as on a board of its own."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment |= {
            name: self.fleet.environment[name] for name in self.fleet.worker if name in self.fleet.environment
        }
        environment |= {
            "TARS_SETTINGS_BROKER": self.broker.url,
            "TARS_SETTINGS_PROTOCOL": self.broker.protocol,
            "TARS_SETTINGS_INSTANCE": instance,
            "TARS_SETTINGS_STATE_DIR": str(self.directory / f"{service}-{instance}"),
            "TARS_SETTINGS_REPAIR_DELAY_S": REPAIR_DELAY_S,
        }
        if f"{service}@{instance}" == self.pinned:
            environment["STT_WHISPER_MODEL"] = PINNED_MODEL
        worker = Worker(service, instance, environment, self.directory / f"{service}-{instance}.log")
        self.workers.append(worker)
        return worker

    def of(self, service: str) -> list[Worker]:
        """Return the workers of a service."""
        return [worker for worker in self.workers if worker.service == service]

    def writer(self) -> Writer:
        """Return the operator's writer, not entered."""
        given = self.fleet.environment
        return Writer(
            broker=self.broker.url,
            fleet=self.fleet.fleet,
            state_dir=given["TARS_SETTINGS_STATE_DIR"],
            secret_keys=given["TARS_SETTINGS_SECRET_KEYS"],
            writer_key=given["TARS_SETTINGS_WRITER_KEY"],
            protocol=self.broker.protocol,
        )

    def signed(self) -> dict[str, bytes]:
        """Return what the broker holds that somebody signed and that is in force: all that the fleet must not lose."""
        return in_force(self.onlooker.retained())

    def has_schemas(self) -> bool:
        """Return whether every service's schema is at the broker: what pushes are typed by."""
        topics = self.onlooker.retained()
        return all(any(topic.startswith(f"{PREFIX}/{service}/_schema/") for topic in topics) for service in SERVICES)

    def holds(self, wanted: dict[str, bytes]) -> bool:
        """Return whether the broker holds exactly these bytes on their topics."""
        held = self.onlooker.retained()
        return all(held.get(topic) == payload for topic, payload in wanted.items())

    def settled(self) -> dict[str, bytes]:
        """Return what the broker holds once it has not changed for a moment."""
        seen = [self.signed()]

        def unchanged() -> bool:
            seen.append(self.signed())
            return len(seen) > 40 and all(one == seen[-1] for one in seen[-40:])

        eventually(unchanged, "the broker's content settles")
        return seen[-1]


def in_force(topics: dict[str, bytes]) -> dict[str, bytes]:
    """Return the topics without schemas, and without segments of a head that its index names no more."""
    return {
        topic: payload for topic, payload in topics.items() if "/_schema/" not in topic and _is_named(topic, topics)
    }


def _is_named(topic: str, topics: dict[str, bytes]) -> bool:
    index, _, n = topic.rpartition("/")
    if "/_head/" not in index:
        return True
    named = json.loads(topics[index])["body"]["segments"] if index in topics else []
    return any(str(segment["n"]) == n for segment in named)


def shown(value: object) -> str:
    """Return a worker's value for a table; a secret that is not set, and one that is, look different."""
    return "not set" if value is None else MASK if value == MASK else str(value)
