"""``keys root``: other roots, and how many of them must sign; workers follow with the pin that they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.documents import assert_fits
from tests.cli.running import Plant, open_plant


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A fleet whose roots change, with a worker that was there before."""
    with open_plant(tmp_path_factory.mktemp("roots"), ("stt-worker", "kitchen")) as made:
        yield made


def root_key(fleet: Plant, name: str) -> tuple[str, str]:
    """Make a root key and return its public half and its file."""
    path = fleet.cli.home / "fleet" / f"{name}.key"
    done = fleet.cli("keys", "new", name, "--root", "--file", str(path), "--json")
    assert done.code == 0, done.err
    return done.document()["public"], str(path)


def trust(fleet: Plant) -> dict[str, Any]:
    return dict(fleet.cli("keys", "list", "--json").document())


def granted(fleet: Plant, name: str, *roots: str) -> int:
    """Try to grant a new writer something, signed by these root keys, and return the exit code."""
    public = fleet.cli("keys", "new", name, "--json").document()["public"]
    options = [word for root in roots for word in ("--root-key", root)]
    return fleet.cli("keys", "grant", name, "stt-worker", "--public", public, *options).code


@pytest.fixture(scope="module")
def rotation(fleet: Plant) -> dict[str, Any]:
    """What came of replacing the first root by root-2: each attempt, and the document."""
    first = str(fleet.cli.home / "fleet" / "root.key")
    kid = trust(fleet)["roots"][0]["kid"]
    public, second = root_key(fleet, "root-2")
    words = ("keys", "root", "rotate", "--add", public, "--drop", kid, "--yes")
    alone, thief = (fleet.cli(*words, "--root-key", one) for one in (first, second))
    done = fleet.cli(*words, "--root-key", first, "--root-key", second, "--json")
    assert done.code == 0, done.err
    return {"alone": alone, "thief": thief, "document": done.document(), "public": public, "files": (first, second)}


@pytest.fixture(scope="module")
def holders(fleet: Plant, rotation: dict[str, Any]) -> tuple[str, str]:
    """The files of root-2 and root-3, both of which must sign."""
    _, second = rotation["files"]
    public, third = root_key(fleet, "root-3")
    both = ("--root-key", second, "--root-key", third)
    assert fleet.cli("keys", "root", "threshold", "2", "--yes", *both).code == 1, "one root can't give two signatures"
    assert fleet.cli("keys", "root", "rotate", "--add", public, "--yes", *both).code == 0
    early = fleet.cli("keys", "root", "threshold", "2", "--yes", "--root-key", second)
    assert early.code == 1, "whoever demands two signatures gives two"
    done = fleet.cli("keys", "root", "threshold", "2", "--yes", "--json", *both)
    assert done.code == 0, done.err
    return second, third


def test_a_root_is_replaced_and_workers_old_and_new_follow(fleet: Plant, rotation: dict[str, Any]) -> None:
    assert rotation["alone"].code == 1, "the new root must sign too"
    assert "new roots" in rotation["alone"].err
    assert rotation["thief"].code == 1, "the held root must sign"
    assert "held roots" in rotation["thief"].err
    assert_fits("keys root", rotation["document"])
    assert rotation["public"] in [one["public"] for one in trust(fleet)["roots"]]
    step = f"system/config/_trust/{rotation['document']['version']}"
    assert step in fleet.broker.retained("system/config/_trust/#"), "nobody who comes later could follow"

    first, _ = rotation["files"]
    assert granted(fleet, "by-the-old", first) == 1
    # The pin of a worker stays the first root: the step of the chain is on the broker for whoever comes later.
    fleet.employ("stt-worker", "hall")
    fleet.awaited()
    assert fleet.cli("push", "stt-worker", "vad_threshold=0.66").code == 0
    assert [one.look()["values"]["vad_threshold"] for one in fleet.workers] == [0.66, 0.66]


def test_a_threshold_must_be_met_from_then_on(fleet: Plant, holders: tuple[str, str]) -> None:
    assert trust(fleet)["threshold"] == 2
    assert granted(fleet, "one", holders[0]) == 1
    assert granted(fleet, "two", *holders) == 0


def test_two_holders_sign_one_after_the_other(fleet: Plant, holders: tuple[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    public = fleet.cli("keys", "new", "night", "--json").document()["public"]
    draft, once, twice = (str(tmp_path / name) for name in ("draft", "once", "twice"))
    words = ("keys", "grant", "night", "stt-worker", "--public", public, "--out", draft, "--root-key", holders[0])
    assert "1 of 2" in fleet.cli(*words, "--json").document()["lacking"]
    assert fleet.cli("keys", "sign", draft, "--root-key", holders[0], "--out", once).code == 0
    refused = fleet.cli("keys", "publish", once)
    assert refused.code == 1, "one holder who signs twice is one signature"
    assert fleet.cli("keys", "sign", once, "--root-key", holders[1], "--out", twice).code == 0
    assert fleet.cli("keys", "publish", twice).code == 0
    assert "night" in [one["name"] for one in trust(fleet)["writers"]]


@pytest.mark.parametrize("words", [(), ("--add", "ed25519:x"), ("--drop", "0" * 32), ("--add", "nonsense")])
def test_what_is_no_rotation_is_refused(fleet: Plant, words: tuple[str, ...]) -> None:
    done = fleet.cli("keys", "root", "rotate", *words, "--yes")
    assert done.code == 2, done.err
