"""Facts of joining: one connection for several services, states, presence, forks, errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

import tars_settings
from tars_settings import Settings, SettingsConfigDict
from tars_settings.agent import follower
from tars_settings.errors import (
    ClosedError,
    ConfigurationError,
    ConflictError,
    InvalidValueError,
    NoServiceError,
    NotGrantedError,
    PlainOrSecretError,
)
from tars_settings.join import Live
from tars_settings.trust.keys import SigningKey
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.join.conftest import InMemory, Stt, Tts

Started = Callable[..., Live[Any]]


class Strict(Settings, service="strict"):
    low: int = 1
    high: int = Field(default=9, le=100)
    api_key: SecretStr | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Strict:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


def test_services_of_a_process_share_one_connection(memory: InMemory, started: Started) -> None:
    before = memory.broker.sessions
    fleet = memory.fleet()
    stt, tts = fleet.join(Stt), fleet.join(Tts)
    assert [live.wait_until_ready(10) for live in (stt, tts)] == [True, True]
    assert memory.broker.sessions == before + 1
    memory.push(Tts, voice="case")
    memory.push(Stt, model="large")
    eventually(lambda: (tts.current.voice, stt.current.model) == ("case", "large"))


def test_async_with_joins_and_leaves(memory: InMemory, started: Started) -> None:
    async def main() -> str:
        async with tars_settings.join(Stt, transport=memory.transport, **memory.keys.given("pi-9")) as live:
            assert await asyncio.to_thread(live.wait_until_ready, 10)
            return live.status.state

    assert asyncio.run(main()) == "ready"


def test_scopes_lie_over_each_other_and_unset_shows_the_next(memory: InMemory, started: Started) -> None:
    live, other = started(), started(name="pi-4")
    memory.writer.push("_all", {"model": "all"}, plain=["model"]).wait(10)
    memory.writer.push(Stt, {"model": "service"}).wait(10)
    memory.writer.push(Stt, {"model": "instance"}, instance="pi-3").wait(10)
    eventually(lambda: (live.current.model, other.current.model) == ("instance", "service"))
    memory.writer.unset(Stt, ["model"], instance="pi-3").wait(10)
    eventually(lambda: live.current.model == "service")
    memory.writer.unset(Stt, ["model"]).wait(10)
    eventually(lambda: live.current.model == "all")


def test_a_refused_delta_is_reported_with_the_model_s_words_and_changes_nothing(
    memory: InMemory, started: Started
) -> None:
    live = started(Strict)
    seen = live.watch()
    report = memory.writer.push(Strict, {"low": 50}).wait(10)
    assert [reply.fate for reply in report.replies] == ["refused"]
    assert "low must not be above high" in report.replies[0].message
    assert (live.current.low, live.current.high) == (1, 9)
    assert seen.next(0.05) is None
    assert [one.keys for one in live.status.refused] == [("low",)]
    assert memory.writer.push(Strict, {"high": 60}).wait(10).applied == 1
    eventually(lambda: (live.current.low, live.current.high) == (50, 60))
    assert live.status.refused == (), "it was tried again, and now fits"


def test_values_that_the_model_refuses_are_not_signed(memory: InMemory, started: Started) -> None:
    started(Strict)
    with pytest.raises(InvalidValueError, match="high"):
        memory.writer.push(Strict, {"high": 1000})
    eventually(lambda: memory.writer.schemas("strict"))
    with pytest.raises(InvalidValueError, match="high"):
        memory.writer.push("strict", {"high": 1000})
    assert memory.writer.view("strict") == {}


def test_a_secret_is_encrypted_on_its_way_and_masked_in_the_snapshot(memory: InMemory, started: Started) -> None:
    live = started(Strict)
    memory.writer.push(Strict, {"api_key": "canary-in-a-mine"}).wait(10)
    eventually(lambda: live.current.api_key is not None)
    assert live.current.api_key.get_secret_value() == "canary-in-a-mine"
    assert "canary" not in repr(live.current)
    retained = memory.broker.retained
    assert any("api_key" in topic for topic in retained)
    assert not [topic for topic, payload in retained.items() if b"canary" in payload]
    files = [path for path in memory.keys.directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # a journal comes and goes
            assert b"canary" not in path.read_bytes()


def test_a_key_that_nobody_described_needs_plain_or_secret(memory: InMemory, started: Started) -> None:
    with pytest.raises(PlainOrSecretError, match="novel"):
        memory.writer.push("nobody", {"novel": 1})
    memory.writer.push("nobody", {"novel": 1}, plain=["novel"]).wait(10)
    assert memory.writer.push("nobody", {"novel": 2}).wait(10, "retained").stage == "retained"


def test_expect_epoch_refuses_when_someone_was_faster(memory: InMemory, started: Started) -> None:
    assert memory.push(vad_threshold=0.6).stage == "retained"
    with pytest.raises(ConflictError, match="epoch 1"):
        memory.writer.push(Stt, {"vad_threshold": 0.7}, expect_epoch=0)
    assert memory.writer.push(Stt, {"vad_threshold": 0.7}, expect_epoch=1).epoch == 2


def test_a_writer_outside_the_trust_document_is_refused(memory: InMemory, started: Started) -> None:
    stranger = SigningKey("writer", "stranger", os.urandom(32))
    given = {**memory.keys.given("stranger"), "writer_key": stranger}
    with Writer(transport=memory.transport, **given) as writer, pytest.raises(NotGrantedError, match="stranger"):
        writer.push(Stt, {"vad_threshold": 0.6})


def test_presence_says_ready_then_offline_when_the_join_is_left(memory: InMemory, started: Started) -> None:
    live = started()
    eventually(lambda: [one.state for one in memory.writer.presences("stt-worker")] == ["ready"])
    live.close()
    eventually(lambda: [one.state for one in memory.writer.presences("stt-worker")] == ["offline"])


def test_without_a_trust_document_the_state_is_joining_and_says_so(memory: InMemory) -> None:
    live = memory.fleet().join(Stt)
    assert not live.wait_until_ready(0.3)
    assert live.status.state == "joining"
    assert live.current.vad_threshold == 0.5


def test_a_lost_connection_makes_a_ready_worker_stale_and_it_comes_back(memory: InMemory, started: Started) -> None:
    live = started()
    memory.broker.stop()
    eventually(lambda: live.status.state == "stale")
    memory.broker.start()
    eventually(lambda: live.status.state == "ready")


def test_a_broker_without_its_memory_is_filled_again(memory: InMemory, started: Started) -> None:
    live = started()
    memory.push(vad_threshold=0.6)
    before = dict(memory.broker.retained)
    memory.broker.stop(forget=True)
    assert memory.broker.retained == {}
    memory.broker.start()
    wanted = {topic: payload for topic, payload in before.items() if topic.startswith("system/config")}
    eventually(lambda: wanted.items() <= memory.broker.retained.items())
    # What a burst publishes is on the broker before it is counted.
    eventually(lambda: live.status.counters.get("Repaired", 0) + memory.writer.agent.counters["Repaired"] > 0)


def test_the_status_is_an_event_too(memory: InMemory, started: Started) -> None:
    live = memory.fleet().join(Stt)
    told: list[str] = []
    end = live.on_status(lambda status: told.append(status.state))
    watch = live.watch_status()
    assert live.wait_until_ready(10)
    memory.broker.stop()
    eventually(lambda: told[-1:] == ["stale"])
    end()
    memory.broker.start()
    eventually(lambda: live.status.state == "ready")
    seen = [watch.next(1) for _ in range(4)]
    words = [status.state for status in seen if status is not None]
    assert words[-3:] == ["ready", "stale", "ready"]
    assert [status.connected for status in seen if status is not None][-2:] == [False, True]
    assert told == ["ready", "stale"], "whoever ended it hears no more"


def test_a_status_watch_serves_an_event_loop_and_ends_with_the_join(memory: InMemory, started: Started) -> None:
    live = started()

    async def main() -> list[str]:
        words = []
        async for status in live.watch_status():
            words.append(status.state)
            memory.broker.stop()
            if status.state == "stale":
                live.close()
        return words

    assert asyncio.run(main()) == ["ready", "stale"]


def test_a_forked_child_leaves_the_parent_s_session_alone(memory: InMemory, started: Started) -> None:
    live = started()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)


def test_a_class_without_a_service_is_refused_by_name(memory: InMemory) -> None:
    class Nameless(Settings):
        x: int = 1

    with pytest.raises(NoServiceError, match="Nameless"):
        memory.fleet().join(Nameless)


def test_a_base_settings_of_the_user_s_own_can_be_joined(memory: InMemory, started: Started) -> None:
    class Own(BaseSettings):
        x: int = 1

        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:
            return (*sources.values(), tars_settings.FleetSettingsSource(settings_cls, service="own"))

    live = memory.fleet().join(Own)
    assert live.wait_until_ready(10)
    memory.writer.push("own", {"x": 5}, plain=["x"]).wait(10)
    eventually(lambda: live.current.x == 5)


def test_service_in_model_config(memory: InMemory, started: Started) -> None:
    class Configured(Settings):
        model_config = SettingsConfigDict(service="configured")
        x: int = 1

    assert memory.join(Configured).status.state == "ready"


def test_a_left_fleet_refuses_to_join(memory: InMemory) -> None:
    fleet = memory.fleet()
    fleet.close()
    with pytest.raises(ClosedError):
        fleet.join(Stt)


@pytest.mark.parametrize("name", ["FLEET", "BROKER"])
def test_a_missing_variable_is_named(name: str, memory: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    given = memory.keys.given("pi-3")
    del given[name.lower()]
    monkeypatch.delenv(f"TARS_SETTINGS_{name}", raising=False)
    with pytest.raises(ConfigurationError, match=f"TARS_SETTINGS_{name}"), tars_settings.join(Stt, **given):
        pass


def test_fifty_readers_see_whole_snapshots_only(memory: InMemory, started: Started) -> None:
    live = started(Strict)
    stop = threading.Event()
    torn: list[tuple[int, int]] = []

    def read() -> None:
        while not stop.is_set():
            snapshot = live.current
            if snapshot.high - snapshot.low != 8:
                torn.append((snapshot.low, snapshot.high))
            time.sleep(0.001)

    async def follow() -> int:
        async for change in live.watch("low"):
            if change.new.low == 11:
                return change.new.low
        return 0

    threads = [threading.Thread(target=read) for _ in range(50)]
    looping: list[int] = []
    threads.append(threading.Thread(target=lambda: looping.append(asyncio.run(follow()))))
    for thread in threads:
        thread.start()
    for n in range(2, 12):
        memory.writer.push(Strict, {"low": n, "high": n + 8}).wait(20)
    eventually(lambda: looping == [11], what="the event loop ran beside them")
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert torn == []
    assert live.current.low == 11


def test_workers_with_one_class_publish_its_schema_once(
    memory: InMemory, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[str] = []
    publish = memory.broker.publish

    def heard(topic: str, payload: bytes, *, retain: bool = True) -> None:
        if "/_schema/" in topic:
            published.append(topic)
        publish(topic, payload, retain=retain)

    memory.broker.publish = heard  # type: ignore[method-assign]
    monkeypatch.setattr(follower, "SCHEMA_WAIT_S", 0.2)
    started(name="pi-3")
    eventually(lambda: len(published) == 1)
    started(name="pi-4")
    monkeypatch.setattr(follower, "SCHEMA_WAIT_S", 2.0)
    started(Tts, name="pi-4")
    eventually(lambda: any("tts-worker" in topic for topic in published), what="well after the second had its turn")
    assert len(published) == 2


def test_nobody_hears_a_word_before_the_burst_behind_it_is_whole(
    memory: InMemory, started: Callable[..., Live[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a burst the replicator is ahead of the snapshot, and other threads may ask just then."""
    live = started()
    assert live.status.state == "ready"
    monkeypatch.setattr(live._agent.replicator, "state_of", lambda scope: "degraded")
    assert live.status.state == "ready"
    assert live.wait_until_ready(0.1)
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.status.state == "degraded", what="told with the end of a burst")
    assert live.current.vad_threshold == 0.6
