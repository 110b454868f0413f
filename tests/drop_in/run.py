"""Run pydantic-settings' own tests with Settings in place of BaseSettings: ``tox -e drop-in``.

They are fetched from the source distribution of the installed version, run with BaseSettings, then with ours. What
passes with theirs and not with ours is a failure, unless it is named below with its reason; a name that is not needed
is one too.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.drop_in.plugin import OURS, OUTCOMES

ROOT: Final = Path(__file__).parents[2]

_SPELLED: Final = "the test spells the name of the class, BaseSettings, in the warning that it expects"
_TOKEN: Final = (
    "errors() masks what the class does not know and what is called a token: a line of a shared dotenv file may be "
    "another program's secret"
)
EXCEPTIONS: Final = {
    "tests/test_settings.py::test_protected_namespace_defaults": _SPELLED,
    "tests/test_settings.py::test_dotenv_extra_forbid_similar_complex_fields": _TOKEN,
    "tests/test_settings.py::test_dotenv_extra_forbid_similar_union_complex_fields": _TOKEN,
}


def fetch(directory: Path) -> Path:
    """Return the directory of the unpacked source distribution of the installed pydantic-settings."""
    version = importlib.metadata.version("pydantic-settings")
    wanted = f"pydantic-settings=={version}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "pydantic-settings"]
    subprocess.run([*pip, "-d", str(directory), wanted], check=True)
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    print(f"{wanted}, its own tests")
    return directory / archive.name.removesuffix(".tar.gz")


def outcomes(source: Path, *, ours: bool) -> dict[str, str]:
    """Return how each test ends, with our class or with theirs."""
    found = source / ("ours.json" if ours else "theirs.json")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TARS_SETTINGS_")}
    variables |= {"PYTHONPATH": str(ROOT), OUTCOMES: str(found), OURS: "1" if ours else ""}
    options = ["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore", "-p", "tests.drop_in.plugin"]
    # Their documentation's examples need a formatter's exact version; the tests are what is asked.
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", ".", "tests", "--ignore", "tests/test_docs.py"]
    subprocess.run(command, cwd=source, env=variables, check=False, stdout=subprocess.DEVNULL)
    told: dict[str, str] = json.loads(found.read_text())
    # Where a class is a parameter its name is part of the test's.
    return {name.replace("-BaseSettings]", "-Settings]"): outcome for name, outcome in told.items()}


def main() -> int:
    """Compare both runs, print the counts, and return the exit code."""
    with tempfile.TemporaryDirectory() as made:
        source = fetch(Path(made))
        theirs, ours = outcomes(source, ours=False), outcomes(source, ours=True)
    broken = {name for name, outcome in theirs.items() if outcome == "passed" and ours.get(name) != "passed"}
    for name, told in (("BaseSettings", theirs), ("Settings", ours)):
        print(f"{name:12} {list(told.values()).count('passed')} passed of {len(told)}")
    for name in sorted(broken & EXCEPTIONS.keys()):
        print(f"  named exception: {name}: {EXCEPTIONS[name]}")
    for name in sorted(broken - EXCEPTIONS.keys()):
        print(f"  BROKEN: {name}")
    stale = sorted(name for name in EXCEPTIONS if ours.get(name) == "passed")
    for name in stale:
        print(f"  an exception that is none any more: {name}")
    return 1 if broken - EXCEPTIONS.keys() or stale or "passed" not in ours.values() else 0


if __name__ == "__main__":
    sys.exit(main())
