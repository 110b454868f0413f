"""Facts of proposals: a worker's own model judges them over what the fleet says, and nothing comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import Field, SecretStr, field_validator, model_validator

from tars_settings import Settings
from tars_settings.core.delta import Assignment
from tars_settings.core.question import Fit, QuestionBody
from tars_settings.core.session import Received
from tars_settings.core.topics import QuestionTopic
from tars_settings.core.wire import encode
from tars_settings.errors import NotGrantedError
from tars_settings.join import Live
from tars_settings.trust.document import Writer as Granted
from tests.brokers import eventually
from tests.join.conftest import InMemory

Started = Callable[..., Live[Any]]
SCOPE = "ear"


class Ear(Settings, service="ear"):
    low: int = Field(default=1, ge=0)
    high: int = 10
    api_key: SecretStr | None = None

    @model_validator(mode="after")
    def _low_below_high(self) -> Ear:
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self

    @field_validator("high")
    @classmethod
    def _no_thirteen(cls, value: int) -> int:
        return [value][value == 13]  # an IndexError, as validators raise them now and then


def proposed(memory: InMemory, *, scope: str = SCOPE, unset: tuple[str, ...] = (), **values: Any) -> Fit:
    # Not by way of the writer's own checks: a schema that a worker published would refuse some of it before.
    assign = [
        *(Assignment(key, set=value) for key, value in values.items()),
        *(Assignment(key, unset=True) for key in unset),
    ]
    (answer,) = memory.writer.ask(scope, tuple(assign))
    assert answer.fit is not None
    return answer.fit


@pytest.fixture(autouse=True)
def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tars_settings.agent.answering.GAP_S", 0.0)


@pytest.fixture
def ear(memory: InMemory, started: Started) -> Live[Ear]:
    live: Live[Ear] = started(Ear)
    return live


def test_a_proposal_fits_or_is_refused_by_the_models_own_word(memory: InMemory, ear: Live[Ear]) -> None:
    assert proposed(memory, low=5) == Fit("fits")
    refused = proposed(memory, low=-1)
    assert (refused.fate, refused.keys) == ("refused", ("low",))
    assert "greater than or equal to 0" in refused.message
    assert proposed(memory, stranger=1) == Fit("fits", "the model does not have stranger", ("stranger",))


def test_rules_across_fields_see_what_the_fleet_says(memory: InMemory, ear: Live[Ear]) -> None:
    memory.push(Ear, high=3)
    eventually(lambda: ear.current.high == 3)
    assert proposed(memory, low=5).fate == "refused"
    assert proposed(memory, low=5, high=6).fate == "fits"
    assert proposed(memory, low=5, unset=("high",)).fate == "fits"


def test_what_would_take_another_delta_away_does_not_fit(memory: InMemory, ear: Live[Ear]) -> None:
    memory.writer.push("_all", {"high": 4}, plain=["high"]).wait(10)
    eventually(lambda: ear.current.high == 4)
    found = proposed(memory, low=5)
    assert found.fate == "refused"
    assert "_all epoch 1 would be refused: " in found.message
    memory.push(Ear, low=5)
    eventually(lambda: ear.current.low == 5)
    assert [one.scope for one in ear.status.refused] == ["_all"], "it was as it had been said"


def test_nothing_is_swapped_kept_or_reported(memory: InMemory, ear: Live[Ear]) -> None:
    memory.push(Ear, low=2)
    eventually(lambda: ear.current.low == 2)
    follower, before, status = ear._follower, ear.current, ear.status
    built, acked, reported_s = follower.built, dict(follower._acked), follower._reported_s
    assert proposed(memory, low=3).fate == "fits"
    assert proposed(memory, low=-3).fate == "refused"
    assert ear._agent.counters["answers"] == 2
    assert ear.current is before
    assert follower.built is built
    assert follower._acked == acked
    assert follower._reported_s == reported_s
    assert (ear.status.refused, ear.status.scopes) == ((), status.scopes)
    memory.writer.push_as_is(SCOPE, (Assignment("low", set=-4),)).wait(10)
    eventually(lambda: ear.status.refused)
    assert ear.current.low == 2, "the last good value is what was in force, not what was proposed"


def test_a_secret_is_proposed_encrypted_and_its_own_place_opens_it(memory: InMemory, ear: Live[Ear]) -> None:
    heard: list[bytes] = []
    ear._agent.add_listener(_Hearing(heard))
    assign = memory.writer.assignments(Ear, {"api_key": "sk-robot-0451"})
    (answer,) = memory.writer.ask(SCOPE, assign)
    assert answer.fit == Fit("fits")
    assert any(b'"propose"' in payload for payload in heard)
    assert not any(b"sk-robot-0451" in payload for payload in heard)
    elsewhere = (Assignment("api_key", secret=assign[0].secret),)
    (answer,) = memory.writer.ask(f"{SCOPE}@pi-3", elsewhere)
    assert answer.fit is not None
    assert answer.fit.fate == "refused", "it was encrypted for another scope"
    other = memory.writer.assignments(Ear, {"api_key": "sk-robot-0452"})
    (answer,) = memory.writer.ask(SCOPE, (Assignment("low", set=2), *other))
    assert answer.fit == Fit("fits")


class _Hearing:
    def __init__(self, heard: list[bytes]) -> None:
        self._heard = heard

    def on_session(self, event: Any) -> None: ...

    def on_burst(self, notices: Any) -> None: ...

    def on_message(self, received: Received) -> None:
        self._heard.append(received.payload)


def test_keys_that_the_environment_pins_are_named(
    memory: InMemory, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOW", "4")
    live = started(Ear)
    found = proposed(memory, low=5, high=20)
    assert found.fate == "fits"
    assert list(found.shadowed) == ["low"]
    assert "LOW" in found.shadowed["low"]
    assert live.current.low == 4


def test_a_model_that_raises_something_else_refuses_and_the_session_goes_on(memory: InMemory, ear: Live[Ear]) -> None:
    assert proposed(memory, high=13) == Fit("refused", "the model raised IndexError")
    assert ear._agent.counters["agent failures"] == 0
    assert ear._agent.counters["sessions"] == 1


def test_what_is_forged_replayed_or_not_granted_is_never_tried(
    memory: InMemory, ear: Live[Ear], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    rehearse = ear._follower._builder.rehearse
    monkeypatch.setattr(ear._follower._builder, "rehearse", lambda *given: tried.append(given) or rehearse(*given))
    signer, agent, fleet = memory.writer._signer, ear._agent, memory.writer.environment.fleet_id
    assert signer is not None
    topic = agent.replicator.topics.format(QuestionTopic(SCOPE))

    def heard(payload: bytes) -> None:
        agent.call(lambda: agent._take([Received(topic, payload, False)]))

    body = QuestionBody(SCOPE, 1, "1" * 32, propose=(Assignment("low", set=5),))
    good = signer.sign("question", fleet, encode(body))
    for payload in (
        good.replace(b'"set":5', b'"set":6'),
        signer.sign("delta", fleet, encode(body)),
        signer.sign("question", "0" * 32, encode(body)),
    ):
        heard(payload)
    eventually(lambda: agent.counters["rejected bad-signature"] == 3)
    assert tried == []
    heard(good)
    heard(good)
    eventually(lambda: agent.counters["answers"] == 1)
    assert len(tried) == 1
    assert ear.current.low == 1


def test_who_may_not_write_a_key_is_told_before_anyone_is_asked(
    memory: InMemory, ear: Live[Ear], monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = memory.writer._signer
    assert signer is not None
    narrow = Granted(signer.name, signer.public, ("ear.high",))
    monkeypatch.setattr(type(memory.writer.trust), "writer", lambda document, kid: narrow)
    with pytest.raises(NotGrantedError, match="ear low"):
        memory.writer.ask(SCOPE, (Assignment("low", set=2),))
