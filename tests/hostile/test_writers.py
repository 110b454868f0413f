"""D: a writer's key in the wrong hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from tars_settings import Settings
from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.wire import encode
from tars_settings.join import Live
from tests.brokers import eventually
from tests.join.conftest import InMemory

Joiner = Callable[..., Live[Any]]


class Pool(Settings, service="stt-worker"):
    pool_size: int = Field(default=4, ge=1)
    model: str = "base"


def test_d08_a_poison_pill_is_refused_by_each_of_ten_workers_and_what_comes_later_is_applied(
    memory: InMemory, started: Joiner
) -> None:
    memory.push(Pool, pool_size=8)
    lives = [memory.join(Pool, name=f"pi-{n}") for n in range(10)]
    assert [live.current.pool_size for live in lives] == [8] * 10
    body = DeltaBody("stt-worker", 1, 2, 1, (Assignment("pool_size", set=0), Assignment("model", set="evil")))
    pill = memory.keys.writer.sign("delta", memory.keys.id, encode(body))
    for key in ("pool_size", "model"):
        memory.broker.publish(f"system/config/stt-worker/{key}", pill)
    eventually(lambda: all(live.status.refused for live in lives), what="all ten met the pill")
    assert {(live.current.pool_size, live.current.model) for live in lives} == {(8, "base")}
    memory.push(Pool, pool_size=9)
    eventually(lambda: all(live.current.pool_size == 9 for live in lives))
