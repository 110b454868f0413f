"""A push is read back with patience: a cluster acknowledges before every member of it shows what it holds."""

from __future__ import annotations

import pytest

from tars_settings.core.session import Publish
from tars_settings.gossip.effects import Effect, Push, Stage
from tars_settings.gossip.writing import READ_BACK_AGAIN_S
from tests.fleets import ALICE, SCOPE, set_
from tests.gossip.test_rules_broker import Broker

KEYS = tuple(f"k{n}" for n in range(10))


class LateBroker(Broker):
    """Acknowledges at once, and shows nothing of it until :meth:`show`."""

    is_late = False

    def carry_out(self, effect: Effect) -> None:
        before = dict(self.retained)
        super().carry_out(effect)
        if self.is_late and isinstance(effect, Publish) and effect.retain:
            self.hidden[effect.topic] = effect.payload
            self.retained.clear()
            self.retained.update(before)

    def push(self) -> None:
        self.is_late, self.hidden = True, {}
        self.give(Push(7, SCOPE, tuple(set_(key) for key in KEYS)))

    def show(self) -> None:
        self.retained.update(self.hidden)

    @property
    def stages(self) -> list[str]:
        return [one.stage for one in self.seen(Stage)]


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.4, 2.0])
def test_what_shows_late_is_retained(after_s: float) -> None:
    broker = LateBroker(signer=ALICE)
    broker.push()
    broker.pass_time(after_s)
    assert broker.stages == ["signed", "accepted"]
    broker.show()
    broker.pass_time(3.0)
    assert broker.stages == ["signed", "accepted", "retained"]


def test_what_never_shows_is_unconfirmed_in_the_end() -> None:
    broker = LateBroker(signer=ALICE)
    broker.push()
    topic = next(iter(broker.hidden))
    broker.pass_time(sum(READ_BACK_AGAIN_S) + 0.1)
    assert broker.stages == ["signed", "accepted", "unconfirmed"]
    assert 1 + len(READ_BACK_AGAIN_S) <= broker.probes(topic) <= 3 + len(READ_BACK_AGAIN_S), "and not in a hurry"
