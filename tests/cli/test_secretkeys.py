"""Secret keys: made, put to use while workers watch, and dropped when nothing needs them."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tars_settings.cli.secretkeys import _work
from tars_settings.core.delta import Assignment, Ciphertext, Delta, Trial
from tars_settings.core.register import Register, Registers
from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Plant, open_plant
from tests.fleets import ALICE, SCOPE, delta, unset

API_KEY = "system/config/stt-worker/api_key"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A fleet with one secret, and a worker that reads the operator's file of secret keys."""
    with open_plant(tmp_path_factory.mktemp("secrets"), ("stt-worker", "kitchen")) as made:
        assert made.cli("push", "stt-worker", "api_key=canary-in-a-mine-0451", "vad_threshold=0.6").code == 0
        yield made


def keys_file(fleet: Plant) -> Path:
    return Path(fleet.made["files"]["secret_keys"])


def ids(fleet: Plant) -> list[str]:
    return list(fleet.cli("keys", "list", "--offline", "--json").document()["secret_keys"])


def ciphertext(fleet: Plant) -> dict[str, Any]:
    payload = json.loads(fleet.broker.retained(API_KEY)[API_KEY])
    found = next(one for one in payload["body"]["assign"] if one["key"] == "api_key")
    return dict(found["secret"])


def revealed(fleet: Plant) -> str:
    return fleet.cli("get", "stt-worker", "api_key", "--reveal", "api_key").out.strip()


def test_a_new_secret_key_is_added_readable_and_not_used_yet(fleet: Plant) -> None:
    before = keys_file(fleet).read_text()
    done = fleet.cli("keys", "new", "k2", "--secret", "--json")
    assert done.code == 0, done.err
    assert_fits("keys new", done.document())
    assert ids(fleet) == ["k1", "k2"]
    assert keys_file(fleet).read_text().startswith(before.strip())
    assert stat.S_IMODE(keys_file(fleet).stat().st_mode) == 0o600
    material = keys_file(fleet).read_text().splitlines()[-1].partition(":")[2]
    assert material not in done.out + done.err
    assert fleet.cli("push", "stt-worker", "api_key=canary-in-a-mine-0452").code == 0
    assert ciphertext(fleet)["id"] == "k1"
    again = fleet.cli("keys", "new", "k2", "--secret")
    assert again.code == 1
    assert ids(fleet) == ["k1", "k2"]


def test_a_key_in_use_is_not_dropped(fleet: Plant) -> None:
    done = fleet.cli("keys", "retire", "k1", "--secret", "--yes")
    assert done.code == 1
    assert "stt-worker api_key" in done.err
    assert "k1" in ids(fleet)


def test_a_rotation_reaches_a_running_worker_and_leaves_the_value(fleet: Plant) -> None:
    done = fleet.cli("keys", "rotate-secrets", "k2", "--json")
    assert done.code == 0, done.err
    assert_fits("keys rotate-secrets", done.document())
    assert done.document()["rotated"] == ["stt-worker api_key"]
    assert done.document()["refused"] == []
    assert (ciphertext(fleet)["id"], ids(fleet)) == ("k2", ["k2", "k1"])
    assert revealed(fleet) == "canary-in-a-mine-0452"
    worker = fleet.workers[0].look()
    assert worker["values"]["api_key"], "the worker lost its value"
    assert not [one for one in fleet.cli("status", "--json").document()["workers"] if one.get("refused")]
    again = fleet.cli("keys", "rotate-secrets", "k2", "--json").document()
    assert again["rotated"] == []


def test_a_push_after_the_rotation_uses_the_new_key(fleet: Plant) -> None:
    assert fleet.cli("push", "stt-worker", "api_key=canary-in-a-mine-0453").code == 0
    assert ciphertext(fleet)["id"] == "k2"


def test_the_cipher_can_be_chosen_by_name(fleet: Plant) -> None:
    assert fleet.cli("keys", "new", "stt-worker", "--secret").code == 0
    done = fleet.cli("keys", "rotate-secrets", "stt-worker", "--algorithm", "aes256gcm", "--json")
    assert done.code == 0, done.err
    assert {name: ciphertext(fleet)[name] for name in ("id", "alg")} == {"id": "stt-worker", "alg": "aes256gcm"}
    assert revealed(fleet) == "canary-in-a-mine-0453"
    assert fleet.cli("keys", "rotate-secrets", "stt-worker", "--algorithm", "rot13").code == 2
    assert fleet.cli("push", "stt-worker", "api_key=canary-in-a-mine-0453").code == 0
    assert ciphertext(fleet)["alg"] == "aes256gcm", "the next push keeps what was chosen"


def test_a_worker_without_the_key_keeps_its_value_and_is_named(fleet: Plant, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    old = tmp_path / "secret.keys"
    old.write_text(keys_file(fleet).read_text())
    old.chmod(0o600)
    fleet.employ("stt-worker", "hall", TARS_SETTINGS_SECRET_KEYS=str(old))
    fleet.awaited()
    before = fleet.workers[1].look()["values"]["api_key"]
    assert fleet.cli("keys", "new", "stt-worker-k2", "--secret").code == 0
    done = fleet.cli("keys", "rotate-secrets", "stt-worker-k2", "--json")
    assert done.code == 1
    assert done.document()["refused"] == ["stt-worker@hall"]
    assert "stt-worker-k2" in done.err
    assert fleet.workers[1].look()["values"]["api_key"] == before
    old.write_text(keys_file(fleet).read_text())
    assert fleet.cli("push", "stt-worker", "vad_threshold=0.65").code == 0

    def healed() -> bool:
        workers = fleet.cli("status", "--json").document()["workers"]
        return not any(one.get("refused") for one in workers)

    eventually(healed, what="the worker takes the key up without a restart")


def test_what_nothing_uses_any_more_can_be_dropped(fleet: Plant) -> None:
    unused = fleet.cli("keys", "retire", "k1", "--secret", "--yes", "--json")
    assert unused.code == 0, unused.err
    assert_fits("keys retire secret", unused.document())
    assert "k1" not in ids(fleet)
    assert revealed(fleet) == "canary-in-a-mine-0453"
    assert fleet.cli("keys", "retire", "k9", "--secret", "--yes").code == 3


def test_keys_in_the_variable_itself_are_not_changed_by_a_command(fleet: Plant) -> None:
    line = keys_file(fleet).read_text().splitlines()[-1]
    done = fleet.cli("keys", "new", "k7", "--secret", TARS_SETTINGS_SECRET_KEYS=line)
    assert done.code == 3
    assert "--file" in done.err
    assert line.partition(":")[2] not in done.err


class _Holding:
    """What a rotation asks of a writer: the winners of a scope."""

    def __init__(self, *deltas: Delta) -> None:
        self._registers = Registers()
        for one in deltas:
            self._registers.offer(one)

    def view(self, scope: str) -> dict[str, Register]:
        return self._registers.winners(scope)


def test_a_secret_on_trial_is_left_alone_whichever_of_its_values_needs_the_old_key() -> None:
    def under(key_id: str) -> Assignment:
        return Assignment("api_key", secret=Ciphertext("xchacha20poly1305", key_id, bytes(40)))

    settled, new = delta(ALICE, 1, under("old")), delta(ALICE, 1, under("new"))
    tried, gone = Trial(600, (under("old"),)), Trial(600, (unset("api_key"),))
    for one, work, left in (
        (settled, 1, 0),
        (new, 0, 0),
        (delta(ALICE, 2, under("new"), trial=tried), 0, 1),
        (delta(ALICE, 2, unset("api_key"), trial=tried), 0, 1),
        (delta(ALICE, 2, under("new"), trial=gone), 0, 0),
    ):
        found = _work(_Holding(one), SCOPE, "new")  # type: ignore[arg-type]
        assert (len(found[0]), len(found[1])) == (work, left)
