"""Facts of changes: from files and in parts, rehearsed by live workers, waited for by quorum."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Literal

import pytest

from tars_settings.cli.demo.workers import RouterSettings, SttSettings
from tars_settings.join import Live
from tars_settings.settings import SettingsConfigDict
from tests.cli.documents import assert_fits
from tests.cli.inside import EarSettings, Inside
from tests.cli.running import Cli
from tests.real_input import described, dotenv_of, settings_classes

SECRET = "sk-robot-0451"


@pytest.fixture(autouse=True)
def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tars_settings.agent.answering.GAP_S", 0.0)


@pytest.fixture(scope="module")
def kitchen(inside: Inside) -> Live[Any]:
    return inside.employ("stt-worker", "kitchen")


@pytest.fixture(scope="module")
def hall(inside: Inside) -> Live[Any]:
    return inside.employ("stt-worker", "hall", STT_WHISPER_MODEL="tiny.en")


@pytest.fixture(scope="module")
def router(inside: Inside) -> Live[RouterSettings]:
    return inside.employ("router", "one")


@pytest.fixture(scope="module")
def ear(inside: Inside) -> Live[EarSettings]:
    return inside.employ("ear", "left", EarSettings)


# --- from files ----------------------------------------------------------------------------------------------------


def test_a_dotenv_file_speaks_in_the_workers_variables(inside: Inside, kitchen: Live[SttSettings]) -> None:
    inside.write(
        "a.env", f"# why\nSTT_SILENCE_S=2.5\nSTT_WHISPER_MODEL='7'\nexport STT_API_KEY={SECRET}\nSUPPRESS_ECHO=0\n"
    )
    done = inside("push", "stt-worker", "--file", "a.env", "--json")
    assert done.code == 0, done.err
    assert_fits("push", done.document())
    current = kitchen.current
    assert (current.silence_s, current.whisper_model, current.suppress_echo) == (2.5, "7", False)
    assert current.api_key is not None
    assert current.api_key.get_secret_value() == SECRET
    assert "SUPPRESS_ECHO is taken for suppress_echo" in done.err
    assert SECRET not in done.out + done.err
    assert not any(SECRET.encode() in payload for payload in inside.signed().values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"audio": {"GAIN": %d}, "limits": {"cpu": %d}}'),
        ("a.yaml", "audio:\n  gain: %d\nlimits:\n  cpu: %d\n"),
        ("a.env", "EAR_AUDIO__GAIN=%d\nEAR_LIMITS='{\"cpu\": %d}'\n"),
    ],
)
def test_an_object_descends_where_the_model_does(inside: Inside, ear: Live[EarSettings], name: str, text: str) -> None:
    value = {"a.json": 2, "a.yaml": 3, "a.env": 4}[name]
    inside.write(name, text % (value, value))
    done = inside("push", "ear", "--file", name)
    assert done.code == 0, done.err
    assert (ear.current.audio.gain, ear.current.audio.rate, ear.current.limits) == (value, 16_000, {"cpu": value})
    keys = {topic.rpartition("/")[2] for topic in inside.signed() if topic.startswith("system/config/ear/")}
    assert {"audio__gain", "limits"} <= keys
    assert "audio" not in keys


def test_all_that_is_wrong_with_a_file_is_told_at_once_with_what_is_allowed(
    inside: Inside, kitchen: Live[SttSettings]
) -> None:
    before = inside.signed()
    text = json.dumps(
        {"vad_threshold": 7, "backend": "x", "api_key": "*" * 10, "silence_s": SECRET, "vad_treshold": 1, "a b": 1}
    )
    done = inside("push", "stt-worker", "--file", "-", "--format", "json", "partial_interval_s=no", stdin=text.encode())
    assert done.code == 1
    for told in (
        "vad_threshold: must be at most 1\n    allowed: number, at least 0, at most 1; default 0.5",
        '    allowed: one of "whisper", "ws", "openai"; default "whisper"',
        "api_key: ********** stands for a secret that is not shown",
        "silence_s: must be a number\n    allowed: number, more than 0, at most 10",
        "vad_treshold: nobody described it",
        "did you mean vad_threshold?",
        "'a b' can be no key",
        "partial_interval_s: must be a number",
    ):
        assert told in done.err
    assert SECRET not in done.err
    assert inside.signed() == before


def test_lines_for_others_are_left_out_on_demand_and_named(inside: Inside, kitchen: Live[SttSettings]) -> None:
    inside.write("b.env", "STT_SILENCE_S=3\nOTHER_PROGRAM=1\n")
    refused = inside("push", "stt-worker", "-f", "b.env")
    assert refused.code == 1
    assert "OTHER_PROGRAM (line 2) is no setting of these workers" in refused.err
    done = inside("push", "stt-worker", "-f", "b.env", "--skip-unknown")
    assert done.code == 0, done.err
    assert "left out, since no worker has it: OTHER_PROGRAM" in done.err
    assert kitchen.current.silence_s == 3


def test_a_real_dotenv_file_is_pushed_whole(inside: Inside) -> None:
    """Every variable of the file that the class has arrives as the class itself would read it."""
    cls = settings_classes()["stt-worker"]
    read = cls()
    bare = type("Bare", (cls,), {"model_config": SettingsConfigDict(service="real", env_file=None, extra="ignore")})
    worker = inside.employ("real", "one", bare)
    done = inside("push", "real", "--file", str(dotenv_of("stt-worker")), "--skip-unknown")
    assert done.code == 0, done.err
    given = {one["name"] for one in described("stt-worker") if one["name"] in read.model_fields_set}
    assert given
    assert {name: getattr(worker.current, name) for name in given} == {name: getattr(read, name) for name in given}


# --- in parts ------------------------------------------------------------------------------------------------------


def test_what_is_more_than_a_delta_holds_is_refused_with_the_split_and_pushed_in_parts_on_demand(
    inside: Inside,
) -> None:
    inside.write("many.json", json.dumps({f"key_{n}": "x" * 10 for n in range(130)}))
    refused = inside("push", "many", "--file", "many.json", "--plain")
    assert refused.code == 2
    assert "130 keys are more than one delta holds" in refused.err
    assert "--split" in refused.err
    assert not any(topic.startswith("system/config/many/") for topic in inside.signed())
    done = inside("push", "many", "--file", "many.json", "--plain", "--split", "--no-wait", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("push", document)
    assert [part["epoch"] for part in document["parts"]] == [1, 2, 3]
    keys = [topic for topic in inside.signed() if topic.startswith("system/config/many/key_")]
    assert len(keys) == 130
    assert "3 of 3 parts were pushed" in done.err


def test_a_part_that_workers_refuse_ends_a_push_in_parts(inside: Inside, router: Live[RouterSettings]) -> None:
    values = {**{f"key_{n}": n for n in range(62)}, "stream_min_chars": 501, **{f"more_{n}": n for n in range(20)}}
    inside.write("parts.json", json.dumps(values))
    done = inside("push", "router", "--file", "parts.json", "--plain", "--split", "--json")
    assert done.code == 1
    assert len(done.document()["parts"]) == 1
    assert "1 of 2 parts were pushed" in done.err
    assert "can be pushed again" in done.err
    assert inside("unset", "router", "stream_min_chars").code == 0


# --- rehearsed -----------------------------------------------------------------------------------------------------


def test_a_dry_run_asks_the_workers_and_changes_nothing(
    inside: Inside, kitchen: Live[SttSettings], hall: Live[SttSettings]
) -> None:
    before, snapshots = inside.signed(), (kitchen.current, hall.current)
    done = inside("push", "stt-worker", "whisper_model=medium", f"api_key={SECRET}x", "--dry-run", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("push --dry-run", document)
    assert {one["worker"]: one["opinion"] for one in document["workers"]} == {
        "stt-worker@hall": "fits",
        "stt-worker@kitchen": "fits",
    }
    pinned = {one["worker"]: list(one["shadowed"]) for one in document["workers"]}
    assert pinned == {"stt-worker@hall": ["whisper_model"], "stt-worker@kitchen": []}
    assert [(one["key"], one["new"]) for one in document["changes"]] == [
        ("whisper_model", "medium"),
        ("api_key", "**********"),
    ]
    assert SECRET not in done.out + done.err
    assert inside.signed() == before
    assert (kitchen.current, hall.current) == snapshots
    assert kitchen.current is snapshots[0]


def test_a_rule_across_fields_refuses_in_a_dry_run(inside: Inside, router: Live[RouterSettings]) -> None:
    before, counters = router.current, dict(router.status.counters)
    done = inside("push", "router", "stream_min_chars=501", "--dry-run")
    assert done.code == 1
    assert "router@one\twould refuse\tValue error, stream_min_chars must not exceed stream_max_chars" in done.out
    assert "0 of 1 workers would apply it, 1 would refuse it" in done.err
    both = inside("push", "router", "stream_min_chars=501", "stream_max_chars=600", "--dry-run")
    assert both.code == 0, both.err
    assert router.current is before
    assert router.status.refused == ()
    assert router.status.counters.get("applied", 0) == counters.get("applied", 0)


def test_what_is_the_same_already_is_collapsed(inside: Inside, kitchen: Live[SttSettings]) -> None:
    assert inside("push", "stt-worker", "silence_dbfs=-50", f"api_key={SECRET}").code == 0
    assert inside("unset", "stt-worker", "vad_threshold").code == 0
    done = inside("push", "stt-worker", "silence_dbfs=-50", f"api_key={SECRET}", "vad_threshold=0.25", "--dry-run")
    assert done.code == 0, done.err
    assert "unchanged: silence_dbfs, api_key" in done.err
    assert done.rows()[0] == ["vad_threshold", "(not set, default 0.5)", "0.25"]
    assert not any(row[0] in ("silence_dbfs", "api_key") for row in done.rows())


def test_an_unset_is_rehearsed_too(inside: Inside, kitchen: Live[SttSettings]) -> None:
    assert inside("push", "stt-worker", "silence_dbfs=-51").code == 0
    done = inside("unset", "stt-worker", "silence_dbfs", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert_fits("unset --dry-run", done.document())
    (change,) = done.document()["changes"]
    assert (change["old"], change["new_set"], change["changed"]) == (-51, False, True)
    assert kitchen.current.silence_dbfs == -51


def test_a_worker_of_an_older_release_did_not_answer(inside: Inside) -> None:
    older = inside.employ("older", "one", type("Older", (EarSettings,), {"model_config": {"service": "older"}}))
    older._follower.answering.propose = None  # type: ignore[assignment]
    done = inside("push", "older", "mode=far", "--dry-run", "--timeout", "0.2")
    assert done.code == 0, done.err
    assert "older@one\tdid not answer" in done.out
    assert "1 did not answer" in done.err


def test_a_dry_run_without_workers_shows_the_difference(inside: Inside) -> None:
    done = inside("push", "nobody", "a=1", "--plain", "--dry-run")
    assert (done.code, done.out) == (0, "a\t(not set)\t1\n"), done.err
    assert "no worker was there to ask" in done.err


# --- waited for ----------------------------------------------------------------------------------------------------


def test_a_quorum_decides_the_exit_code(inside: Inside) -> None:
    class Picky(EarSettings):
        model_config = SettingsConfigDict(service="quorate")
        mode: Literal["near"] = "near"  # type: ignore[assignment]

    inside.employ("quorate", "one", type("Wide", (EarSettings,), {"model_config": {"service": "quorate"}}))
    inside.employ("quorate", "two", Picky)
    words = ("push", "quorate", "mode=far", "--model", "wide:Wide")
    inside.write(
        "wide.py",
        "from tars_settings import Settings\nclass Wide(Settings, service='quorate'):\n    mode: str = 'near'\n",
    )
    assert inside(*words).code == 1
    half = inside(*words, "--quorum", "50%", "--json")
    assert half.code == 0, half.err
    assert half.document()["needed"] == 1
    most = inside(*words, "--quorum", "2", "--wait", "all")
    assert most.code == 1
    assert "2 were needed: not reached" in most.err


def test_unsetting_what_is_not_set_is_said(inside: Inside) -> None:
    assert inside("push", "misspelt", "vad_threshold=1", "--plain").code == 0
    done = inside("unset", "misspelt", "vad_treshold")
    assert done.code == 0, done.err
    assert "misspelt does not set vad_treshold; did you mean vad_threshold?" in done.err
    assert "does not set" not in inside("unset", "misspelt", "vad_threshold").err


def test_a_class_names_the_fields_that_it_does_not_have(inside: Inside) -> None:
    inside.write(
        "wide2.py", "from tars_settings import Settings\nclass Wide(Settings, service='wide'):\n    mode: int = 1\n"
    )
    done = inside("push", "wide", "mood=2", "mode=x", "--plain", "--model", "wide2:Wide")
    assert done.code == 1
    assert "mood: Wide has no such field\n    did you mean mode?" in done.err
    assert "mode: must be a whole number\n    allowed: integer; default 1" in done.err


def test_a_quorum_of_nobody_is_not_reached(inside: Inside) -> None:
    done = inside("push", "nobody", "a=2", "--plain", "--quorum", "1%")
    assert done.code == 1
    assert "no worker was there to ask; 1 were needed: not reached" in done.err


def test_a_conflict_tells_who_changed_what_since(inside: Inside, kitchen: Live[SttSettings]) -> None:
    epoch = inside("push", "stt-worker", "log_level=DEBUG", "--json").document()["epoch"]
    inside("push", "stt-worker", "silence_dbfs=-42", "log_level=INFO", "--by", "ann", "--reason", "too loud")
    for more in ((), ("--dry-run",)):
        done = inside("push", "stt-worker", "vad_threshold=0.1", "--expect-epoch", str(epoch), *more)
        assert done.code == 1
        assert f"epoch {epoch + 1} by ann (ops) changed log_level, silence_dbfs: too loud" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("push", "stt-worker"),
        ("push", "stt-worker", "--file", "nothing.txt"),
        ("push", "stt-worker", "a=1", "--no-wait", "--quorum", "2"),
        ("push", "stt-worker", "a=1", "--quorum", "0%"),
        ("push", "stt-worker", "--file", "-", "--format", "ini"),
    ],
)
def test_what_contradicts_itself_is_usage(inside: Inside, words: tuple[str, ...]) -> None:
    assert inside(*words).code == 2


def test_a_file_that_is_not_there_is_the_surroundings(inside: Inside) -> None:
    assert inside("push", "stt-worker", "--file", "nothing.json").code == 3


def test_the_command_itself_pushes_standard_input(inside: Inside, kitchen: Live[SttSettings]) -> None:
    cli = Cli(inside.home, inside.keys.environment("ops"))
    words = ("push", "stt-worker", "--file", "-", "--format", "json", "--quorum", "100%", "--wait", "all")
    done = subprocess.run(
        cli.command(*words),
        input=b'{"partial_interval_s": 0.75}',
        env=cli.variables(),
        cwd=cli.home,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"stt-worker@kitchen\tapplied" in done.stdout
    assert kitchen.current.partial_interval_s == 0.75
