"""Changes that undo themselves, typed by an operator against live workers and a real broker."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import Any

import pytest

from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Done, Plant

PLENTY = ("--timeout", "15")


@pytest.fixture(scope="module", autouse=True)
def workers(plant: Plant) -> None:
    """Three workers of one service, and a value that all tests go back to."""
    for instance in ("pi-1", "pi-2", "pi-3"):
        plant.employ("stt-worker", instance)
    plant.awaited()
    fine(plant.cli("push", "stt-worker", "silence_s=2"))


def values(plant: Plant, key: str) -> dict[str, Any]:
    return {one.instance: one.look()["values"][key] for one in plant.workers if one.instance.startswith("pi-")}


def everywhere(plant: Plant, key: str, value: Any) -> None:
    eventually(lambda: set(values(plant, key).values()) == {value}, what=f"{key} is {value} everywhere")


def on_one(plant: Plant, instance: str, key: str, value: Any) -> None:
    eventually(lambda: values(plant, key)[instance] == value, what=f"{key} is {value} on {instance}")


def fine(done: Done) -> Any:
    assert done.code == 0, done.err
    return done.document() if done.out.startswith("{") else done


def canary(plant: Plant, *words: str) -> Done:
    return plant.cli("push", "stt-worker", *words, *PLENTY)


# --- the whole scope --------------------------------------------------------------------------------------------------


def test_a_push_on_trial_undoes_itself_and_says_so_all_the_while(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "silence_s=3", "--revert-after", "2s", *PLENTY)
    fine(done)
    assert "on trial for 2s" in done.err
    assert "tars-settings confirm stt-worker" in done.err
    everywhere(plant, "silence_s", 2.0)
    listed = fine(plant.cli("list", "stt-worker", "--json"))
    assert_fits("list", listed)
    (shown,) = [one for one in listed["values"] if one["key"] == "silence_s"]
    assert (shown["value"], shown["trial"]["undone"], shown["trial"]["reverts_in_s"]) == (2, True, 0)
    assert "2 (undone after a trial of 2s)" in plant.cli("list", "stt-worker").out
    status = fine(plant.cli("status", "stt-worker", "--json"))
    assert_fits("status", status)
    eventually(
        lambda: all(one["trials"][-1]["left_s"] == 0 for one in fine(plant.cli("status", "--json"))["workers"]),
        what="every worker reports that it went back",
    )
    assert "is undone after its trial" in plant.cli("status").out


def test_what_is_on_trial_is_shown_as_such_and_confirmed(plant: Plant) -> None:
    document = fine(plant.cli("push", "stt-worker", "silence_dbfs=-50", "--revert-after", "2h", "--json", *PLENTY))
    assert_fits("push", document)
    assert (document["trial_s"], document["applied"]) == (7200, 3)
    get = plant.cli("get", "stt-worker", "silence_dbfs")
    assert get.out == "-50\n", get.err
    assert re.search("is on trial, reverts in (2h|1h59m)", get.err)
    assert_fits("get", fine(plant.cli("get", "stt-worker", "silence_dbfs", "--json")))
    assert re.search("is on trial, reverts in (2h|1h59m)", plant.cli("status").out)
    confirmed = fine(plant.cli("confirm", "stt-worker", "--json", "--push", str(document["epoch"]), *PLENTY))
    assert_fits("confirm", confirmed)
    assert [one["applied"] for one in confirmed["pushes"]] == [3]
    assert fine(plant.cli("get", "stt-worker", "silence_dbfs", "--json"))["from"][-1]["trial"] is None
    again = plant.cli("confirm", "stt-worker", "--push", str(document["epoch"]))
    assert again.code == 1
    assert "nothing is on trial" in again.err


def test_an_unset_can_be_tried_and_a_revert_ends_it(plant: Plant) -> None:
    fine(plant.cli("push", "stt-worker@pi-2", "partial_interval_s=0.7"))
    fine(plant.cli("unset", "stt-worker@pi-2", "partial_interval_s", "--revert-after", "1h", *PLENTY))
    assert values(plant, "partial_interval_s")["pi-2"] == 0.5
    reverted = fine(plant.cli("revert", "stt-worker@pi-2", "--json", *PLENTY))
    assert_fits("revert", reverted)
    assert values(plant, "partial_interval_s")["pi-2"] == 0.7
    assert plant.cli("revert", "stt-worker@pi-2").code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--revert-after", "soon"),
        ("--revert-after", "8d"),
        ("--bake", "5m"),
        ("--promote",),
        ("--canary", "0%"),
        ("--canary", "pi-1", "--bake", "10m", "--revert-after", "5m"),
        ("--canary", "pi-1", "--no-wait"),
    ],
)
def test_what_can_be_no_trial_is_a_wrong_call(plant: Plant, words: tuple[str, ...]) -> None:
    assert canary(plant, "silence_s=4", *words).code == 2


# --- canaries ---------------------------------------------------------------------------------------------------------


def test_a_healthy_canary_is_promoted_and_leaves_its_instance_as_it_was(plant: Plant) -> None:
    document = fine(canary(plant, "whisper_model=tiny", "--canary", "pi-1", "--bake", "1s", "--promote", "--json"))
    assert_fits("push --canary", document)
    assert (document["outcome"], [one["health"] for one in document["workers"]]) == ("promoted", ["good"])
    assert [one["scope"] for one in document["promotion"]["pushes"]] == ["stt-worker", "stt-worker@pi-1"]
    everywhere(plant, "whisper_model", "tiny")
    fine(plant.cli("push", "stt-worker", "whisper_model=base"))
    everywhere(plant, "whisper_model", "base")


def test_a_share_is_tried_on_at_least_one_and_promoted_later_from_what_the_fleet_holds(plant: Plant) -> None:
    done = canary(plant, "api_key=sk-canary-0451", "--canary", "1%", "--bake", "1s", "--ask")
    fine(done)
    assert "on trial on 1 of 3" in done.err
    assert "tars-settings promote stt-worker" in done.err
    trying = [name for name, value in values(plant, "api_key").items() if value is not None]
    assert len(trying) == 1
    assert "sk-canary-0451" not in done.out + done.err
    hint = plant.cli("confirm", "stt-worker")
    assert hint.code == 1
    assert "tars-settings promote stt-worker" in hint.err
    document = fine(plant.cli("promote", "stt-worker", "--json", *PLENTY))
    assert_fits("promote", document)
    assert all(value is not None for value in values(plant, "api_key").values())
    assert b"sk-canary" not in b"".join(plant.broker.retained("#").values())
    assert plant.cli("promote", "stt-worker").code == 1


def test_a_canary_that_refuses_is_taken_back_at_once(plant: Plant) -> None:
    (plant.cli.home / "lax.py").write_text(
        "from tars_settings import Settings, SettingsConfigDict\n"
        "class Stt(Settings):\n"
        "    model_config = SettingsConfigDict(service='stt-worker')\n"
        "    vad_threshold: float = 0.5\n"
    )
    words = ("vad_threshold=7", "--model", "lax:Stt", "--canary", "pi-1, pi-2", "--bake", "5m", "--promote")
    done = canary(plant, *words, "--json")
    assert done.code == 1
    document = done.document()
    assert_fits("push --canary", document)
    assert (document["outcome"], document["promotion"]) == ("reverted", None)
    assert "less than or equal to 1" in document["why"]
    status = fine(plant.cli("status", "stt-worker", "--json"))
    assert not any(one["refused"] for one in status["workers"])
    assert plant.cli("get", "stt-worker@pi-1", "vad_threshold").code == 1


def test_a_canary_that_dies_is_taken_back(plant: Plant) -> None:
    victim = plant.employ("stt-worker", "spare")
    plant.awaited(victim)
    words = ("silence_s=9", "--canary", "spare", "--bake", "5m", "--promote", "--json", *PLENTY)
    with plant.cli.start("push", "stt-worker", *words) as operator:
        eventually(lambda: victim.look()["values"]["silence_s"] == 9, what="it is tried")
        victim.process.kill()
        out, err = operator.communicate(timeout=60)
    assert operator.returncode == 1, err
    assert '"outcome": "reverted"' in out
    assert "went offline" in out
    assert plant.cli("get", "stt-worker@spare", "silence_s", "--json").document()["value"] == 2


def test_a_worker_goes_back_by_itself_when_the_operator_is_gone(plant: Plant) -> None:
    words = ("silence_s=8", "--canary", "pi-3", "--bake", "4s", "--revert-after", "5s", "--promote")
    with plant.cli.start("push", "stt-worker", *words, *PLENTY) as operator:
        on_one(plant, "pi-3", "silence_s", 8.0)
        operator.kill()
        operator.wait(20)
    on_one(plant, "pi-3", "silence_s", 2.0)
    shown = fine(plant.cli("get", "stt-worker@pi-3", "silence_s", "--json"))
    assert shown["value"] == 2
    assert shown["from"][-1]["scope"] == "stt-worker@pi-3"
    assert shown["from"][-1]["trial"]["undone"]


def test_ctrl_c_says_what_is_on_trial_and_what_will_happen_and_revert_ends_it(plant: Plant) -> None:
    words = ("silence_s=7", "--canary", "pi-2", "--bake", "1h", "--promote")
    with plant.cli.start("push", "stt-worker", *words, *PLENTY) as operator:
        on_one(plant, "pi-2", "silence_s", 7.0)
        _read_until(operator, "good")
        operator.send_signal(signal.SIGINT)
        _, err = operator.communicate(timeout=60)
    assert operator.returncode == 130
    assert re.search("stt-worker@pi-2 will go back by itself in (2h|1h59m)", err)
    assert "tars-settings revert stt-worker" in err
    fine(plant.cli("revert", "stt-worker", *PLENTY))
    everywhere(plant, "silence_s", 2.0)


def _read_until(operator: subprocess.Popen[str], word: str) -> None:
    assert operator.stderr is not None
    for line in operator.stderr:
        if word in line:
            return


def test_a_worker_that_is_not_there_is_no_canary(plant: Plant) -> None:
    done = canary(plant, "silence_s=7", "--canary", "pi-9")
    assert done.code == 1
    assert "stt-worker@pi-9 is there and ready; there are: pi-1, pi-2, pi-3" in done.err
    assert plant.cli("push", "stt-worker@pi-1", "silence_s=7", "--canary", "pi-1").code == 2
