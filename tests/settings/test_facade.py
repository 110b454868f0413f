"""The package's face: names that are imported when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tars_settings


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


@pytest.mark.parametrize("first", ["import tars_settings.join", "from tars_settings.join import Fleet", "t.join"])
def test_join_is_the_function_whoever_imported_the_module_first(first: str) -> None:
    assert _run(f"import tars_settings as t\n{first}\nprint(type(t.join).__name__, t.join.__name__)") == "function join"


def test_every_public_name_is_there() -> None:
    for name in tars_settings.__all__:
        assert getattr(tars_settings, name) is not None
    assert set(tars_settings.__all__) <= set(dir(tars_settings))
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = tars_settings.nothing_of_ours
