"""Two mosquitto, bridged both ways, whose bridge is cut while both sides write, and heals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokers import Mosquitto, eventually
from tests.conformance.brokers import Version, bridged, running
from tests.conformance.conftest import Learned
from tests.conformance.proxy import Proxy
from tests.conformance.scene import PATIENCE_S, Scene, held_of_fleet, push, ready, scene, until
from tests.conformance.table import BRIDGED


class Pair:
    """A here, B there, and the network between them."""

    def __init__(self, directory: Path, version: Version, stack: ExitStack) -> None:
        self.there = stack.enter_context(running(directory / "there", Mosquitto))
        self.network = stack.enter_context(Proxy(self.there.port))
        self.here = stack.enter_context(
            running(directory / "here", lambda path: bridged(path, self.network.port, version))
        )
        self.fleet: Scene = stack.enter_context(scene(directory, self.here.url))
        self.fleet.given = {"protocol": version}

    def brokers_agree(self) -> bool:
        """Return whether both hold the same of the fleet."""
        return held_of_fleet(self.here.port) == held_of_fleet(self.there.port)


@pytest.fixture
def pair(tmp_path: Path, protocol: Version) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path, protocol, stack)


def test_a_pair_converges_after_conflicting_writes_and_deletes_on_both_sides_of_a_cut(
    pair: Pair, protocol: Version, learned: Learned
) -> None:
    writer_here, writer_there = pair.fleet.writer(), pair.fleet.second_writer(broker=pair.there.url)
    here, there = ready(pair.fleet.worker("here")), ready(pair.fleet.worker("there", broker=pair.there.url))
    push(writer_here, {"vad_threshold": 0.6, "model": "large", "language": "de"}, need="retained")
    until(there, vad_threshold=0.6, model="large", language="de")

    pair.network.cut()
    eventually(lambda: pair.network.refused, what="the bridge meets the cut")
    push(writer_here, {"vad_threshold": 0.7}, unset=("model",), need="retained")
    push(writer_there, {"vad_threshold": 0.8, "model": "tiny"}, unset=("language",), need="retained")
    until(here, vad_threshold=0.7, model="base", language="de")
    until(there, vad_threshold=0.8, model="tiny", language="en")
    assert not pair.brokers_agree()

    pair.network.heal()
    eventually(lambda: here.current == there.current, deadline_s=PATIENCE_S, what="the workers agree")
    eventually(pair.brokers_agree, deadline_s=PATIENCE_S, what="the brokers agree")
    assert here.current == there.current
    # One of the two pushes won as a whole; what only one side deleted is gone.
    assert (here.current.vad_threshold, here.current.model) in ((0.7, "base"), (0.8, "tiny"))
    assert here.current.language == "en"
    assert here.status.counters.get("Conflict", 0) + there.status.counters.get("Conflict", 0) > 0
    push(writer_here, {"vad_threshold": 0.9}, need="retained")
    until(there, vad_threshold=0.9)
    learned("conflicting writes and deletes over a cut", BRIDGED[protocol], "the same on both sides")
