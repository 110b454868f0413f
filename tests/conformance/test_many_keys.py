"""Ten thousand keys: more than a broker's queue for one reader holds, and than a writer's head has in one segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import create_model

from tars_settings import Settings
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.conformance.brokers import Broker
from tests.conformance.conftest import Learned
from tests.conformance.probes import replay_size
from tests.conformance.scene import scene
from tests.conformance.table import protocol_of

KEYS = tuple(f"k{number:05d}" for number in range(10_000))
KEYS_A_PUSH = 64
JOIN_WITHIN_S = 60.0
MOSQUITTO_STOPS_AT = 1020
"""20 in flight and 1,000 queued: its defaults, and it says nothing."""


def plant() -> type[Settings]:
    """Return a class with every key as a field."""
    fields: dict[str, Any] = {key: (int, -1) for key in KEYS}
    return create_model("Plant", __base__=Settings, __cls_kwargs__={"service": "plant"}, **fields)


def fill(writer: Writer) -> None:
    """Push every key, its number as value, in deltas of 64."""
    for start in range(0, len(KEYS), KEYS_A_PUSH):
        values = {key: number for number, key in enumerate(KEYS[start : start + KEYS_A_PUSH], start)}
        report = writer.push("plant", values, plain=values).wait(JOIN_WITHIN_S, "retained")
        assert report.stage == "retained", report


def test_a_fresh_worker_joins_complete(broker: Broker, column: str, tmp_path: Path, learned: Learned) -> None:
    with scene(tmp_path, broker.url) as fleet:
        fleet.given = {"protocol": protocol_of(column)}
        fill(fleet.writer())
        # Nothing here rests on a wildcard: where a replay of one is cut short, it was so now.
        replayed = replay_size(broker, "system/config/plant/+", len(KEYS))
        live = fleet.worker("late", plant())
        assert live.wait_until_ready(JOIN_WITHIN_S), live.status
        wanted = {key: number for number, key in enumerate(KEYS)}
        eventually(lambda: live.current.model_dump() == wanted, deadline_s=JOIN_WITHIN_S, what="it has every key")
        learned("10,000 keys", column, f"complete; a wildcard brings {replayed:,}")
        if column.startswith("mosquitto"):
            assert replayed == MOSQUITTO_STOPS_AT
