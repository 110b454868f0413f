"""Three NATS servers that keep retained messages together: any one of them may die, the leader too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tars_settings.errors import NotSyncedError
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.conformance.brokers import Nats, NatsCluster
from tests.conformance.onlooker import retained
from tests.conformance.proxy import Proxy
from tests.conformance.scene import TOPIC, Scene, Stt, held_of_fleet, push, ready, scene, until

PATIENCE_S = 90.0
"""After the loss of a member it was seen to refuse connections for 10 s and subscriptions of QoS 1 for 30 s."""

RETAINED = "$MQTT_rmsgs"
"""The stream that NATS keeps retained messages in."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def fleet(cluster: NatsCluster, tmp_path: Path) -> Iterator[Scene]:
    """A fleet whose broker is whichever member accepts."""
    with ExitStack() as stack:
        door = stack.enter_context(Proxy(*(one.port for one in cluster.members)))
        yield stack.enter_context(scene(tmp_path, door.url))


def leader(among: tuple[Nats, ...]) -> Nats:
    """Return the member that leads the retained messages, as soon as it is one *among* these."""
    found: list[Nats] = []

    def is_found() -> bool:
        found[:] = [one for one in among if one.streams().get(RETAINED, {}).get("leader") == one.name]
        return len(found) == 1

    eventually(is_found, deadline_s=PATIENCE_S, what="there is one leader")
    return found[0]


def same_everywhere(cluster: NatsCluster) -> bool:
    """Return whether clients of every member are shown the same."""
    first, *others = (held_of_fleet(one.port) for one in cluster.members)
    return all(first == other for other in others)


def push_in_time(writer: Writer, values: dict[str, Any]) -> None:
    """Push as an operator would while members elect a leader: what is refused was not published, so try again.

    Meanwhile NATS acknowledges what it does not retain; the push says so (*unconfirmed*), and the fleet repairs it.
    """

    def is_signed() -> bool:
        try:
            report = writer.push(Stt, values).wait(PATIENCE_S, "retained")
        except NotSyncedError:
            return False
        assert report.stage in ("retained", "unconfirmed"), report
        return True

    eventually(is_signed, deadline_s=PATIENCE_S, what="the push is signed and sent")


@pytest.mark.timeout(400)
def test_any_one_member_may_die_and_nothing_is_lost(cluster: NatsCluster, fleet: Scene) -> None:
    writer = fleet.writer()
    workers = {one.name: ready(fleet.worker(one.name, broker=one.url)) for one in cluster.members}
    push(writer, {"model": "large"}, need="retained")
    first = leader(cluster.members)
    for turn, victim in enumerate([first, *(one for one in cluster.members if one is not first)]):
        eventually(cluster.is_whole, deadline_s=PATIENCE_S, what="every member has a copy of everything")
        held = held_of_fleet(victim.port)
        assert len(held) >= 4, held
        rest = tuple(one for one in cluster.members if one is not victim)
        victim.kill()
        assert leader(rest) is not victim
        threshold = (1 + turn) / 10
        push_in_time(writer, {"vad_threshold": threshold})
        late = ready(fleet.worker(f"late-{turn}", broker=rest[0].url), PATIENCE_S)
        for live in (late, *(workers[one.name] for one in rest)):
            until(live, PATIENCE_S, vad_threshold=threshold, model="large")
        lost = {topic for topic in held if "/_head/" not in topic} - set(held_of_fleet(rest[0].port))
        assert not lost, "what was retained before is retained by the others"
        victim.start()
        until(ready(workers[victim.name], PATIENCE_S), PATIENCE_S, vad_threshold=threshold, model="large")
        eventually(lambda: same_everywhere(cluster), deadline_s=PATIENCE_S, what="all members show the same")
        assert retained(victim.port, TOPIC)[TOPIC].count(f'"set":{threshold}'.encode()) == 1
