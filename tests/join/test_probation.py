"""New values are on probation: what has proven good is kept beside them, and a crash loop goes back to it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tars_settings.adapters.lkg import DiskLkg
from tars_settings.sources.lastgood import Kept, opened_lkg, usable_lkgs
from tests.brokers import eventually
from tests.join.conftest import InMemory, Stt
from tests.join.test_join import Started
from tests.settings.stage import SERVICE, Stage, delta, trust_raw

ROOT = Path(__file__).parents[2]

WORKER = """
    import json, logging, os, sys
    import tars_settings
    from tars_settings import Settings

    class Stt(Settings, service="stt-worker"):
        model: str = "default"
        beam: int = 1

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    ending, probation_s = sys.argv[1:]
    plain = Stt()
    with tars_settings.join(Stt, broker="mqtt://127.0.0.1:9", probation_s=float(probation_s)) as live:
        if ending == "good":
            live.mark_good()
        if ending == "proven":
            import time
            deadline = time.monotonic() + 20
            from pathlib import Path
            while list(Path(os.environ["TARS_SETTINGS_STATE_DIR"]).glob("*/starts-*")) and time.monotonic() < deadline:
                time.sleep(0.02)
        print(json.dumps({
            "plain": plain.model, "live": live.current.model, "beam": live.current.beam,
            "held_back": live.status.held_back, "refused": [one.keys for one in live.status.refused],
            "origin": tars_settings.explain(plain, "model").winner.arrived,
        }), flush=True)
        if ending == "killed":
            os.kill(os.getpid(), 9)
        if ending == "error":
            raise SystemError("the new values do this")
"""


class Host(Stage):
    """A host whose worker is started again and again, as a process."""

    def start(self, ending: str, *, probation_s: float = 3600) -> dict[str, Any]:
        """Run the worker once and return what it printed, and its log."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(WORKER), ending, str(probation_s)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **self.variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        assert done.returncode == {"killed": -9, "error": 1}.get(ending, 0), done.stderr
        return {**json.loads(done.stdout), "log": done.stderr}

    def kept(self) -> list[Kept]:
        return list(usable_lkgs(self.environment, SERVICE))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which the value "good" has proven itself, and then "new" was received."""
    made = Host(tmp_path / "state")
    made.store(delta({"model": "good"}, 1))
    assert made.start("proven", probation_s=0)["live"] == "good"
    assert [one.proven for one in made.kept()] == [True]
    made.store(delta({"model": "new", "beam": 5}, 2))
    return made


@pytest.mark.parametrize("ending", ["killed", "error"])
def test_the_third_start_within_a_minute_runs_on_the_values_before_and_says_so(host: Host, ending: str) -> None:
    assert [host.start(ending)["live"] for _ in range(2)] == ["new", "new"]
    third = host.start("in order")
    assert (third["plain"], third["live"], third["beam"]) == ("good", "good", 1)
    assert "started 3 times within 60 s" in third["held_back"]
    assert third["refused"] == [["model", "beam"]]
    assert third["origin"] == "last known good"
    assert "did not stay healthy on" in third["log"]


def test_who_leaves_in_order_is_no_crash(host: Host) -> None:
    assert [host.start("in order")["live"] for _ in range(4)] == ["new"] * 4
    assert not list(host.environment.fleet_dir.glob("starts-*")), "nothing is left behind"


def test_values_that_have_proven_good_are_not_blamed(host: Host) -> None:
    host.start("good")
    assert [one.proven for one in host.kept()] == [True, True]
    assert [host.start("killed")["live"] for _ in range(4)] == ["new"] * 4


def test_what_comes_after_the_suspects_is_applied_on_top(host: Host) -> None:
    for _ in range(2):
        host.start("killed")
    host.store(delta({"model": "fixed", "beam": 2}, 3))
    assert (host.start("in order")["live"], host.start("in order")["beam"]) == ("fixed", 2)


def test_without_values_before_them_the_new_ones_are_all_there_is(tmp_path: Path) -> None:
    host = Host(tmp_path / "state")
    host.store(delta({"model": "first"}, 1))
    assert [host.start("killed")["live"] for _ in range(4)] == ["first"] * 4


def test_marks_that_somebody_else_wrote_do_not_count(host: Host) -> None:
    for _ in range(2):
        host.start("killed")
    (path,) = host.environment.fleet_dir.glob("starts-*")
    marks = path.read_bytes()
    path.write_bytes(marks[:-1] + bytes([marks[-1] ^ 1]))
    last = host.start("in order")
    assert last["live"] == "new"
    assert "marks of starts can't be used" in last["log"]


def test_values_on_probation_never_push_out_what_has_proven_good(host: Host) -> None:
    for epoch in (2, 3, 4):
        host.store(delta({"model": f"new {epoch}"}, epoch))
        host.start("in order")
    newest, before = host.kept()
    assert (newest.proven, before.proven) == (False, True)
    assert [one.assignment.set for scope in before.view.scopes for one in scope.registers] == ["good"]


def test_damage_never_pushes_out_what_has_proven_good(host: Host) -> None:
    host.start("in order")
    store = DiskLkg(host.environment.lkg_dir(SERVICE))
    store.write(b"torn", keep_previous=False)
    store.close()
    host.start("in order")
    assert [one.proven for one in host.kept()] == [False, True]


def test_mark_good_ends_probation(memory: InMemory, started: Started) -> None:
    live = started(probation_s=3600)
    memory.push(model="large")
    eventually(lambda: live.current.model == "large")
    given = memory.fleet()._environment
    eventually(lambda: [one.proven for one in usable_lkgs(given, SERVICE)] == [False])
    live.mark_good()
    eventually(lambda: [one.proven for one in usable_lkgs(given, SERVICE)] == [True])


def test_probation_passes_by_itself(memory: InMemory, started: Started) -> None:
    live = started(Stt, probation_s=0.2)
    given = memory.fleet()._environment
    for model in ("one", "two"):
        memory.push(model=model)
        eventually(lambda model=model: live.current.model == model)
        eventually(
            lambda model=model: (model, True) in [(said(one), one.proven) for one in usable_lkgs(given, SERVICE)]
        )
    assert [said(one) for one in usable_lkgs(given, SERVICE)] == ["two", "one"]


def said(kept: Kept) -> Any:
    registers = [one for scope in kept.view.scopes for one in scope.registers]
    return registers[0].assignment.set if registers else None


def test_every_step_of_the_trust_chain_is_kept(host: Host) -> None:
    chain = [trust_raw(1), trust_raw(2), trust_raw(3)]
    host.store(delta({"model": "newer"}, 3), trust=chain)
    host.start("in order")
    key = host.environment.seal_key()
    assert key is not None
    store = DiskLkg(host.environment.lkg_dir(SERVICE))
    held = opened_lkg(store.read(0) or b"", key, host.environment.fleet_id, SERVICE)
    store.close()
    assert [bytes(raw) for raw in held.trust] == chain
