"""The canary over all files can fail: a run whose tests pass, and which wrote a secret, is a failure."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.canary import FORMS, MARK, forms, holds

ROOT = Path(__file__).resolve().parents[1]
OTHER = "another-canary"
CONFTEST = """
from tests import canary

def pytest_configure(config):
    config.pluginmanager.register(canary)
"""
TESTS = {
    "clean": "def test_clean(tmp_path): (tmp_path / 'a').write_text('nothing')",
    "plain": "def test_plain(tmp_path): (tmp_path / 'leak').write_text('x' * 5000 + MARK)",
    "base64": "def test_base64(tmp_path): (tmp_path / 'leak').write_bytes(base64.b64encode(b'ab' + MARK.encode()))",
    "removed": "def test_removed():\n    with tempfile.TemporaryDirectory() as d: (Path(d) / 'leak').write_text(MARK)",
}


def run(directory: Path, *words: str, tests: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a test of its own, with a mark of its own: this run's canary is not to find it."""
    (directory / "conftest.py").write_text(CONFTEST)
    head = f"import base64, tempfile\nfrom pathlib import Path\nMARK = {OTHER!r}\n"
    (directory / "test_it.py").write_text(head + tests)
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(directory), "-c", os.devnull, *words]
    base = directory / "base"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, f"--basetemp={base}", "-p", "no:cacheprovider", str(directory / "test_it.py")],
        env={**plain, "TESTS_CANARY": OTHER, "PYTHONPATH": str(ROOT)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_run_that_wrote_a_secret_fails_though_its_tests_pass(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, *words, tests="\n".join(TESTS.values()))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert (
        sorted(line.rpartition("/")[2] for line in done.stdout.splitlines() if line.endswith("/leak")) == ["leak"] * 3
    )


def test_a_clean_run_passes_and_says_how_many_files_it_searched(tmp_path: Path) -> None:
    done = run(tmp_path, tests=TESTS["clean"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "canary: 1 files searched" in done.stdout


def test_a_mark_across_two_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.canary.FORMS", forms(OTHER))
    path = tmp_path / "file"
    for before in (0, (1 << 20) - 3, 1 << 20):
        path.write_bytes(b"x" * before + OTHER.encode() + b"y")
        assert holds(path)
    path.write_bytes(b"x" * before + OTHER.encode()[:-1])
    assert not holds(path)


@pytest.mark.parametrize("pad", range(3))
def test_base64_hides_no_mark_wherever_it_begins(pad: int) -> None:
    coded = base64.b64encode(b"z" * pad + MARK.encode() + b"zz")
    assert any(form in coded for form in FORMS)
