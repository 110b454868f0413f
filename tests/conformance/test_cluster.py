"""Three NATS servers that keep retained messages together: any one of them may die, the leader too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tars_settings.errors import NotSyncedError
from tars_settings.join import Live
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.conformance.brokers import Nats, NatsCluster, running
from tests.conformance.conftest import Learned
from tests.conformance.onlooker import HungUpError, Onlooker, retained
from tests.conformance.proxy import Proxy
from tests.conformance.scene import TOPIC, Scene, Stt, held_of_fleet, push, ready, scene, until
from tests.conformance.table import CLUSTER

PATIENCE_S = 180.0
"""While a member is dead it was seen to refuse connections for 10 s, and to take minutes over subscriptions of QoS 1.

Each needs a group of three copies, and of those whose first leader would be the dead one the client hears after five
seconds that they failed.
"""

SEGMENT_SLASHES = 5
MARKS = 3
"""The trust document, a key and an index: what a fleet with one value has at the least."""
RETAINED = "$MQTT_rmsgs"
"""The stream that NATS keeps retained messages in."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with running(tmp_path / "cluster", NatsCluster) as cluster:
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


def await_service(members: Iterable[Nats]) -> None:
    """Return once a stranger can subscribe with QoS 1 at each of these members, and hears itself."""

    def serves(one: Nats) -> bool:
        with contextlib.suppress(HungUpError, OSError), Onlooker(one.port) as onlooker:
            onlooker.echo()
            return True
        return False

    for one in members:
        eventually(lambda one=one: serves(one), deadline_s=PATIENCE_S, what=f"{one.name} serves again")


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


def kept(port: int) -> dict[str, bytes]:
    """Return what a member shows of the fleet but segments, which are replaced by the next push."""
    return {topic: payload for topic, payload in held_of_fleet(port).items() if topic.count("/") != SEGMENT_SLASHES}


@pytest.mark.timeout(900)
def test_any_one_member_may_die_and_nothing_is_lost(cluster: NatsCluster, fleet: Scene, learned: Learned) -> None:
    writer = fleet.writer()
    workers = {one.name: ready(fleet.worker(one.name, broker=one.url)) for one in cluster.members}
    push(writer, {"model": "large"}, need="retained")
    leading = leader(cluster.members)
    live_on_without(leading, cluster, fleet, writer, workers)
    for victim in (one for one in cluster.members if one is not leading):
        lose(victim, cluster)
        come_back(victim, cluster, workers, vad_threshold=0.9, model="large")
    learned("loss of a member", CLUSTER, "nothing is lost")


def live_on_without(
    leading: Nats, cluster: NatsCluster, fleet: Scene, writer: Writer, workers: dict[str, Live[Stt]]
) -> None:
    """Push while the leader is dead, and have a worker join that is new.

    Until the leader is back a member may show its clients an older state than is stored; then all have the push.
    """
    rest = lose(leading, cluster)
    assert leader(rest) is not leading
    await_service(rest)
    push_in_time(writer, {"vad_threshold": 0.9})
    workers["late"] = fleet.worker("late", broker=rest[0].url)
    come_back(leading, cluster, workers, vad_threshold=0.9, model="large")
    assert b'"set":0.9' in retained(leading.port, TOPIC)[TOPIC]


def lose(victim: Nats, cluster: NatsCluster) -> tuple[Nats, ...]:
    """Kill a member, see that the others show what it held, and return them."""
    eventually(cluster.is_whole, deadline_s=PATIENCE_S, what="every member has a copy of everything")
    held = kept(victim.port)
    assert len(held) >= MARKS, held
    victim.kill()
    rest = tuple(one for one in cluster.members if one is not victim)
    for one in rest:
        eventually(
            lambda one=one: held.items() <= kept(one.port).items(), deadline_s=PATIENCE_S, what="nothing is lost"
        )
    return rest


def come_back(victim: Nats, cluster: NatsCluster, workers: dict[str, Live[Stt]], **wanted: Any) -> None:
    """Start a dead member again; every worker is ready then, with the values that are wanted."""
    victim.start()
    eventually(lambda: same_everywhere(cluster), deadline_s=PATIENCE_S, what="all members show the same")
    for live in workers.values():
        until(ready(live, PATIENCE_S), PATIENCE_S, **wanted)
