"""What is shipped, and what is said about it in more than one place."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tars_settings

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "CHANGELOG.rst", "LICENSE", "README.rst", "benchmarks", "docs", "pyproject.toml", "setup.cfg", "tars_settings",
    "tests", "tox.ini",
}  # fmt: skip
RUNTIME = {"diskcache", "msgspec", "paho-mqtt", "pydantic-settings", "pynacl"}
LOOKS = ("typer", "rich", "click", "shellingham")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built without a network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.rst", "LICENSE", "setup.cfg"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "tars_settings", tree / "tars_settings", ignore=shutil.ignore_patterns("__pycache__"))
    program = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(tree.glob("*.whl")))


def _metadata(wheel: zipfile.ZipFile) -> str:
    return wheel.read(next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))).decode()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = ROOT / "tars_settings"
    sources = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")} | {"tars_settings/py.typed"}
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == sources


def test_the_licence_is_shipped(wheel: zipfile.ZipFile) -> None:
    licence = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in _metadata(wheel)


def test_the_version_stands_in_one_place(wheel: zipfile.ZipFile) -> None:
    assert f"\nVersion: {tars_settings.__version__}\n" in _metadata(wheel)
    named = [
        path for path in (ROOT / "tars_settings").rglob("*.py") if f'"{tars_settings.__version__}"' in path.read_text()
    ]
    assert [path.name for path in named] == ["_version.py"]
    assert f'"{tars_settings.__version__}"' not in (ROOT / "pyproject.toml").read_text()


def test_the_plain_library_needs_five_packages(wheel: zipfile.ZipFile) -> None:
    required = re.findall(r"^Requires-Dist: ([\w-]+)([^\n]*)$", _metadata(wheel), re.MULTILINE)
    assert {name.lower() for name, rest in required if "extra ==" not in rest} == RUNTIME


def test_every_public_name_is_there() -> None:
    missing = [name for name in tars_settings.__all__ if not hasattr(tars_settings, name)]
    assert missing == []
    assert set(tars_settings.__all__) <= set(dir(tars_settings))


def test_every_module_can_be_imported_alone() -> None:
    modules = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "tars_settings").rglob("*.py")]
    for module in modules:
        importlib.import_module(".".join(module.parts).removesuffix(".__init__"))


def test_the_command_without_its_extra_says_what_to_type() -> None:
    absent = f"import sys; sys.modules.update(dict.fromkeys({LOOKS!r}))"
    program = f"{absent}; from tars_settings.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'tars-settings[cli]'" in done.stderr


def test_the_command_is_there_as_a_module() -> None:
    command = [sys.executable, "-m", "tars_settings", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "push" in done.stdout


def test_the_top_level_holds_what_it_should() -> None:
    made = {"build", "dist", "tars_settings.egg-info"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - made <= TOP_LEVEL


def test_the_readme_has_two_commands_of_one_line() -> None:
    readme = (ROOT / "README.rst").read_text()
    commands = re.findall(r"::\n\n    ([^\n]+)\n\n", readme)[:2]
    assert commands[0].endswith("-m tars_settings demo")
    assert commands[1] == "./.ci/run"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
