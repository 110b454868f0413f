"""history, rollback, conflicts and diff, typed at a fleet with a worker that remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tars_settings.trust.keys import SigningKey
from tars_settings.writer import Receipt, Writer
from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Done, Plant
from tests.fleets import delta_payload, key_topic, set_

SECRET = "sk-robot-0451"
MASK = "**********"


@pytest.fixture(scope="module", autouse=True)
def past(plant: Plant) -> None:
    """A worker, and six changes of its service; of another service four changes that no worker saw."""
    plant.employ("stt-worker", "pi-3")
    plant.awaited()
    with writer(plant) as ops:
        for scope, values, more in (
            ("stt-worker", {"vad_threshold": 0.1}, {"reason": "first"}),
            ("stt-worker", {"vad_threshold": 0.2, "silence_s": 2}, {}),
            ("stt-worker", {"vad_threshold": 0.3}, {}),
            ("stt-worker", {"vad_threshold": 0.4}, {}),
            ("stt-worker", {"vad_threshold": 0.5, "api_key": SECRET}, {"by": "ann"}),
            ("stt-worker@pi-3", {"vad_threshold": 0.9}, {}),
            *(("tts-worker", {"volume_percent": n}, {}) for n in (10, 20, 30, 40, 50)),
            ("tts-worker", {"api_key": "other"}, {}),
            *((scope, {"a": 1, "s_key": "same"}, {}) for scope in ("one", "two")),
            ("three", {"a": 1}, {}),
        ):
            secret = [key for key in values if key.endswith("_key")]
            plain = [key for key in values if key not in secret]
            pushed(ops.push(scope, values, secret=secret, plain=plain, **more))
        pushed(ops.unset("stt-worker", ["silence_s"]))


def writer(plant: Plant) -> Writer:
    """Return a writer of this host, to be entered: it pushes as the command does, in a tenth of the time."""
    prefix = "TARS_SETTINGS_"
    given = {name.removeprefix(prefix).lower(): value for name, value in plant.made["environment"].items()}
    return Writer(**{"broker": plant.broker.url, **given})


def pushed(receipt: Receipt) -> None:
    assert receipt.wait(10, "retained").stage == "retained"


def of_another_host(plant: Plant, *words: str, home: Path) -> Done:
    """Run a command with the writer's key, on a host that remembers nothing."""
    files = plant.made["files"]
    home.mkdir(mode=0o700)
    return plant.cli(*words, TARS_SETTINGS_STATE_DIR=str(home), TARS_SETTINGS_WRITER_KEY=files["writer_key"])


def test_history_tells_who_what_when_and_why_newest_first(plant: Plant) -> None:
    done = plant.cli("history", "stt-worker")
    assert done.code == 0, done.err
    rows = done.rows()[-6:]
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    assert rows[0][3] == "silence_s unset"
    assert rows[1][3] == f"vad_threshold=0.5; api_key={MASK}"
    assert (rows[-1][3], rows[-1][4]) == ("vad_threshold=0.1", "first")
    assert [row[5] for row in rows[:2]] == ["current", "current"]
    assert {row[5] for row in rows[2:]} == {"superseded"}
    assert SECRET not in done.out + done.err


def test_history_of_one_key_is_cut_and_says_so(plant: Plant) -> None:
    done = plant.cli("history", "stt-worker", "silence_s", "--json")
    document = done.document()
    assert_fits("history", document)
    entries = [one for one in document["entries"] if one["epoch"] <= 6]
    assert [one["epoch"] for one in entries] == [6, 2]
    assert "stt-worker@pi-3" in entries[0]["seen"]
    assert document["answered"] == ["stt-worker@pi-3"]
    cut = plant.cli("history", "stt-worker", "--limit", "1", "--since", "3", "--json").document()
    assert (len(cut["entries"]), cut["more"]) == (1, True)
    assert all(one["epoch"] > 3 for one in cut["entries"])


def test_another_host_hears_it_from_the_worker(plant: Plant, tmp_path: Path) -> None:
    alone = of_another_host(plant, "history", "stt-worker", "--peers", "0", "--json", home=tmp_path / "a").document()
    asked = of_another_host(plant, "history", "stt-worker", "--json", home=tmp_path / "b").document()
    assert {1, 3, 4}.isdisjoint(one["epoch"] for one in alone["entries"]), "the broker does not remember"
    assert {1, 3, 4} <= {one["epoch"] for one in asked["entries"]}
    assert all(one["seen"] == ["stt-worker@pi-3"] for one in asked["entries"] if one["epoch"] in (1, 3, 4))


def test_history_offline_is_what_this_host_remembers(plant: Plant) -> None:
    offline = plant.cli("history", "stt-worker", "--offline")
    assert offline.code == 0, offline.err
    assert [row[0] for row in offline.rows()[-6:]] == ["6", "5", "4", "3", "2", "1"]


def test_nothing_remembered_is_a_negative_answer_and_no_service_a_usage_error(plant: Plant) -> None:
    done = plant.cli("history", "nobody")
    assert (done.code, done.out) == (1, "")
    done = plant.cli("history")
    assert done.code == 2
    assert "--audit" in done.err


def test_what_was_revealed_is_in_the_audit_trail(plant: Plant) -> None:
    shown = plant.cli("history", "stt-worker", "api_key", "--reveal", "api_key")
    assert SECRET in shown.out
    assert "audit trail" in shown.err
    document = plant.cli("history", "--audit", "--json").document()
    assert_fits("history", document)
    revealed = [one for one in document["entries"] if one["event"] == "revealed"]
    assert revealed[0]["where"] == "stt-worker api_key"
    narrowed = plant.cli("history", "stt-worker", "api_key", "--audit")
    assert {row[1] for row in narrowed.rows()} == {"revealed"}
    assert SECRET not in narrowed.out + json.dumps(document)


def test_a_dry_run_shows_what_a_rollback_would_do_and_does_nothing(plant: Plant) -> None:
    before = plant.cli("list", "stt-worker").out
    done = plant.cli("rollback", "stt-worker", "--to-epoch", "2", "--dry-run", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("rollback", document)
    changes = {one["key"]: (one["now"]["value"], one["then"]["value"]) for one in document["changes"]}
    assert changes == {"vad_threshold": (0.5, 0.2), "silence_s": (None, 2), "api_key": (MASK, None)}
    assert document["pushes"] == []
    assert plant.cli("list", "stt-worker").out == before


def test_a_rollback_asks_and_a_pipe_can_not_answer(plant: Plant) -> None:
    done = plant.cli("rollback", "stt-worker", "--to-epoch", "2")
    assert done.code == 2
    assert "--yes" in done.err


def test_a_rollback_and_its_own_rollback(plant: Plant) -> None:
    """On the instance's scope, so that other tests find the service's as it was."""
    plant.cli("push", "stt-worker@pi-3", f"api_key={SECRET}", "silence_s=3")
    done = plant.cli("rollback", "stt-worker@pi-3", "--to-epoch", "1", "--yes", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("rollback", document)
    assert [(one["stage"], one["applied"]) for one in document["pushes"]] == [("retained", 1)]
    assert plant.cli("get", "stt-worker@pi-3", "silence_s").code == 1
    epoch = str(document["pushes"][0]["epoch"])
    back = plant.cli("rollback", "stt-worker@pi-3", "--push", epoch, "--yes")
    assert back.code == 0, back.err
    again = plant.cli("get", "stt-worker@pi-3", "api_key", "--reveal", "api_key")
    assert again.out.strip() == SECRET, "it was never decrypted, and can be read where it was before"
    wire = b"".join(plant.broker.retained("#").values())
    assert SECRET.encode() not in wire
    newest = plant.cli("history", "stt-worker@pi-3", "--limit", "1", "--json").document()["entries"][0]
    assert newest["reason"] == f"rollback of epoch {epoch}"


def test_a_history_that_does_not_reach_back_is_refused_by_key(plant: Plant, tmp_path: Path) -> None:
    done = of_another_host(plant, "rollback", "tts-worker", "--to-epoch", "1", "--yes", home=tmp_path / "a")
    assert done.code == 1
    assert "volume_percent: delta " in done.err
    assert "does not reach back" in done.err
    assert plant.cli("get", "tts-worker", "volume_percent").out.strip() == "50"
    here = plant.cli("rollback", "tts-worker", "--to-epoch", "1", "--dry-run")
    assert ["volume_percent", "50", "10"] in here.rows()


def test_a_secret_under_a_lost_key_does_not_come_back(plant: Plant) -> None:
    plant.cli("unset", "tts-worker", "api_key")
    done = plant.cli(
        "rollback", "tts-worker", "--to-epoch", "6", "--yes", TARS_SETTINGS_SECRET_KEYS="k9:" + "A" * 43 + "="
    )
    assert done.code == 1, done.err
    assert "api_key (k1)" in done.err


def test_an_epoch_that_was_never_is_a_usage_error(plant: Plant) -> None:
    assert plant.cli("rollback", "stt-worker", "--to-epoch", "999").code == 2
    assert plant.cli("rollback", "stt-worker").code == 2
    assert plant.cli("rollback", "stt-worker", "--push", "999", "--yes").code == 1


def test_pushes_that_crossed_are_told_with_the_loser(plant: Plant) -> None:
    assert plant.cli("conflicts", "tts-worker").code == 0
    signer = SigningKey.from_text(Path(plant.made["files"]["writer_key"]).read_text())
    root = SigningKey.from_text(Path(plant.made["files"]["root_key"]).read_text())
    scope, topic = "stt-worker@pi-3", key_topic("backend", "stt-worker@pi-3")
    for epoch, value in ((20, "ws"), (21, "openai")):
        payload = delta_payload(signer, epoch, set_("backend", value), scope=scope, fleet=root.kid, gen=0)
        plant.broker.publish(topic, payload)
        eventually(lambda payload=payload: plant.broker.retained(topic) == {topic: payload})  # type: ignore[misc]
    done = plant.cli("conflicts", scope, "--json")
    assert done.code == 1, done.err
    document = done.document()
    assert_fits("conflicts", document)
    (clash,) = document["conflicts"]
    assert (clash["winner"]["value"], clash["loser"]["value"]) == ("openai", "ws")
    assert "stt-worker@pi-3" in clash["loser"]["seen"], "the broker holds the winner alone"
    rows = plant.cli("conflicts", scope).rows()
    assert [row[2:4] for row in rows] == [["openai", "won"], ["ws", "lost"]]


def test_two_epochs_differ_by_what_was_pushed_between(plant: Plant) -> None:
    done = plant.cli("diff", "stt-worker", "1", "5")
    assert done.code == 1
    assert done.rows() == [
        ["stt-worker", "api_key", "(not set)", MASK],
        ["stt-worker", "silence_s", "(not set)", "2"],
        ["stt-worker", "vad_threshold", "0.1", "0.5"],
    ]
    assert plant.cli("diff", "stt-worker", "5", "5").code == 0


def test_a_scope_then_and_now(plant: Plant) -> None:
    document = plant.cli("diff", "stt-worker", "5", "--json").document()
    assert_fits("diff", document)
    assert [(one["key"], one["left"]["value"], one["right"]["set"]) for one in document["differences"]] == [
        ("silence_s", 2, False)
    ]


def test_what_nobody_remembers_is_said_to_be_unknown(plant: Plant, tmp_path: Path) -> None:
    done = of_another_host(plant, "diff", "tts-worker", "2", "--json", home=tmp_path / "a")
    assert done.code == 1, done.err
    volume = next(one for one in done.document()["differences"] if one["key"] == "volume_percent")
    assert (volume["left"]["known"], volume["right"]["known"], volume["right"]["value"]) == (False, True, 50)


def test_two_scopes_are_compared_by_key_and_secrets_by_what_they_hold(plant: Plant) -> None:
    assert plant.cli("diff", "one", "two").code == 0
    with writer(plant) as ops:
        pushed(ops.push("two", {"a": 2}))
    assert plant.cli("diff", "one", "two").rows() == [["a", "1", "2"]]


def test_replica_and_broker_differ_where_the_broker_forgot(plant: Plant) -> None:
    assert plant.cli("diff", "three", "--replica").code == 0
    for topic in plant.broker.retained("system/config/three/#"):
        plant.broker.publish(topic, b"")
    done = plant.cli("diff", "three", "--replica")
    assert (done.code, done.rows()) == (1, [["three", "a", "1", "(not set)"]])


def test_a_file_is_compared_by_the_keys_that_it_names(plant: Plant) -> None:
    env, tree = plant.cli.home / "worker.env", plant.cli.home / "worker.json"
    env.write_text(f"STT_VAD_THRESHOLD=0.5\nSTT_API_KEY={SECRET}\nNOTHING=1\n")
    same = plant.cli("diff", "stt-worker", "--file", str(env))
    env.unlink()  # no file keeps a secret that was pushed (tests.canary)
    assert (same.code, same.out) == (0, ""), same.err
    assert "left out: NOTHING" in same.err
    tree.write_text('{"vad_threshold": 0.7, "partial_interval_s": 2, "api_key": "another"}')
    done = plant.cli("diff", "stt-worker", "--file", str(tree))
    assert done.code == 1
    assert done.rows() == [
        ["stt-worker", "api_key", MASK, MASK],
        ["stt-worker", "partial_interval_s", "(not set)", "2"],
        ["stt-worker", "vad_threshold", "0.5", "0.7"],
    ]
    assert "another" not in done.out + done.err
    document = plant.cli("diff", "stt-worker", "--file", str(tree), "--json").document()
    assert_fits("diff", document)
    assert "another" not in json.dumps(document)
    assert plant.cli("diff", "--file", str(tree)).code == 2


def test_a_comparison_of_nothing_is_a_usage_error(plant: Plant) -> None:
    for words in ((), ("stt-worker", "1", "x!"), ("stt-worker", "999")):
        assert plant.cli("diff", *words).code == 2
