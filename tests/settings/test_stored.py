"""What this host kept: verified again at each load, and no reason ever not to start."""

from __future__ import annotations

import os

import pytest

from tars_settings.adapters.lkg import DiskLkg
from tars_settings.adapters.memory import MemoryLkg
from tars_settings.core.lastgood import Start, Starts
from tars_settings.errors import ConfigurationError, KeyFileError, SealBrokenError
from tars_settings.sources.environment import Environment, default_instance
from tars_settings.sources.lastgood import load_lkg, read_lkg, write_lkg
from tars_settings.sources.starts import StartMarks
from tars_settings.sources.stored import load_stored
from tars_settings.trust.document import follow
from tars_settings.trust.keys import SecretKey
from tars_settings.trust.seal import SealKey
from tests.settings.stage import (
    FLEET,
    INSTANCE,
    PIN,
    SECRET,
    SERVICE,
    STRANGER,
    TRUST,
    WRITER,
    Stage,
    delta,
    parsed,
    trust_raw,
)

KEY = SealKey(b"z" * 32)


def kept(*raws: bytes, service: str = SERVICE) -> MemoryLkg:
    store = MemoryLkg()
    write_lkg(store, KEY, fleet=FLEET, service=service, trust=[trust_raw()], deltas=map(parsed, raws), counter=7)
    return store


def values(view: object) -> dict[str, object]:
    scopes = view.scopes  # type: ignore[attr-defined]
    return {one.key: one.assignment.set for scope in scopes for one in scope.registers}


# --- the last known good ---------------------------------------------------------------------------------------------


def test_the_last_known_good_comes_back_as_it_was_signed() -> None:
    found = read_lkg(kept(delta({"a": 1}, 1), delta({"b": 2}, 2)), KEY, pinned=PIN, service=SERVICE, instance=INSTANCE)
    assert found is not None
    assert (values(found.view), found.counter, found.document.version) == ({"a": 1, "b": 2}, 7, 1)


def test_an_empty_slot_is_none() -> None:
    assert read_lkg(MemoryLkg(), KEY, pinned=PIN, service=SERVICE, instance=INSTANCE) is None


@pytest.mark.parametrize("step", range(0, 900, 7))
def test_a_flipped_byte_breaks_the_seal(step: int) -> None:
    store = kept(delta({"a": 1}, 1))
    sealed = bytearray(store.read(0) or b"")
    sealed[step % len(sealed)] ^= 1
    store.write(bytes(sealed), keep_previous=False)
    with pytest.raises(SealBrokenError):
        read_lkg(store, KEY, pinned=PIN, service=SERVICE, instance=INSTANCE)


def test_one_services_last_known_good_does_not_pass_for_anothers() -> None:
    with pytest.raises(SealBrokenError):
        read_lkg(kept(), KEY, pinned=PIN, service="tts-worker", instance=INSTANCE)


def test_a_seal_does_not_replace_signatures() -> None:
    store = MemoryLkg()
    forged = delta({"a": "evil"}, 9, by=STRANGER)
    fake = parsed(delta({"a": 1}, 1)).__class__
    held = parsed(delta({"a": 1}, 1))
    write_lkg(
        store,
        KEY,
        fleet=FLEET,
        service=SERVICE,
        trust=[trust_raw()],
        deltas=[held, fake.of(held.stamp, held.body, forged)],
    )
    found = read_lkg(store, KEY, pinned=PIN, service=SERVICE, instance=INSTANCE)
    assert found is not None
    assert values(found.view) == {"a": 1}


def test_the_later_trust_document_judges() -> None:
    revoked = follow(PIN, trust_raw(2, status="compromised"))
    found = read_lkg(kept(delta({"a": 1}, 1)), KEY, pinned=PIN, service=SERVICE, instance=INSTANCE, known=revoked)
    assert found is not None
    assert values(found.view) == {}


def test_a_broken_seal_is_an_event_of_its_own(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.keep(delta({"a": 1}, 1))
    assert load_lkg(stage.environment, SERVICE) is not None
    assert caplog.text == ""
    store = DiskLkg(stage.environment.lkg_dir(SERVICE))
    sealed = store.read(0) or b""
    store.write(sealed[:-1] + bytes([sealed[-1] ^ 1]), keep_previous=False)
    store.close()
    assert load_lkg(stage.environment, SERVICE) is None
    assert [getattr(record, "tars_event", "") for record in caplog.records] == ["seal-broken"]
    assert "seal broken" in caplog.text


def test_the_slot_before_is_used_where_the_newest_is_broken(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.keep(delta({"a": 1}, 1))
    store = DiskLkg(stage.environment.lkg_dir(SERVICE))
    store.write(b"torn", keep_previous=True)
    store.close()
    found = load_lkg(stage.environment, SERVICE)
    assert found is not None
    assert (values(found.view), found.slot) == ({"a": 1}, 1)
    assert "slot 0" in caplog.text


def test_a_missing_last_known_good_is_silent(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.store(delta({"a": 1}, 1))
    assert load_lkg(stage.environment, SERVICE) is None
    assert caplog.text == ""


# --- the replica -----------------------------------------------------------------------------------------------------


def test_a_second_load_checks_no_signature_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.store(delta({"a": 1}, 1))
    first = load_stored(stage.environment, SERVICE)

    def no_more(*_: object) -> None:
        raise AssertionError("a signature was checked twice")

    monkeypatch.setattr("tars_settings.trust.sodium.verify", no_more)
    second = load_stored(stage.environment, SERVICE)
    assert values(first.view) == values(second.view) == {"a": 1}
    stage.store(delta({"a": 2}, 2))
    with pytest.raises(AssertionError, match="twice"):
        load_stored(stage.environment, SERVICE)


def test_damaged_rows_are_counted_and_the_rest_is_read(stage: Stage) -> None:
    damaged = delta({"b": 2}, 2).replace(b'"b"', b'"c"')
    stage.store(delta({"a": 1}, 1), damaged)
    found = load_stored(stage.environment, SERVICE)
    assert values(found.view) == {"a": 1}
    assert found.trouble == ("1 stored deltas do not count (bad-signature)",)


def test_other_instances_values_are_not_read(stage: Stage) -> None:
    stage.store(delta({"a": 1}, 1, scope=f"{SERVICE}@elsewhere"))
    assert values(load_stored(stage.environment, SERVICE).view) == {}
    assert values(load_stored(stage.environment, SERVICE, "elsewhere").view) == {"a": 1}
    assert TRUST.version == load_stored(stage.environment, SERVICE).document.version


# --- starts ----------------------------------------------------------------------------------------------------------


class Times:
    """A wall clock that a test sets."""

    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def marks_of_others(stage: Stage, times: Times, pid: int, count: int) -> StartMarks:
    for _ in range(count):
        marks = StartMarks(stage.environment, SERVICE, times)
        marks.mark("a set")
        held = marks.read()
        assert held is not None
        marks._write(Starts(1, "a set", tuple(Start(pid, one.at_ms) for one in held.starts)))
        times.now_ms += 1000
    return StartMarks(stage.environment, SERVICE, times)


def test_in_a_container_the_process_before_had_our_number(stage: Stage) -> None:
    assert marks_of_others(stage, Times(), os.getpid(), 2).looping() == "a set"


def test_processes_that_live_are_no_crash(stage: Stage) -> None:
    assert marks_of_others(stage, Times(), os.getppid(), 2).looping() == ""


def test_own_marks_are_no_crash(stage: Stage) -> None:
    marks = StartMarks(stage.environment, SERVICE, Times())
    marks.mark("a set")
    assert marks.looping() == ""


def test_two_starts_an_hour_apart_are_no_loop(stage: Stage) -> None:
    times = Times()
    marks = marks_of_others(stage, times, os.getpid(), 2)
    times.now_ms += 60_000
    assert marks.looping() == ""


def test_a_clock_that_was_set_back_makes_no_loop(stage: Stage) -> None:
    times = Times()
    marks = marks_of_others(stage, times, os.getpid(), 2)
    times.now_ms -= 500_000
    assert marks.looping() == ""


# --- the environment -------------------------------------------------------------------------------------------------

MALFORMED = {
    "FLEET": "canary",
    "INSTANCE": "Canary",
    "PREFIX": "canary/#",
    "HEALTH_PREFIX": "$canary",
    "PROTOCOL": "canary",
    "REPAIR": "canary",
    "BROKER": "",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_each_malformed_variable_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"TARS_SETTINGS_{name}", MALFORMED[name])
    with pytest.raises(ConfigurationError, match=f"^TARS_SETTINGS_{name} is malformed .*; expected ") as caught:
        Environment.read()
    assert "anary" not in f"{caught.value}{caught.value.__context__}{caught.value.__cause__}"


@pytest.mark.parametrize("text", ["canary", "id:canary", "a:" + "A" * 44 + ",a:" + "A" * 44, "/no/such/canary-file"])
def test_malformed_secret_keys_are_named(stage: Stage, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    del stage
    monkeypatch.setenv("TARS_SETTINGS_SECRET_KEYS", text)
    with pytest.raises(ConfigurationError, match="TARS_SETTINGS_SECRET_KEYS"):
        Environment.read().secret_keys()


def test_what_is_missing_is_said_with_what_makes_it() -> None:
    environment = Environment.read()
    for name, needed in {"FLEET": lambda: environment.root, "BROKER": environment.broker_address}.items():
        with pytest.raises(ConfigurationError, match=f"TARS_SETTINGS_{name} is not set"):
            needed()
    with pytest.raises(ConfigurationError, match=r"TARS_SETTINGS_WRITER_KEY is not set: .*tars-settings init"):
        environment.writer_key()


def test_arguments_stand_in_for_variables(stage: Stage) -> None:
    given = Environment.read(instance="other", broker="mqtt://user:canary@host")
    assert (given.instance, given.fleet_id, given.broker_address()) == ("other", FLEET, "mqtt://user:canary@host")
    assert "canary" not in repr(given)
    assert stage.environment.instance == INSTANCE
    with pytest.raises(ConfigurationError, match="the argument 'instance' is malformed"):
        Environment.read(instance="Not Legal")


def test_a_changed_variable_is_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    del stage
    assert Environment.read() is Environment.read()
    monkeypatch.setenv("TARS_SETTINGS_INSTANCE", "moved")
    assert Environment.read().instance == "moved"


def test_secret_keys_come_from_the_variable_or_a_private_file(stage: Stage) -> None:
    other = SecretKey("tts", b"t" * 32)
    both = f"{SECRET.to_text()},{other.to_text()}"
    path = stage.environment.state_dir.parent / "secrets"
    path.write_text(f"# keys\n{SECRET.to_text()}\n{other.to_text()}\n")
    path.chmod(0o600)
    for text in (both, str(path)):
        assert sorted(Environment.read(secret_keys=text).secret_keys()) == ["stt", "tts"]
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"SECRET_KEYS.*chmod"):
        Environment.read(secret_keys=str(path)).secret_keys()


def test_the_seal_key_is_made_once_and_only_when_asked(stage: Stage) -> None:
    environment = stage.environment
    assert environment.seal_key() is None
    assert not environment.state_dir.exists()
    made = environment.seal_key(create=True)
    found = environment.seal_key()
    assert made is not None
    assert found is not None
    assert made.to_text() == found.to_text()
    assert environment.seal_key_path.stat().st_mode & 0o777 == 0o600
    assert environment.fleet_dir.stat().st_mode & 0o777 == 0o700
    environment.seal_key_path.chmod(0o640)
    with pytest.raises(KeyFileError):
        environment.seal_key()


def test_the_seal_key_may_be_given_as_text_or_file(stage: Stage) -> None:
    path = stage.environment.state_dir.parent / "seal"
    path.write_text(KEY.to_text())
    path.chmod(0o600)
    for text in (KEY.to_text(), str(path)):
        found = Environment.read(seal_key=text).seal_key()
        assert found is not None
        assert found.to_text() == KEY.to_text()


def test_the_writers_key_is_read_from_its_file(stage: Stage) -> None:
    path = stage.environment.state_dir.parent / "writer.key"
    path.write_text(WRITER.to_text())
    path.chmod(0o600)
    assert Environment.read(writer_key=path).writer_key().kid == WRITER.kid


def test_the_state_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert str(Environment.read().state_dir) == "/x/tars-settings"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(Environment.read().state_dir) == "/home/someone/.local/state/tars-settings"


def test_directories_never_hold_the_services_name(stage: Stage) -> None:
    assert os.sep not in stage.environment.lkg_dir("x").name
    assert stage.environment.lkg_dir("x").name.startswith("lkg-")
    assert default_instance("x" * 100) == "x" * 63


@pytest.mark.parametrize("path", ["/a\0b", "~a\0b/c"])
@pytest.mark.parametrize("name", ["state_dir", "writer_key", "secret_keys", "seal_key"])
def test_a_path_with_a_nul_is_a_malformed_variable(stage: Stage, name: str, path: str) -> None:
    def use() -> None:
        environment = Environment.read(fleet=stage.variables["TARS_SETTINGS_FLEET"], **{name: path})
        getattr(environment, name)()

    with pytest.raises(ConfigurationError, match="is malformed"):
        use()
