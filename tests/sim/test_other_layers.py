"""Invariants of layers above the replicator: I10, I11 and L7, each in one scene that a broken rule makes fail.

The scenes are small: what holds in full is said by the tests of those layers. These show that it can be seen to fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError, model_validator

from tars_settings import Live, Settings
from tars_settings.sources.fleet import Captured
from tars_settings.testing import MemoryFleet
from tars_settings.writer import values
from tests.brokers import eventually

CANARY = "a-mutant-may-let-this-out"


class Gate(Settings, service="gate"):
    low: int = 1
    high: int = 10
    api_key: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _ordered(self) -> Gate:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def snapshots_are_valid_as_a_whole() -> bool:
    """I10: of two pushes that are good key by key, the second does not fit what is there."""
    seen: list[Gate] = []
    with MemoryFleet() as fleet:
        live = fleet.join(Gate)
        live.on_change(lambda change: seen.append(change.new))
        # By the service's name: a writer without the class checks each key by itself.
        for pushed in ({"high": 5}, {"low": 7}, {"high": 8}):
            assert fleet.writer.push("gate", pushed, plain=pushed).wait(10).stage == "retained"
        eventually(lambda: (live.current.low, live.current.high) == (7, 8), what="they fit together in the end")
        eventually(lambda: seen and seen[-1].low == 7, what="the callback has heard of it")
    return all(one.low <= one.high for one in seen)


def secrets_are_nowhere_in_plain() -> bool:
    """I11: on the broker, in every file, in what is said."""
    with MemoryFleet() as fleet:
        live = fleet.join(Gate)
        report = fleet.push(Gate, api_key=CANARY)
        eventually(lambda: live.current.api_key.get_secret_value() == CANARY, what="the worker has the secret")
        said = [live.current, live.status, report, fleet.writer.view("gate"), fleet.broker.retained]
        live.close()
        files = [path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()]
    assert files
    return CANARY not in repr(said) and not any(CANARY.encode() in content for content in files)


def reading_needs_no_agent() -> bool:
    """L7: the agent's thread hangs, in a disk that does not answer for instance, and a worker reads."""
    hung, over, read = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        hung.set()
        over.wait(60)

    with MemoryFleet() as fleet:
        live = fleet.join(Gate)
        live._agent.submit(hang)
        assert hung.wait(10)
        reader = threading.Thread(target=lambda: (live.current.low, read.set()))
        reader.start()
        try:
            return read.wait(2)
        finally:
            over.set()
            reader.join()


def validated_key_by_key(patch: pytest.MonkeyPatch) -> None:
    """A change that the model refuses is put into a copy of what was there."""
    attempt = Captured.attempt

    def lax(self: Captured, folded: Any, instance: Any) -> Any:
        found = attempt(self, folded, instance)
        return self.model.model_construct(**self.compose(folded)) if isinstance(found, ValidationError) else found

    patch.setattr(Captured, "attempt", lax)


def secrets_are_pushed_plain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "_is_secret", lambda *_: False)


def reading_asks_the_agent(patch: pytest.MonkeyPatch) -> None:
    def fetch(self: Live[Any]) -> Any:
        self._agent.call(lambda: None, 60)
        return self.__dict__["current"]

    def put(self: Live[Any], value: Any) -> None:
        self.__dict__["current"] = value

    patch.setattr(Live, "current", property(fetch, put), raising=False)


OTHER_LAYERS: dict[str, tuple[Callable[[], bool], Callable[[pytest.MonkeyPatch], None]]] = {
    "I10": (snapshots_are_valid_as_a_whole, validated_key_by_key),
    "I11": (secrets_are_nowhere_in_plain, secrets_are_pushed_plain),
    "L7": (reading_needs_no_agent, reading_asks_the_agent),
}


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_it_holds_until_its_rule_is_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holds, mutant = OTHER_LAYERS[name]
    assert holds()
    mutant(monkeypatch)
    assert not holds()
