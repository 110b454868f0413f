"""Ten thousand keys: more than a broker's queue for one reader holds, and than a writer's head has in one segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from tars_settings import Settings
from tars_settings.errors import NotSyncedError
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.conformance.brokers import Broker
from tests.conformance.conftest import Learned
from tests.conformance.probes import replay_size
from tests.conformance.scene import ready, scene
from tests.conformance.table import protocol_of

KEYS = {"amqtt": 2_000, "aedes": 2_000}
"""Of others 10,000. These two look through all that is retained for each exact topic that is asked for."""
KEYS_A_PUSH = 64
JOIN_WITHIN_S = 200.0
MOSQUITTO_STOPS_AT = 1020
"""20 in flight and 1,000 queued: its defaults, and it says nothing."""


def plant(wanted: dict[str, int]) -> type[Settings]:
    """Return a class with every key as a field."""
    fields: dict[str, Any] = dict.fromkeys(wanted, (int, -1))
    return create_model("Plant", __base__=Settings, __cls_kwargs__={"service": "plant"}, **fields)


def fill(writer: Writer, wanted: dict[str, int]) -> None:
    """Push every key in deltas of 64."""
    left = list(wanted.items())
    while left:
        values, left = dict(left[:KEYS_A_PUSH]), left[KEYS_A_PUSH:]
        eventually(lambda values=values: is_pushed(writer, values), deadline_s=JOIN_WITHIN_S, what="a push is signed")


def is_pushed(writer: Writer, values: dict[str, int]) -> bool:
    """Push; a broker that is slow to answer makes a writer refuse, before anything is signed."""
    try:
        report = writer.push("plant", values, plain=values).wait(JOIN_WITHIN_S, "retained")
    except NotSyncedError:
        return False
    assert report.stage == "retained", report
    return True


@pytest.mark.timeout(600)
def test_a_fresh_worker_joins_complete(broker: Broker, column: str, tmp_path: Path, learned: Learned) -> None:
    """Nothing rests on a wildcard: where a replay of one is cut short, it was so here."""
    wanted = {f"k{number:05d}": number for number in range(KEYS.get(column, 10_000))}
    with scene(tmp_path, broker.url, audit_s=60.0) as fleet:
        fleet.given = {"protocol": protocol_of(column)}
        fill(fleet.writer(), wanted)
        replayed = replay_size(broker, "system/config/plant/+", len(wanted))
        if column.startswith("mosquitto"):
            assert replayed == MOSQUITTO_STOPS_AT
        live = ready(fleet.worker("late", plant(wanted)), JOIN_WITHIN_S)
        eventually(lambda: live.current.model_dump() == wanted, deadline_s=JOIN_WITHIN_S, what="it has every key")
        complete = f"{len(wanted):,} complete"
        learned("many keys", column, complete if replayed == len(wanted) else f"{complete}; a wildcard: {replayed:,}")
