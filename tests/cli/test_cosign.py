"""``push --cosign``, ``keys cosign``, ``keys grant --cosign``: the two-person rule over a real broker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tars_settings.adapters.keyfiles import write_key
from tars_settings.cli.app import app
from tars_settings.cli.cosigning import demands_of
from tars_settings.core.draft import drafted, read_draft
from tars_settings.errors import ConflictError, RefusedError, UsageError
from tars_settings.testing import MemoryFleet
from tars_settings.trust.cosign import consent
from tars_settings.trust.keys import SigningKey, fleet_text
from tests.cli.documents import assert_fits
from tests.cli.running import Plant
from tests.fleets import ALICE, BOB, FLEET, ROOT, delta_body, document

SCOPE = "stt-worker"
TOPIC = f"system/config/{SCOPE}"


@pytest.fixture(scope="module")
def keys(plant: Plant) -> dict[str, dict[str, str]]:
    """A worker, and two writers besides the first."""
    plant.employ("stt-worker", "kitchen")
    plant.awaited()
    found = {}
    for name in ("author", "second"):
        path = plant.cli.home / "fleet" / f"{name}.key"
        public = plant.cli("keys", "new", name, "--file", str(path), "--json").document()["public"]
        grants = (SCOPE,) if name == "author" else ("tts-worker",)
        done = plant.cli("keys", "grant", name, *grants, "--public", public, "--json")
        assert done.code == 0, done.err
        found[name] = {"TARS_SETTINGS_WRITER_KEY": str(path)}
    return found


def bind(plant: Plant, *demands: str) -> dict[str, Any]:
    words = [word for one in demands for word in ("--cosign", one)]
    done = plant.cli("keys", "grant", "author", SCOPE, *words, "--json")
    assert done.code == 0, done.err
    assert_fits("keys grant", done.document())
    return dict(done.document())


def draft_of(plant: Plant, path: Path, *words: str, **key: str) -> dict[str, Any]:
    done = plant.cli("push", SCOPE, *words, "--cosign", str(path), "--json", **key)
    assert done.code == 0, done.err
    assert_fits("push draft", done.document())
    assert path.stat().st_mode & 0o777 == 0o600
    return dict(done.document())


def test_a_push_that_needs_consent_goes_from_hand_to_hand(
    plant: Plant, keys: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    before = plant.cli("push", SCOPE, "vad_threshold=0.4", **keys["author"])
    assert before.code == 0, before.err
    entry = next(one for one in bind(plant, "1:second")["writers"] if one["name"] == "author")
    assert entry["cosign"] == [{"grant": SCOPE, "need": 1, "of": ["second"]}]
    assert plant.value("vad_threshold") == 0.4, "what shows is endorsed when consent is demanded from now on"
    listed = plant.cli("keys", "list").out
    assert f"{SCOPE} with {SCOPE}=1:second" in listed

    alone = plant.cli("push", SCOPE, "vad_threshold=0.7", "--json", **keys["author"])
    assert alone.code == 1
    assert alone.document()["error"]["kind"] == "NotCosignedError"
    assert "1 of second" in alone.err
    assert "--cosign FILE" in alone.err

    change, signed = tmp_path / "change.draft", tmp_path / "change.draft.cosigned"
    tmp_path.chmod(0o700)
    told = draft_of(
        plant,
        change,
        "vad_threshold=0.7",
        "api_key=canary-in-a-mine-4711",
        "--reason",
        "the hall echoes",
        **keys["author"],
    )
    assert (told["author"], told["cosigned_by"]) == ("author", [])
    assert {one["key"]: one["value"] for one in told["assign"]} == {"vad_threshold": 0.7, "api_key": None}
    assert b"canary-in-a-mine-4711" not in change.read_bytes()
    assert plant.value("vad_threshold") == 0.4, "a draft is not published"

    unasked = plant.cli("keys", "cosign", str(change), **keys["second"])
    assert unasked.code == 2
    assert ["vad_threshold", "set", "0.7"] in unasked.rows()
    assert ["api_key", "set", "**********"] in unasked.rows()
    assert "the hall echoes" in unasked.err
    assert not signed.exists()
    done = plant.cli("keys", "cosign", str(change), "--yes", "--json", **keys["second"])
    assert done.code == 0, done.err
    assert_fits("keys cosign", done.document())
    assert done.document()["cosigned_by"] == ["second"]

    pushed = plant.cli("push", "--cosigned", str(signed), "--json", **keys["author"])
    assert pushed.code == 0, pushed.err
    assert_fits("push", pushed.document())
    assert pushed.document()["applied"] == 1
    assert pushed.document()["epoch"] == told["epoch"]
    assert plant.value("vad_threshold") == 0.7
    body = json.loads(plant.broker.retained(f"{TOPIC}/vad_threshold").popitem()[1])["body"]
    assert [*body][-1] == "cosig"
    assert body["reason"] == "the hall echoes"


def test_who_consents_to_a_trial_sees_what_comes_back(
    plant: Plant, keys: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    bind(plant, "1:second")
    change, signed = tmp_path / "trial.draft", tmp_path / "trial.draft.cosigned"
    before = plant.value("vad_threshold")
    told = draft_of(plant, change, "vad_threshold=0.65", "--revert-after", "10m", **keys["author"])
    assert told["trial_s"] == 600
    done = plant.cli("keys", "cosign", str(change), "--yes", **keys["second"])
    assert done.code == 0, done.err
    assert "comes back after 10m" in done.err
    held = plant.broker.retained(f"{TOPIC}/vad_threshold")
    back = ["vad_threshold", "set", str(before)] if held else ["vad_threshold", "unset"]
    assert back in [[cell for cell in row if cell] for row in done.rows()]
    pushed = plant.cli("push", "--cosigned", str(signed), "--json", **keys["author"])
    assert pushed.code == 0, pushed.err
    assert pushed.document()["trial_s"] == 600
    assert plant.value("vad_threshold") == 0.65


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[MemoryFleet]:
    with MemoryFleet(tmp_path / "fleet") as made:
        yield made


def test_a_draft_is_refused_when_someone_was_faster(fleet: MemoryFleet) -> None:
    second, fleet_id = SigningKey("writer", "second", os.urandom(32)), fleet.writer.environment.fleet_id

    def draft() -> bytes:
        receipt = fleet.writer.push(SCOPE, {"a": 1}, plain=("a",), cosign=True)
        assert (receipt.stage, receipt.digest) == ("drafted", "")
        return consent(read_draft(receipt.draft, fleet_id), second)

    slow = draft()
    assert fleet.writer.view(SCOPE) == {}, "nothing was published, and no epoch is taken"
    first = fleet.writer.push_cosigned(draft())
    assert first.wait(need="retained").stage == "retained"
    held = fleet.writer.view(SCOPE)["a"].delta
    assert [one.kid for one in held.body.cosig] == [second.kid]
    with pytest.raises(ConflictError, match="moved on to epoch 1"):
        fleet.writer.push_cosigned(slow)
    with pytest.raises(RefusedError, match="for the writer's key"):
        fleet.writer.push_cosigned(drafted(fleet_id, second.kid, read_draft(slow, fleet_id).raw_body))
    assert fleet.writer.view(SCOPE)["a"].delta is held


def test_an_unset_is_drafted_too(fleet: MemoryFleet) -> None:
    fleet.writer.push(SCOPE, {"a": 1}, plain=("a",)).wait(need="retained")
    receipt = fleet.writer.unset(SCOPE, ["a"], cosign=True)
    (item,) = read_draft(receipt.draft, fleet.writer.environment.fleet_id).body.assign
    assert item.unset
    assert not fleet.writer.view(SCOPE)["a"].assignment.unset


@pytest.mark.parametrize(
    "words",
    [
        ["push"],
        ["push", SCOPE],
        ["push", SCOPE, "a=1", "--cosigned", "x"],
        ["push", "--cosigned", "x", "--cosign", "y"],
    ],
)
def test_words_that_make_no_push_are_refused(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_what_is_no_draft_is_refused_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARS_SETTINGS_FLEET", fleet_text(ALICE.public))
    monkeypatch.setenv("TARS_SETTINGS_STATE_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["push", "--cosigned", str(tmp_path / "nowhere")]).exit_code == 3
    junk = tmp_path / "junk"
    junk.write_bytes(b"{nonsense")
    assert CliRunner().invoke(app, ["push", "--cosigned", str(junk)]).exit_code == 1
    assert CliRunner().invoke(app, ["keys", "cosign", str(junk), "--yes"]).exit_code == 1


@pytest.mark.parametrize(
    ("said", "code", "shown"),
    [
        ({"reason": "fine\nops-1 is going to sign nothing"}, 2, "fine\\nops-1 is going to sign nothing"),
        ({"by": "a\x1b[2J"}, 2, "by a\\x1b[2J"),
        ({"ext": {"later": 1}}, 1, "upgrade before you consent"),
    ],
)
def test_who_consents_sees_what_is_there_and_nothing_that_only_looks_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], code: int, shown: str
) -> None:
    tmp_path.chmod(0o700)
    write_key(tmp_path / "bob.key", BOB.to_text())
    monkeypatch.setenv("TARS_SETTINGS_FLEET", fleet_text(ROOT.public))
    monkeypatch.setenv("TARS_SETTINGS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TARS_SETTINGS_WRITER_KEY", str(tmp_path / "bob.key"))
    (tmp_path / "draft").write_bytes(drafted(FLEET, ALICE.kid, delta_body(5, **said)))
    done = CliRunner().invoke(app, ["keys", "cosign", str(tmp_path / "draft")])
    assert done.exit_code == code, done.output
    assert shown in done.stderr
    assert not (tmp_path / "draft.cosigned").exists()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("1:bob", [("*", 1, [BOB.kid]), ("_all", 1, [BOB.kid])]),
        ("stt.key=2:bob,alice", [("stt.key", 2, [BOB.kid, ALICE.kid])]),
        ("bob", UsageError),
        ("x:bob", UsageError),
        ("1:", UsageError),
        ("1:nobody", RefusedError),
    ],
)
def test_a_demand_in_words(word: str, expected: Any) -> None:
    if isinstance(expected, type):
        with pytest.raises(expected):
            demands_of([word], ("*", "_all"), document())
    else:
        found = demands_of([word], ("*", "_all"), document())
        assert [(one.grant, one.need, list(one.of)) for one in found] == expected
