"""``keys compromise``: a stolen key with a poisoned epoch, and one command that takes a live fleet back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import tars_settings
from tars_settings import Settings
from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.stamp import MAX_EPOCH
from tars_settings.core.wire import encode
from tars_settings.trust.keys import SigningKey, fleet_id, parse_fleet
from tests.brokers import DEADLINE_S, Mosquitto, eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Plant, found_plant, open_plant
from tests.conformance.proxy import Proxy

TOPIC = "system/config/stt-worker"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Plant]:
    """A fleet of its own, with a worker."""
    with open_plant(tmp_path / "plant", ("stt-worker", "kitchen")) as made:
        yield made


def pushed(fleet: Plant, *words: str, **variables: str) -> int:
    done = fleet.cli("push", "stt-worker", *words, "--json", **variables)
    assert done.code == 0, done.err
    return int(done.document()["epoch"])


def granted(fleet: Plant, name: str) -> Path:
    path = fleet.cli.home / "fleet" / f"{name}.key"
    public = fleet.cli("keys", "new", name, "--file", str(path), "--json").document()["public"]
    done = fleet.cli("keys", "grant", name, "*", "_all", "--public", public)
    assert done.code == 0, done.err
    return path


def poison(fleet: Plant, key_file: Path, **values: Any) -> None:
    """Sign, with a stolen key, the last epoch there is, and see it work."""
    signed_poison(fleet, key_file, **values)
    for name, one in values.items():
        eventually(lambda name=name, one=one: fleet.value(name) == one, what="the poison to work")  # type: ignore[misc]


def signed_poison(fleet: Plant, key_file: Path, **values: Any) -> None:
    """Sign, with a stolen key, the last epoch there is, and put it where it belongs."""
    key = SigningKey.from_text(key_file.read_text())
    items = tuple(Assignment(name, set=one) for name, one in values.items())
    body = DeltaBody("stt-worker", 0, MAX_EPOCH, 1, items)
    payload = key.sign("delta", fleet_id(parse_fleet(fleet.made["fleet"])), encode(body))
    for name in values:
        fleet.broker.publish(f"{TOPIC}/{name}", payload)


def kid_at(fleet: Plant, key: str) -> str:
    return str(json.loads(fleet.broker.retained(f"{TOPIC}/{key}")[f"{TOPIC}/{key}"])["kid"])


def test_one_command_takes_the_fleet_back_from_a_stolen_key(fleet: Plant) -> None:
    thief = granted(fleet, "thief")
    pushed(fleet, "silence_s=2")
    good = pushed(fleet, "vad_threshold=0.7", "api_key=canary-in-a-mine-0451", TARS_SETTINGS_WRITER_KEY=str(thief))
    poison(fleet, thief, vad_threshold=0.01, silence_s=9.0, suppress_echo=False)
    blocked = fleet.cli("push", "stt-worker", "vad_threshold=0.5")
    assert blocked.code == 1, "the epoch was poisoned, and a push went through"

    unasked = fleet.cli("keys", "compromise", "thief", "--good-until", str(good))
    assert unasked.code == 2
    assert ["stt-worker", "vad_threshold", str(MAX_EPOCH), "earlier", str(good), "thief"] in unasked.rows()
    assert fleet.value("vad_threshold") == 0.01, "it asked, and did it all the same"

    done = fleet.cli("keys", "compromise", "thief", "--good-until", f"stt-worker={good}", "--yes", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("keys compromise", document)
    assert {one["key"]: one["fate"] for one in document["values"]} == {
        "vad_threshold": "earlier",
        "silence_s": "earlier",
        "suppress_echo": "gone",
        "api_key": "stands",
    }
    assert (document["gen"], document["endorsed"], document["signed_anew"]) == (1, 1, 3)
    wanted = {"vad_threshold": 0.7, "silence_s": 2.0, "suppress_echo": True}
    for key, one in wanted.items():
        eventually(lambda key=key, one=one: fleet.value(key) == one, what=key)  # type: ignore[misc]

    # Nothing of the thief's is left on the broker, so that whoever comes later needs no endorsement.
    stolen = SigningKey.from_text(thief.read_text()).kid
    assert stolen not in {kid_at(fleet, key) for key in (*wanted, "api_key")}
    revealed = fleet.cli("get", "stt-worker", "api_key", "--reveal", "api_key")
    assert revealed.out.strip() == "canary-in-a-mine-0451"

    assert pushed(fleet, "vad_threshold=0.6") < MAX_EPOCH
    assert fleet.value("vad_threshold") == 0.6
    late = fleet.cli("push", "stt-worker", "vad_threshold=0.02", TARS_SETTINGS_WRITER_KEY=str(thief))
    assert late.code == 1
    fleet.employ("stt-worker", "hall")
    fleet.awaited()
    assert dict(fleet.workers[1].look()["values"])["vad_threshold"] == 0.6


def test_the_only_writers_key_can_be_voided_and_its_good_values_stand(fleet: Plant) -> None:
    good = pushed(fleet, "vad_threshold=0.7")
    own = Path(fleet.made["files"]["writer_key"])
    name = fleet.cli("keys", "list", "--json").document()["writers"][0]["name"]
    poison(fleet, own, vad_threshold=0.01)
    done = fleet.cli("keys", "compromise", name, "--good-until", str(good), "--yes", "--json")
    assert done.code == 0, done.err
    assert done.document()["signed_anew"] == 0
    eventually(lambda: fleet.value("vad_threshold") == 0.7, what="the good value again")
    eventually(lambda: b"9007199254740991" not in fleet.broker.retained(f"{TOPIC}/vad_threshold").popitem()[1])
    key = granted(fleet, "ops-2")
    pushed(fleet, "vad_threshold=0.8", TARS_SETTINGS_WRITER_KEY=str(key))
    assert fleet.value("vad_threshold") == 0.8
    again = fleet.cli("keys", "compromise", name, "--yes")
    assert again.code == 1


class Stt(Settings, service="stt-worker"):
    vad_threshold: float = 0.5
    silence_s: float = 1.0


class Crowd:
    """Twenty workers in this process: seven behind a network of their own, six behind another."""

    def __init__(self, fleet: Plant, stack: ExitStack) -> None:
        self.spared, self.poisoned = (stack.enter_context(Proxy(fleet.broker.port)) for _ in range(2))
        urls = [self.spared.url] * 7 + [self.poisoned.url] * 6 + [fleet.broker.url] * 7
        self.workers = [
            stack.enter_context(
                tars_settings.Fleet(
                    broker=url,
                    fleet=fleet.made["fleet"],
                    state_dir=fleet.cli.home / f"crowd-{number}",
                    instance=f"crowd-{number}",
                    repair_delay_s=0.2,
                )
            ).join(Stt)
            for number, url in enumerate(urls)
        ]
        for worker in self.workers:
            assert worker.wait_until_ready(DEADLINE_S)

    def until(self, part: slice, **wanted: float) -> None:
        for worker in self.workers[part]:
            eventually(lambda one=worker: one.current.model_dump().items() >= wanted.items(), what=f"{wanted}")  # type: ignore[misc]


SPARED, POISONED, CONNECTED, ALL = slice(7), slice(7, 13), slice(13, 20), slice(20)


def test_twenty_workers_of_which_two_parts_are_cut_off_are_taken_back(tmp_path: Path) -> None:
    home = tmp_path / "plant"
    home.mkdir()
    with Mosquitto(home / "mosquitto") as broker, ExitStack() as stack:
        fleet = found_plant(home, broker)
        thief = granted(fleet, "thief")
        crowd = Crowd(fleet, stack)
        pushed(fleet, "silence_s=2")
        good = pushed(fleet, "vad_threshold=0.7", TARS_SETTINGS_WRITER_KEY=str(thief))
        crowd.until(ALL, vad_threshold=0.7, silence_s=2.0)

        crowd.spared.cut()
        eventually(lambda: crowd.spared.refused, what="the first part meets the cut")
        signed_poison(fleet, thief, vad_threshold=0.01, silence_s=9.0)
        crowd.until(slice(7, 20), vad_threshold=0.01, silence_s=9.0)
        crowd.poisoned.cut()
        eventually(lambda: crowd.poisoned.refused, what="the second part meets the cut")

        done = fleet.cli("keys", "compromise", "thief", "--good-until", f"stt-worker={good}", "--yes", "--json")
        assert done.code == 0, done.err
        crowd.until(CONNECTED, vad_threshold=0.7, silence_s=2.0)
        crowd.until(SPARED, vad_threshold=0.7, silence_s=2.0)
        assert {one.current.vad_threshold for one in crowd.workers[POISONED]} == {0.01}, "they do not know it yet"

        crowd.spared.heal()
        crowd.poisoned.heal()
        crowd.until(ALL, vad_threshold=0.7, silence_s=2.0)
        signed_poison(fleet, thief, vad_threshold=0.02)
        assert pushed(fleet, "silence_s=3") < MAX_EPOCH
        crowd.until(ALL, vad_threshold=0.7, silence_s=3.0)


@pytest.mark.parametrize("word", ["x", "stt-worker=", "=3", "-1", "9007199254740992"])
def test_an_epoch_that_is_none_is_refused_before_anything_is_done(plant: Plant, word: str) -> None:
    name = plant.cli("keys", "list", "--json").document()["writers"][0]["name"]
    done = plant.cli("keys", "compromise", name, f"--good-until={word}", "--yes")
    assert done.code == 2, done.err
