from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tars_settings.cli.demo.workers import SttSettings
from tars_settings.cli.push import published
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence
from tars_settings.schema import schema_hash, schema_of
from tests.brokers import Mosquitto, eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Cli, Plant, open_plant

SCHEMA = schema_of(SttSettings)
TOPIC = "system/config/stt-worker"


@pytest.fixture(scope="module", autouse=True)
def workers(plant: Plant) -> None:
    """Two workers that hear; one of them has a value of its own."""
    plant.employ("stt-worker", "kitchen")
    plant.employ("stt-worker", "hall", STT_WHISPER_MODEL="tiny.en")
    plant.awaited()


def _worker(plant: Plant, instance: str) -> dict[str, object]:
    return dict(next(one for one in plant.workers if one.instance == instance).look()["values"])


def _signed(plant: Plant) -> dict[str, bytes]:
    """Return what the broker retains of the service, without the schemas, which workers publish when they like."""
    return {
        topic: payload for topic, payload in plant.broker.retained(f"{TOPIC}/#").items() if "/_schema/" not in topic
    }


def test_a_push_is_typed_by_the_published_schema_and_applied(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "vad_threshold=0.6", "suppress_echo=false", "--reason", "noisy kitchen")
    assert done.code == 0, done.err
    assert [(row[0], row[1]) for row in done.rows()] == [
        ("stt-worker@hall", "applied"),
        ("stt-worker@kitchen", "applied"),
    ]
    assert "retained, applied by 2 of 2 asked" in done.err
    for instance in ("kitchen", "hall"):
        values = _worker(plant, instance)
        assert (values["vad_threshold"], values["suppress_echo"]) == (0.6, False)


def test_a_string_that_looks_like_a_number_stays_one_where_the_schema_says_so(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "whisper_model=2")
    assert done.code == 0, done.err
    assert plant.cli("get", "stt-worker", "whisper_model", "--json").document()["value"] == "2"
    assert _worker(plant, "kitchen")["whisper_model"] == "2"


def test_the_document_says_who_applied_and_who_is_shadowed(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "whisper_model=base.en", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("push", document)
    assert (document["stage"], document["asked"], document["applied"]) == ("retained", 2, 2)
    shadowed = {worker["worker"]: list(worker["shadowed"]) for worker in document["workers"]}
    assert shadowed == {"stt-worker@hall": ["whisper_model"], "stt-worker@kitchen": []}
    assert "STT_WHISPER_MODEL" in str(document["workers"])
    assert all(worker["after_ms"] >= 0 for worker in document["workers"])


def test_one_instance_can_be_addressed(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker@kitchen", "silence_dbfs=-40", "--json")
    assert done.code == 0, done.err
    assert [worker["worker"] for worker in done.document()["workers"]] == ["stt-worker@kitchen"]
    assert _worker(plant, "kitchen")["silence_dbfs"] == -40
    assert _worker(plant, "hall")["silence_dbfs"] == -35


def test_every_service_can_be_addressed_and_is_typed_by_their_schemas(plant: Plant) -> None:
    done = plant.cli("push", "_all", "log_level=DEBUG", "--json")
    assert done.code == 0, done.err
    assert done.document()["scope"] == "_all"
    assert _worker(plant, "hall")["log_level"] == "DEBUG"


def test_all_values_that_do_not_fit_are_named_together_and_nothing_is_signed(plant: Plant) -> None:
    before = _signed(plant)
    done = plant.cli("push", "stt-worker", "vad_threshold=7", "silence_s=long", "backend=whisper", "--json")
    assert done.code == 1
    message = done.document()["error"]["message"]
    assert_fits("error", done.document())
    assert "vad_threshold" in message
    assert "silence_s" in message
    assert "backend" not in message
    assert _signed(plant) == before


def test_a_value_that_the_workers_refuse_is_reported_with_pydantics_message(plant: Plant) -> None:
    (plant.cli.home / "older.py").write_text(
        "from tars_settings import Settings, SettingsConfigDict\n"
        "class Stt(Settings):\n"
        "    model_config = SettingsConfigDict(service='stt-worker')\n"
        "    vad_threshold: float = 0.5\n"
    )
    held = _worker(plant, "kitchen")["vad_threshold"]
    done = plant.cli("push", "stt-worker", "vad_threshold=7", "--model", "older:Stt", "--json")
    assert done.code == 1
    document = done.document()
    assert_fits("push", document)
    assert document["stage"] == "retained"
    assert {worker["fate"] for worker in document["workers"]} == {"refused"}
    assert "less than or equal to 1" in document["workers"][0]["message"]
    assert _worker(plant, "kitchen")["vad_threshold"] == held
    assert plant.cli("push", "stt-worker", "vad_threshold=0.5").code == 0


def test_a_model_of_another_service_is_not_pushed_by(plant: Plant) -> None:
    (plant.cli.home / "other.py").write_text(
        "from tars_settings import Settings\nclass Tts(Settings, service='tts-worker'):\n    volume: int = 1\n"
    )
    done = plant.cli("push", "stt-worker", "volume=2", "--model", "other:Tts")
    assert done.code == 2
    assert "tts-worker" in done.err


def test_a_secret_leaves_encrypted_and_appears_nowhere(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "api_key=canary-in-a-mine-robot-0451", "--json")
    assert done.code == 0, done.err
    everything = done.out + done.err + "".join(plant.cli(*words).out for words in (["list"], ["list", "--json"]))
    assert "canary-in-a-mine-robot-0451" not in everything
    retained = plant.broker.retained("#")
    assert f"{TOPIC}/api_key" in retained
    assert not any(b"canary-in-a-mine-robot-0451" in payload for payload in retained.values())
    for path in plant.cli.home.rglob("*"):
        assert not path.is_file() or b"canary-in-a-mine-robot-0451" not in path.read_bytes(), path


def test_a_secret_by_schema_stays_one_although_plain_is_said(plant: Plant) -> None:
    done = plant.cli("push", "_all", "api_key=sk-everywhere", "--plain")
    assert done.code == 0, done.err
    assert b"sk-everywhere" not in b"".join(plant.broker.retained("#").values())
    assert plant.cli("unset", "_all", "api_key").code == 0


def test_a_key_that_nobody_described_must_be_called_plain_or_secret(plant: Plant) -> None:
    refused = plant.cli("push", "stt-worker", "beam_size=5")
    assert refused.code == 1
    assert "--plain" in refused.err
    assert "--secret" in refused.err
    done = plant.cli("push", "stt-worker", "beam_size=5", "--plain")
    assert done.code == 0, done.err
    hidden = plant.cli("push", "stt-worker", "token=canary-in-a-mine-abc-0451", "--secret", "token")
    assert hidden.code == 0, hidden.err
    assert b"canary-in-a-mine-abc-0451" not in b"".join(plant.broker.retained("#").values())


def test_expect_epoch_refuses_when_someone_was_faster(plant: Plant) -> None:
    epoch = plant.cli("push", "stt-worker", "partial_interval_s=0.4", "--json").document()["epoch"]
    late = plant.cli("push", "stt-worker", "partial_interval_s=0.3", "--expect-epoch", str(epoch - 1))
    assert late.code == 1
    assert f"at epoch {epoch}" in late.err
    done = plant.cli("push", "stt-worker", "partial_interval_s=0.2", "--expect-epoch", str(epoch), "--json")
    assert done.document()["epoch"] == epoch + 1


def test_unset_lets_the_default_show_again(plant: Plant) -> None:
    assert plant.cli("push", "stt-worker", "silence_s=3").code == 0
    assert _worker(plant, "hall")["silence_s"] == 3
    done = plant.cli("unset", "stt-worker", "silence_s", "--json")
    assert done.code == 0, done.err
    assert_fits("unset", done.document())
    assert _worker(plant, "hall")["silence_s"] == 1.0
    assert plant.cli("get", "stt-worker", "silence_s").code == 1


def test_no_wait_does_not_speak_of_workers(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "partial_interval_s=0.6", "--no-wait", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("push", document)
    assert (document["stage"], document["workers"]) == ("retained", [])


@pytest.mark.parametrize("schema", [b"[]", b'{"properties":{"vad_threshold":{"allOf":5}}}'])
def test_what_is_no_schema_stops_no_push(plant: Plant, schema: bytes) -> None:
    topic = f"{TOPIC}/_schema/{schema_hash(schema)}"
    plant.broker.publish(topic, schema)
    done = plant.cli("push", "stt-worker", "vad_threshold=0.5")
    plant.broker.publish(topic, b"")
    assert done.code == 0, done.err


# --- what goes wrong on the way ------------------------------------------------------------------------------------


def test_without_a_broker_a_push_exits_with_3_and_says_where_it_looked(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "vad_threshold=0.6", "--broker", "mqtt://127.0.0.1:9")
    assert done.code == 3
    assert "127.0.0.1:9" in done.err


def test_the_password_of_a_broker_is_not_told(plant: Plant) -> None:
    done = plant.cli("push", "stt-worker", "vad_threshold=0.6", "--broker", "mqtt://me:s3same@127.0.0.1:9")
    assert done.code == 3
    assert "s3same" not in done.err


def test_a_stranger_may_not_push(plant: Plant, tmp_path: Path) -> None:
    stranger = plant.cli("init", "--dir", str(tmp_path / "other"), "--json").document()
    done = plant.cli(
        "push", "stt-worker", "vad_threshold=0.6", TARS_SETTINGS_WRITER_KEY=stranger["files"]["writer_key"]
    )
    assert done.code in (1, 3)
    assert "Traceback" not in done.err
    assert _worker(plant, "kitchen")["vad_threshold"] != 0.61


def test_a_writers_key_and_trust_document_are_enough_on_another_host(
    plant: Plant, tmp_path: Path, mosquitto: Mosquitto
) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    for name in ("writer_key", "trust"):
        source = Path(plant.made["files"][name])
        (tmp_path / "keys" / source.name).write_bytes(source.read_bytes())
        (tmp_path / "keys" / source.name).chmod(0o600)
    variables = {
        "TARS_SETTINGS_BROKER": mosquitto.url,
        "TARS_SETTINGS_STATE_DIR": str(tmp_path / "state"),
        "TARS_SETTINGS_WRITER_KEY": str(tmp_path / "keys" / "writer.key"),
    }
    # An empty broker: nobody else can tell it the trust document.
    done = plant.cli("push", "stt-worker", "vad_threshold=0.55", "--plain", **variables)
    assert done.code == 0, done.err
    assert mosquitto.retained("system/config/_trust")


def test_a_writers_key_in_the_state_directory_is_found(plant: Plant) -> None:
    cli = Cli(plant.cli.home, dict(plant.cli.environment))
    del cli.environment["TARS_SETTINGS_WRITER_KEY"]
    done = cli("push", "stt-worker", "partial_interval_s=0.7", "--no-wait")
    assert done.code == 0, done.err


def test_ctrl_c_while_waiting_says_what_was_done(plant: Plant) -> None:
    worker = plant.workers[0]
    worker.process.send_signal(signal.SIGSTOP)
    try:
        topic = f"{TOPIC}/common_words_extra"
        command = plant.cli.start("push", "stt-worker", 'common_words_extra=["tars"]', "--timeout", "60")
        eventually(lambda: topic in plant.broker.retained(f"{TOPIC}/#"), what="the push is at the broker")
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=30)
    finally:
        worker.process.send_signal(signal.SIGCONT)
    assert command.returncode == 130, err
    assert "is signed and on its way" in err
    assert out == ""


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Plant]:
    """A fleet of its own, without a worker."""
    with open_plant(tmp_path / "plant") as made:
        yield made


def test_a_push_without_any_worker_is_retained_and_waits_for_them(lonely: Plant) -> None:
    done = lonely.cli("push", "stt-worker", "vad_threshold=0.6", "--plain")
    assert done.code == 0, done.err
    assert "no worker was there to ask" in done.err
    worker = lonely.employ("stt-worker", "late")
    worker.wait_for(lambda one: one["event"] == "ready", "ready")
    assert worker.look()["values"]["vad_threshold"] == 0.6


class _Slow:
    """Stands in for a writer: its one live worker's schema appears with the third look, or a later one."""

    def __init__(self, after: int = 3) -> None:
        self.looks = 0
        self.after = after

    def presences(self, service: str | None) -> list[Presence]:
        gone = Presence(1, "stt-worker", "gone", "offline", schema="0" * 32)
        return [gone, Presence(1, "stt-worker", "new", "ready", schema=schema_hash(SCHEMA))]

    def schemas(self, service: str) -> list[bytes]:
        self.looks += 1
        return [SCHEMA] if self.looks >= self.after else []


def test_the_schema_of_a_live_worker_is_waited_for() -> None:
    slow: Any = _Slow()
    assert published(slow, Scope("stt-worker")) == [SCHEMA]
    assert slow.looks == 3


def test_a_schema_that_does_not_come_is_not_waited_for_in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop without a pause would hold up the thread that is to hear it."""
    monkeypatch.setattr("tars_settings.cli.push.SCHEMA_WITHIN_S", 0.2)
    slow: Any = _Slow(after=1_000_000)
    assert published(slow, Scope("stt-worker")) == []
    assert 1 < slow.looks < 40
