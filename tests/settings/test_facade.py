"""The package's face: names that are imported when they are used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import tars_settings
from tests.settings.stage import Stage, delta

NOT_FOR_A_START = (
    *("paho", "diskcache", "typer", "rich"),
    *("tars_settings._version", "tars_settings.ports", "tars_settings.schema", "tars_settings.gossip"),
    *("tars_settings.agent", "tars_settings.join", "tars_settings.writer", "tars_settings.testing"),
    *(f"tars_settings.core.{name}" for name in ("audit", "draft", "head", "lastgood", "question", "session", "topics")),
    *(f"tars_settings.trust.{name}" for name in ("cosign", "locked", "seal", "secrets", "succession")),
    *(f"tars_settings.provenance.{name}" for name in ("explanation", "labels")),
    *(f"tars_settings.sources.{name}" for name in ("audit", "failures", "lastgood", "starts", "template", "trials")),
    *(f"tars_settings.adapters.{name}" for name in ("fulltext", "keyfiles", "lkg", "mqtt", "starts")),
    *(f"tars_settings.settings.{name}" for name in ("frozen", "live", "recovery")),
)
"""What a start with a replica that is whole does without: each costs a third of a millisecond and more."""


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_settings_without_a_fleet_import_nothing_that_they_do_not_need() -> None:
    code = (
        "import sys, tars_settings as t\n"
        "class S(t.Settings, service='s'): x: int = 1\n"
        "S(); t.explain(S())\n"
        "print([m for m in ('paho', 'nacl', 'diskcache', 'sqlite3', 'typer', 'rich') if m in sys.modules])"
    )
    assert _run(code) == "[]"
    assert _run("import sys, tars_settings; print('pydantic' in sys.modules)") == "False"


def test_a_start_with_a_replica_imports_only_what_reads_it(stage: Stage) -> None:
    stage.store(delta({"x": 7}, 1))
    code = (
        "import sys, tars_settings as t\n"
        "class S(t.Settings, service='stt-worker'): x: int = 1\n"
        "print(S().x, *sys.modules)"
    )
    value, *modules = _run(code).split()
    assert value == "7"
    assert {"nacl.bindings", "sqlite3", "tars_settings.core.delta", "tars_settings.trust.validity"} <= set(modules)
    assert set(modules).isdisjoint(NOT_FOR_A_START)
    assert all(importlib.util.find_spec(name) for name in NOT_FOR_A_START), "a name of what is no more guards nothing"


@pytest.mark.parametrize("first", ["import tars_settings.join", "from tars_settings.join import Fleet", "t.join"])
def test_join_is_the_function_whoever_imported_the_module_first(first: str) -> None:
    assert _run(f"import tars_settings as t\n{first}\nprint(type(t.join).__name__, t.join.__name__)") == "function join"


def test_every_public_name_is_there() -> None:
    for name in tars_settings.__all__:
        assert getattr(tars_settings, name) is not None
    assert set(tars_settings.__all__) <= set(dir(tars_settings))
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = tars_settings.nothing_of_ours
