"""``doctor`` against real brokers and real files, and ``broker-config`` as it is printed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.names import ALL
from tests.brokers import Mosquitto, MosquittoClients, binary, eventually, free_port
from tests.cli.documents import assert_fits
from tests.cli.running import Cli, Done, Plant, found_plant

Findings = dict[str, dict[str, str]]
USERS = ("writer", "keeper", "stt-worker")


def findings(done: Done) -> Findings:
    """Return the findings by area and name; of several with one name the worst."""
    document = done.document()
    assert_fits("doctor", document)
    order = ("ok", "hint", "warning", "problem")
    ranked = sorted(document["findings"], key=lambda one: order.index(one["severity"]))
    assert document["worst"] == ranked[-1]["severity"]
    return {f"{one['area']}: {one['name']}": one for one in ranked}


def bad(found: Findings) -> set[str]:
    return {name for name, one in found.items() if one["severity"] in ("warning", "problem")}


class Printed(Mosquitto):
    """A mosquitto that runs on exactly what ``broker-config`` wrote."""

    def _config(self) -> list[str]:
        user = [line for line in super()._config() if line.startswith("user ")]
        return [*user, *(self.directory / "printed" / "mosquitto.conf").read_text().splitlines()]

    @property
    def url(self) -> str:
        return self.url_of("writer")

    @property
    def clients(self) -> MosquittoClients:
        user = ["-u", "writer", "-P", "pw-writer"]
        return MosquittoClients("127.0.0.1", self.port, user, markers="system/health/_marker/tests")

    def url_of(self, user: str) -> str:
        return f"mqtt://{user}:pw-{user}@127.0.0.1:{self.port}"


def printed(cli: Cli, directory: Path) -> Printed:
    broker = Printed(directory)
    files = directory / "printed"
    files.mkdir(parents=True)
    (files / "store").mkdir()
    words = ["broker-config", "mosquitto", "--service", "stt-worker", "--port", str(broker.port), "--write"]
    done = cli(*words, "--dir", str(files), "--store", str(files / "store"), "--json")
    assert done.code == 0, done.err
    assert_fits("broker-config", done.document())
    assert done.document()["files"]["acl"] == (files / "acl").read_text()
    (files / "passwd").touch(0o600)
    for user in USERS:
        command = [binary("mosquitto_passwd"), "-b", str(files / "passwd"), user, f"pw-{user}"]
        subprocess.run(command, check=True, capture_output=True)
    return broker


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, Printed]]:
    """A fleet whose broker runs on the printed configuration; its commands connect as the writer."""
    home = tmp_path_factory.mktemp("printed")
    with printed(Cli(home), home / "broker") as broker:
        plant = found_plant(home, broker)
        for words in (("vad_threshold=0.7", "--plain"), ("api_key=x", "--secret", "api_key")):
            done = plant.cli("push", "stt-worker", *words)
            assert done.code == 0, done.err
        yield plant, broker


# --- a broker as it should be -----------------------------------------------------------------------------------------


def test_the_printed_configuration_is_confirmed(fleet: tuple[Plant, Printed]) -> None:
    plant, broker = fleet
    before = broker.retained("#")
    done = plant.cli("doctor", "--json")
    found = findings(done)
    assert done.code == 0, bad(found)
    fine = (
        "protocol",
        "retained",
        "packet size",
        "wildcard",
        "nagle",
        "anonymous",
        "settings",
        "foreign topics",
        "topics",
    )
    assert {found[f"broker: {name}"]["severity"] for name in fine} == {"ok"}
    assert "65536" in found["broker: packet size"]["message"]
    assert broker.retained("#") == before, "nothing of the fleet was touched, and nothing is left"


def test_a_workers_user_reads_and_reports_and_nothing_more(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    plant, broker = fleet
    worker = reader(plant, tmp_path, broker.url_of("stt-worker"))
    done = worker("doctor", "--json", TARS_SETTINGS_REPAIR="off")
    found = findings(done)
    assert done.code == 0, bad(found)
    assert "may read settings only" in found["broker: settings"]["message"]
    clients = MosquittoClients("127.0.0.1", broker.port, ["-u", "stt-worker", "-P", "pw-stt-worker"])
    for topic in ("system/config/stt-worker/vad_threshold", "system/health/tts-worker/x", "elsewhere"):
        with contextlib.suppress(AssertionError):  # mosquitto_pub says so on MQTT 5
            clients.publish(topic, "forged")
    clients.publish("system/health/stt-worker/kitchen", "own")
    held = broker.retained("#")
    assert held.pop("system/health/stt-worker/kitchen") == b"own"
    assert b"forged" not in held.values()
    clients.publish("system/health/stt-worker/kitchen")


def test_a_writer_whose_user_may_not_write_is_told(fleet: tuple[Plant, Printed]) -> None:
    plant, broker = fleet
    done = plant.cli("doctor", "--json", TARS_SETTINGS_BROKER=broker.url_of("stt-worker"))
    assert done.code == 1
    assert findings(done)["broker: settings"]["severity"] == "problem"


def reader(plant: Plant, home: Path, broker: str) -> Cli:
    """Return a host without a writer's key."""
    names = ("TARS_SETTINGS_FLEET", "TARS_SETTINGS_SECRET_KEYS")
    kept = {name: plant.cli.environment[name] for name in names}
    return Cli(home, kept | {"TARS_SETTINGS_BROKER": broker, "TARS_SETTINGS_STATE_DIR": str(home / "state")})


def test_every_kind_is_printed_for_this_fleets_prefixes(cli: Cli) -> None:
    for kind in ("mosquitto", "nats", "amqtt"):
        done = cli("broker-config", kind, TARS_SETTINGS_PREFIX="robot/settings")
        assert done.code == 0, done.err
        assert "robot/settings" in done.out or "robot.settings" in done.out
        assert "system/config" not in done.out
    assert cli("broker-config", "mystery").code == 2


# --- brokers as they should not be ------------------------------------------------------------------------------------

DEVIATIONS: dict[str, tuple[tuple[str, ...], str, str, int]] = {
    "small packets": (("max_packet_size 20000",), "broker: packet size", "problem", 1),
    "no retained messages": (("retain_available false",), "broker: retained", "problem", 1),
    "nagle, anyone, any size": ((), "broker: nagle", "hint", 0),
    "a bridge that is down": (
        ("connection other", "address 127.0.0.1:9", "topic bridged/# out 1"),
        "broker: bridges",
        "warning",
        1,
    ),
}


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_a_deviation_is_found(fleet: tuple[Plant, Printed], tmp_path: Path, deviation: str) -> None:
    lines, name, severity, code = DEVIATIONS[deviation]
    with Mosquitto(tmp_path / "broker", *lines) as broker:
        if not code:
            broker.publish("system/config/_trust", (fleet[0].cli.home / "fleet" / "trust.json").read_bytes().strip())
        done = reader(fleet[0], tmp_path, broker.url)("doctor", "--json")
        found = findings(done)
        assert found[name]["severity"] == severity
        assert found[name]["change"]
        assert done.code == code, bad(found)
        if not lines:
            assert {found[f"broker: {one}"]["severity"] for one in ("anonymous", "packet size", "foreign topics")} == {
                "hint"
            }
            assert list(broker.retained("#")) == ["system/config/_trust"]


def test_deep_finds_where_a_replay_ends(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", "max_queued_messages 200") as broker:
        found = findings(reader(fleet[0], tmp_path, broker.url)("doctor", "--deep", "--json"))
        assert found["broker: wildcard"]["severity"] == "hint"
        assert "of 1500" in found["broker: wildcard"]["message"]
        assert broker.retained("#") == {}, "1,500 messages were taken away again"


def test_an_empty_broker_is_found_and_import_puts_it_right(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    plant, _ = fleet
    with Mosquitto(tmp_path / "broker") as broker:
        empty = findings(plant.cli("doctor", "--json", TARS_SETTINGS_BROKER=broker.url))
        assert (empty["broker: trust"]["severity"], empty["broker: topics"]["severity"]) == ("problem", "warning")
        assert broker.retained("#") == {}, "looking repairs nothing"
        state = plant.cli.environment["TARS_SETTINGS_STATE_DIR"]
        assert plant.cli("import", state, TARS_SETTINGS_BROKER=broker.url).code == 0
        done = plant.cli("doctor", "--json", TARS_SETTINGS_BROKER=broker.url)
        assert done.code == 0, bad(findings(done))


def test_ctrl_c_leaves_nothing_on_the_broker(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    """1,500 retained messages are on their way when it comes."""
    with Mosquitto(tmp_path / "broker") as broker:
        process = reader(fleet[0], tmp_path, broker.url).start("doctor", "--deep")
        eventually(lambda: b"/many-" in broker.log.read_bytes(), what="the first of them is there")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        assert broker.retained("#") == {}


def test_without_a_broker_the_rest_is_looked_at(fleet: tuple[Plant, Printed]) -> None:
    done = fleet[0].cli("doctor", "--json", TARS_SETTINGS_BROKER=f"mqtt://127.0.0.1:{free_port()}")
    found = findings(done)
    assert done.code == 1
    assert found["broker: connection"]["severity"] == "problem"
    assert found["state: signatures"]["severity"] == "ok"


# --- this host --------------------------------------------------------------------------------------------------------


def offline(plant: Plant, **variables: str) -> tuple[int, Findings]:
    done = plant.cli("doctor", "--offline", "--json", **variables)
    return done.code, findings(done)


def test_a_host_that_is_well_has_nothing_bad(fleet: tuple[Plant, Printed]) -> None:
    code, found = offline(fleet[0])
    assert (code, bad(found)) == (0, set())


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("TARS_SETTINGS_BORKER", "x", "TARS_SETTINGS_BROKER"), ("tars_settings_fleet", "x", "TARS_SETTINGS_FLEET")],
)
def test_a_variable_that_nobody_reads_is_named_with_what_was_meant(
    fleet: tuple[Plant, Printed], name: str, value: str, meant: str
) -> None:
    code, found = offline(fleet[0], **{name: value})
    assert code == 1
    assert meant in found["environment: unknown"]["change"]


def test_a_malformed_environment_is_named_and_nothing_else_can_be_looked_at(fleet: tuple[Plant, Printed]) -> None:
    code, found = offline(fleet[0], TARS_SETTINGS_FLEET="nonsense")
    assert code == 3
    assert "TARS_SETTINGS_FLEET" in found["environment: malformed"]["message"]


def _flip(path: Path) -> None:
    replica = SqliteReplica(path)
    rows = replica.load()
    delta = next(row for row in rows if type(row).__name__ == "DeltaRow" and row.scope != ALL)
    broken: Any = delta.raw.replace(b'"epoch":1', b'"epoch":7')
    assert broken != delta.raw
    replica.apply([type(delta)(delta.scope, bytes(32), broken)])
    replica.close()


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a row is forged": (_flip, "state: signatures", "problem"),
    "a file is open": (lambda path: path.chmod(0o644), "state: files", "warning"),
    "a directory is open": (lambda path: path.parent.chmod(0o755), "state: directory", "problem"),
    "a damaged file was moved aside": (
        lambda path: path.with_name(f"{path.name}.corrupt-20260101T000000Z-000000001").touch(0o600),
        "state: damaged",
        "warning",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_state_is_found(fleet: tuple[Plant, Printed], tmp_path: Path, fault: str) -> None:
    plant, _ = fleet
    host = reader(plant, tmp_path, "mqtt://127.0.0.1:9")
    source = plant.cli.environment["TARS_SETTINGS_STATE_DIR"]
    assert host("import", source, "--offline").code == 0
    assert host("doctor", "--offline").code == 0
    inject, name, severity = FAULTS[fault]
    inject(next((tmp_path / "state").glob("*/replica.sqlite3")))
    done = host("doctor", "--offline", "--json")
    found = findings(done)
    assert (done.code, found[name]["severity"]) == (1, severity)
    assert found[name]["change"]


def test_a_secret_that_this_host_can_not_read_is_named(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    other = Cli(tmp_path)("init", "--dir", str(tmp_path / "other"), "--json").document()
    text = Path(other["files"]["secret_keys"]).read_text().replace("k1:", "k9:")
    key = next(line for line in text.splitlines() if line.startswith("k9:"))
    code, found = offline(fleet[0], TARS_SETTINGS_SECRET_KEYS=key)
    assert code == 1
    assert "stt-worker api_key is encrypted under k1" in found["keys: secrets"]["message"]
    assert found["keys: idle secrets"]["severity"] == "hint"
    assert found["environment: inline keys"]["severity"] == "hint"


def test_one_key_on_two_hosts_is_found(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    plant, broker = fleet
    second = Cli(tmp_path, {**plant.cli.environment, "TARS_SETTINGS_STATE_DIR": str(tmp_path / "state")})
    assert plant.cli("push", "twice", "a=1", "--plain").code == 0
    assert "twice" not in findings(plant.cli("doctor", "--offline", "--json"))["keys: one host"]["message"]
    assert second("push", "twice", "a=2", "--plain").code == 0
    assert plant.cli("list", "twice").code == 0
    code, found = offline(plant)
    assert code == 1
    assert "another host has the same key" in found["keys: one host"]["message"]
    assert plant.cli("push", "twice", "a=3", "--plain").code == 0, "our own mark is above again"
    assert broker.retained("system/config/twice/a")


def test_a_writer_that_is_not_listed_or_retired_is_told(fleet: tuple[Plant, Printed], tmp_path: Path) -> None:
    plant, _ = fleet
    key = tmp_path / "keys" / "stranger.key"
    assert plant.cli("keys", "new", "stranger", "--file", str(key)).code == 0
    code, found = offline(plant, TARS_SETTINGS_WRITER_KEY=str(key))
    assert (code, found["keys: writer"]["severity"]) == (1, "problem")
    assert "keys grant stranger" in found["keys: writer"]["change"]
    key.chmod(0o644)
    code, found = offline(plant, TARS_SETTINGS_WRITER_KEY=str(key))
    assert (code, found["keys: writer"]["change"]) == (1, f"chmod 600 {key}")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("persistence true", "broker: configured persistence"),
        ("autosave_interval 1", "broker: configured autosave"),
    ],
)
def test_a_line_of_the_printed_configuration_that_is_missing_is_found(
    fleet: tuple[Plant, Printed], tmp_path: Path, line: str, name: str
) -> None:
    """What is kept over a restart can't be seen from outside: the file is looked at."""
    plant, broker = fleet
    printed_text = (broker.directory / "printed" / "mosquitto.conf").read_text()
    whole, without = tmp_path / "whole.conf", tmp_path / "without.conf"
    whole.write_text(printed_text)
    without.write_text(printed_text.replace(f"{line}\n", ""))
    assert whole.read_text() != without.read_text()
    done = plant.cli("doctor", "--offline", "--json", "--mosquitto-conf", str(whole))
    assert (done.code, findings(done)[name]["severity"]) == (0, "ok")
    done = plant.cli("doctor", "--offline", "--json", "--mosquitto-conf", str(without))
    assert (done.code, findings(done)[name]["severity"]) == (1, "warning")
