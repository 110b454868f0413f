"""Facts of watching: order, coalescing, filters, both kinds of iteration, callbacks, endings."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tars_settings.errors import ClosedError, FrozenSnapshotError, UsageError
from tars_settings.join import Change, Live
from tests.brokers import eventually
from tests.join.conftest import InMemory, Stt

Started = Callable[..., Live[Any]]


def test_a_watch_sees_what_came_between_making_and_iterating_it(memory: InMemory, started: Started) -> None:
    live = started()
    watch = live.watch()
    memory.push(vad_threshold=0.6)
    change = next(watch)
    assert (change.old.vad_threshold, change.new.vad_threshold) == (0.5, 0.6)
    assert change.fields == {"vad_threshold"}
    assert change.epoch == 1


def test_a_slow_consumer_gets_the_newest_state_from_what_it_saw_last(memory: InMemory, started: Started) -> None:
    live = started()
    watch = live.watch()
    for value in (0.6, 0.7, 0.8):
        memory.push(vad_threshold=value)
    eventually(lambda: live.current.vad_threshold == 0.8)
    change = next(watch)
    assert (change.old.vad_threshold, change.new.vad_threshold) == (0.5, 0.8)
    assert watch.next(0.05) is None


def test_a_watch_on_a_key_passes_over_other_keys(memory: InMemory, started: Started) -> None:
    live = started()
    watch = live.watch("vad_threshold")
    memory.push(model="large")
    eventually(lambda: live.current.model == "large")
    assert watch.next(0.05) is None
    memory.push(vad_threshold=0.9)
    change = next(watch)
    assert change.fields == {"vad_threshold", "model"}, "old is what this consumer saw last"


def test_a_push_of_the_same_value_is_no_change(memory: InMemory, started: Started) -> None:
    live = started()
    watch = live.watch()
    report = memory.push(vad_threshold=0.5)
    assert report.applied == 1
    assert watch.next(0.05) is None


def test_async_iteration_gets_every_settled_state_and_the_loop_keeps_running(
    memory: InMemory, started: Started
) -> None:
    live = started()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def consume() -> list[float]:
        seen: list[float] = []
        ticking = asyncio.create_task(tick())
        watch = live.watch()
        for value in (0.6, 0.7):
            await asyncio.to_thread(memory.push, vad_threshold=value)
            seen.append((await anext_of(watch)).new.vad_threshold)
        ticking.cancel()
        return seen

    assert asyncio.run(consume()) == [0.6, 0.7]
    assert ticks > 10


async def anext_of(watch: Any) -> Change[Stt]:
    return await asyncio.wait_for(watch.__anext__(), 10)


def test_a_cancelled_wait_loses_nothing(memory: InMemory, started: Started) -> None:
    live = started()

    async def consume() -> float:
        watch = live.watch()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(watch.__anext__(), 0.05)
        await asyncio.to_thread(memory.push, vad_threshold=0.6)
        return (await anext_of(watch)).new.vad_threshold

    assert asyncio.run(consume()) == 0.6


def test_a_for_in_a_running_event_loop_is_refused_instead_of_blocking_it(started: Started) -> None:
    live = started()

    async def wrong() -> None:
        next(live.watch())

    with pytest.raises(UsageError, match="async for"):
        asyncio.run(wrong())


def test_leaving_the_join_ends_every_iteration(memory: InMemory, started: Started) -> None:
    live = started()
    watch = live.watch()
    seen: list[Change[Stt]] = []
    thread = threading.Thread(target=lambda: seen.extend(watch))
    thread.start()
    live.close()
    thread.join(10)
    assert not thread.is_alive()
    assert seen == []
    with pytest.raises(ClosedError):
        live.watch()


def test_a_watch_that_nobody_holds_is_forgotten(memory: InMemory, started: Started) -> None:
    live = started()
    for _ in range(3):
        live.watch()
    gc.collect()
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    eventually(lambda: live._watches == [])


def test_callbacks_run_in_order_off_the_agent_s_thread(memory: InMemory, started: Started) -> None:
    live = started()
    seen: list[tuple[str, float, str]] = []
    for name in ("first", "second"):
        live.on_change(
            lambda change, name=name: seen.append((name, change.new.vad_threshold, threading.current_thread().name))
        )
    memory.push(vad_threshold=0.6)
    eventually(lambda: len(seen) == 2)
    assert [(name, value) for name, value, _ in seen] == [("first", 0.6), ("second", 0.6)]
    assert {thread for *_, thread in seen} == {"tars-settings-stt-worker"}


def test_a_callback_that_raises_is_counted_and_stops_nothing(
    memory: InMemory, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    live = started()
    seen: list[float] = []

    def bad(change: Change[Stt]) -> None:
        raise ValueError(f"canary {change.new.vad_threshold}")

    live.on_change(bad)
    live.on_change(lambda change: seen.append(change.new.vad_threshold))
    memory.push(vad_threshold=0.6)
    memory.push(vad_threshold=0.7)
    eventually(lambda: seen[-1:] == [0.7])
    assert live.status.counters["callback failures"] >= 1
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text


def test_a_callback_that_blocks_does_not_hold_up_the_snapshot(memory: InMemory, started: Started) -> None:
    live = started()
    release = threading.Event()
    entered = threading.Event()

    def block(_: Change[Stt]) -> None:
        entered.set()
        release.wait(20)

    live.on_change(block)
    memory.push(vad_threshold=0.6)
    assert entered.wait(10)
    memory.push(vad_threshold=0.7)
    eventually(lambda: live.current.vad_threshold == 0.7)
    release.set()


def test_a_callback_may_close_the_join(memory: InMemory, started: Started) -> None:
    live = started()
    closed = threading.Event()

    def close(_: Change[Stt]) -> None:
        live.close()
        closed.set()

    live.on_change(close)
    memory.push(vad_threshold=0.6)
    assert closed.wait(10)


def test_a_coroutine_callback_runs_in_the_loop_that_registered_it(memory: InMemory, started: Started) -> None:
    live = started()

    async def main() -> tuple[float, str]:
        got: asyncio.Future[tuple[float, str]] = asyncio.get_running_loop().create_future()

        async def callback(change: Change[Stt]) -> None:
            got.set_result((change.new.vad_threshold, threading.current_thread().name))

        live.on_change(callback)
        await asyncio.to_thread(memory.push, vad_threshold=0.6)
        return await asyncio.wait_for(got, 10)

    assert asyncio.run(main()) == (0.6, "MainThread")

    async def never(_: Change[Stt]) -> None: ...

    with pytest.raises(UsageError, match="event loop"):
        live.on_change(never)


def test_an_ended_callback_is_not_called(memory: InMemory, started: Started) -> None:
    live = started()
    seen: list[float] = []
    end = live.on_change(lambda change: seen.append(change.new.vad_threshold))
    memory.push(vad_threshold=0.6)
    eventually(lambda: seen == [0.6])
    end()
    memory.push(vad_threshold=0.7)
    eventually(lambda: live.current.vad_threshold == 0.7)
    assert seen == [0.6]


def test_a_snapshot_is_frozen_and_stays_what_it_was(memory: InMemory, started: Started) -> None:
    live = started()
    before = live.current
    with pytest.raises(FrozenSnapshotError):
        before.vad_threshold = 1.0
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    assert before.vad_threshold == 0.5
    assert isinstance(live.current, Stt)
