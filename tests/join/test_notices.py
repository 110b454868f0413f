"""Facts of notices: what a process is told, on a thread that may block."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import Field

from tars_settings import Settings, notices
from tars_settings.agent.notices import KEPT, NoticeBoard
from tars_settings.core.topics import KeyTopic, Topics
from tars_settings.errors import ClosedError, UsageError
from tars_settings.gossip import effects
from tests.brokers import eventually
from tests.fleets import ALICE, BOB, delta
from tests.join.conftest import InMemory, Stt

TOPIC = Topics().format(KeyTopic("stt-worker", "vad_threshold"))


class Strict(Settings, service="stt-worker"):
    vad_threshold: float = Field(default=0.5, le=0.8)


class Heard(list[notices.Notice]):
    """A callback that keeps what it is told."""

    def __call__(self, notice: notices.Notice) -> None:
        self.append(notice)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return those of a kind."""
        return [one for one in self if isinstance(one, kind)]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def fleet(memory: InMemory, heard: Heard) -> Any:
    """A worker's fleet, heard from before its first join."""
    assert memory.writer.sync("stt-worker") == "ready"
    fleet = memory.fleet()
    fleet.on_notice(heard)
    assert fleet.join(Strict).wait_until_ready(10)
    return fleet


def test_a_process_is_told_what_was_applied_and_by_whom(memory: InMemory, fleet: Any, heard: Heard) -> None:
    memory.writer.push("stt-worker", {"vad_threshold": 0.6}, reason="noisy", by="ann", plain=["vad_threshold"])
    eventually(lambda: bool(heard.of(notices.Applied)))
    (applied,) = heard.of(notices.Applied)
    assert (applied.scope, applied.keys, applied.epoch, applied.by, applied.reason, applied.way) == (
        "stt-worker", ("vad_threshold",), 1, "ann", "noisy", "live",
    )  # fmt: skip
    assert heard.of(notices.Session)[0].state == "up"
    assert heard.of(notices.TrustChanged)[0].version == 1


def test_a_process_is_told_what_its_model_refused_and_why(memory: InMemory, fleet: Any, heard: Heard) -> None:
    memory.writer.push(Stt, {"vad_threshold": 0.9})
    eventually(lambda: bool(heard.of(notices.Refused)))
    (refused,) = heard.of(notices.Refused)
    assert (refused.service, refused.instance, refused.keys) == ("stt-worker", "pi-3", ("vad_threshold",))
    assert "less than or equal to 0.8" in refused.message


def test_a_process_is_told_what_was_rejected_and_what_it_repaired(memory: InMemory, fleet: Any, heard: Heard) -> None:
    memory.push(vad_threshold=0.6)
    eventually(lambda: bool(heard.of(notices.Applied)))
    memory.writer.on_notice(heard)  # whichever of the two is faster repairs it
    memory.broker.publish(TOPIC, b'{"v":1}')
    eventually(lambda: bool(heard.of(notices.Rejected)))
    assert (heard.of(notices.Rejected)[0].topic, heard.of(notices.Rejected)[0].reason) == (TOPIC, "malformed")
    eventually(lambda: any((one.topic, one.found) == (TOPIC, "other") for one in heard.of(notices.Repaired)))


def test_a_process_is_told_that_the_broker_went_and_came_back(memory: InMemory, fleet: Any, heard: Heard) -> None:
    memory.broker.stop()
    eventually(lambda: [one.state for one in heard.of(notices.Session)] == ["up", "down"])
    memory.broker.start()
    eventually(lambda: [one.state for one in heard.of(notices.Session)] == ["up", "down", "up"])


def test_a_writer_has_the_same_hook(memory: InMemory, heard: Heard) -> None:
    end = memory.writer.on_notice(heard)
    memory.push(vad_threshold=0.6)
    eventually(lambda: bool(heard.of(notices.Applied)))
    assert heard.of(notices.Applied)[0].way == "own"
    end()
    memory.push(vad_threshold=0.7)
    assert memory.writer.view("stt-worker")["vad_threshold"].assignment.set == 0.7
    assert len(heard.of(notices.Applied)) == 1


def test_a_live_object_has_the_same_hook_and_ends_it_when_asked(memory: InMemory, heard: Heard) -> None:
    assert memory.writer.sync("stt-worker") == "ready"
    live = memory.join(Stt)
    later = Heard()
    end = live.on_notice(heard)
    live.on_notice(later)
    memory.push(vad_threshold=0.6)
    eventually(lambda: bool(heard.of(notices.Applied)))
    end()
    memory.push(vad_threshold=0.7)
    eventually(lambda: len(later.of(notices.Applied)) == 2)
    assert len(heard.of(notices.Applied)) == 1
    live.close()
    with pytest.raises(ClosedError):
        live.on_notice(heard)


def test_a_notice_holds_no_value(memory: InMemory, fleet: Any, heard: Heard) -> None:
    memory.writer.push("stt-worker", {"model": "canary-0451"}, secret=["model"])
    memory.writer.push("stt-worker", {"voice": "canary-0451"}, plain=["voice"])
    eventually(lambda: len(heard.of(notices.Applied)) == 2)
    told = json.dumps([one.as_dict() for one in heard])
    assert "canary" not in told
    assert json.loads(told)[-1]["kind"] == "Applied"


def test_a_callback_that_blocks_holds_up_no_setting(memory: InMemory, heard: Heard) -> None:
    fleet = memory.fleet("pi-4")
    entered, release = threading.Event(), threading.Event()

    def block(_: notices.Notice) -> None:
        entered.set()
        release.wait(60)

    fleet.on_notice(block)
    fleet.on_notice(heard)
    assert memory.writer.sync("stt-worker") == "ready"
    live = fleet.join(Stt)
    assert entered.wait(10)
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    assert heard == []
    release.set()
    eventually(lambda: bool(heard.of(notices.Applied)))


def test_a_callback_that_raises_is_counted_and_stops_nothing(
    memory: InMemory, fleet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    later = Heard()

    def bad(notice: notices.Notice) -> None:
        raise ValueError("canary-0451")

    fleet.on_notice(bad)
    fleet.on_notice(later)
    live = fleet.join(Stt)
    memory.push(vad_threshold=0.6)
    eventually(lambda: bool(later.of(notices.Applied)))
    assert live.status.counters["notice failures"] >= 1
    line = bad.__code__.co_firstlineno + 1
    assert f"raised ValueError at {__file__}:{line}" in caplog.text
    assert "canary" not in caplog.text


def test_a_coroutine_function_is_refused_and_not_forgotten(memory: InMemory) -> None:
    async def never(_: notices.Notice) -> None: ...

    for hook in (memory.fleet().on_notice, memory.writer.on_notice):
        with pytest.raises(UsageError, match="coroutine"):
            hook(never)


def test_alarms_name_both_sides() -> None:
    mine, theirs = delta(ALICE, 2), delta(BOB, 2)
    heard, board = Heard(), NoticeBoard(Counter())
    board.add(heard)
    board.on_burst(
        [
            effects.Conflict("stt-worker", "vad", mine, theirs),
            effects.RepairFight(TOPIC, "ab"),
            effects.TrustQuarrel(2, "ab", "cd"),
            effects.ForeignHead("stt-worker", 7),
            effects.ScopeSynced("stt-worker", "ready"),
        ]
    )
    eventually(lambda: len(heard) == 4)
    board.close()
    assert [one.kind for one in heard] == ["Conflict", "RepairFight", "TrustQuarrel", "KeyShared"]
    (conflict,) = heard.of(notices.Conflict)
    assert (conflict.winner, conflict.losing_writer) == (mine.stamp.digest.hex(), BOB.kid)


def test_of_more_than_are_kept_the_oldest_are_dropped_and_counted() -> None:
    counters: Counter[str] = Counter()
    board = NoticeBoard(counters)
    entered, release = threading.Event(), threading.Event()
    heard = Heard()

    def hold(notice: notices.Notice) -> None:
        entered.set()
        release.wait(60)
        heard(notice)

    board.add(hold)
    board.offer(notices.Session("up"))
    assert entered.wait(10)
    for number in range(KEPT + 5):
        board.offer(notices.Repaired("t", "nothing", number))
    board.close()
    release.set()
    eventually(lambda: len(heard) == KEPT + 1)
    assert counters["notices dropped"] == 5
    assert heard.of(notices.Repaired)[0].round == 5
    assert heard.of(notices.Repaired)[-1].round == KEPT + 4


def test_what_waits_is_told_before_the_thread_ends(memory: InMemory, heard: Heard) -> None:
    assert memory.writer.sync("stt-worker") == "ready"
    with memory.fleet("pi-5") as fleet:
        fleet.on_notice(heard)
        assert fleet.join(Stt).wait_until_ready(10)
    board: Callable[[], bool] = lambda: fleet._agent is not None and fleet._agent.board._thread is not None  # noqa: E731
    assert board()
    eventually(lambda: not fleet._agent.board._thread.is_alive())
    assert heard.of(notices.Session)[0].state == "up"
