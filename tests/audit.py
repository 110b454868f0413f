"""``python -m tests.audit``: bandit over the library, and pip-audit over what is installed beside it.

Each finding of bandit that stays is in a table here with the reason why, and so is each known vulnerability; what is
not there fails, and so does an entry that nothing matches any more. pip-audit calls it a success when it could ask
about no package at all: that is told as *not run*, and never as passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
LIBRARY: Final = "tars_settings"
RUNTIME: Final = ("pydantic-settings", "pydantic", "pynacl", "paho-mqtt", "diskcache", "msgspec")

_TYPES: Final = "narrows a type for the checker; nothing is decided by it"
_SQL: Final = "names of tables and columns are constants of the module; every value is a parameter"
_SEEDED: Final = "a simulation has to be repeatable; no key, nonce or token comes from it"
_WORD: Final = "the name of a variable, an option or a file, and no password"
_EDITOR: Final = "the editor that the person at the terminal named, as a list of words, without a shell"
_OWN: Final = "our own interpreter and modules or mosquitto, as a list of words, without a shell"


class Stays(NamedTuple):
    """A finding that stays: bandit's test, the file, what the line says, how often, and why."""

    test: str
    path: str
    line: str
    why: str
    count: int = 1


STAYS: Final = (
    Stays("B106", "adapters/mqtt.py", 'password=""', "an encrypted key is refused, and never asked for at a terminal"),
    Stays("B608", "adapters/tables.py", 'f"INSERT INTO', _SQL),
    Stays("B608", "adapters/tables.py", 'f"DELETE FROM', _SQL),
    Stays("B608", "adapters/tables.py", "f\"SELECT {', '.join(self.columns)}", _SQL),
    Stays("B608", "adapters/fulltext.py", "INSERT INTO texts VALUES ({holes})", "as many question marks as columns"),
    Stays(
        "B608", "adapters/fulltext.py", "{_SNIPPET_TOKENS}) FROM texts", "a number of the module; words are a parameter"
    ),
    Stays("B101", "adapters/replica.py", "assert connection is not None", _TYPES),
    Stays("B101", "cli/conflicts.py", "assert item is not None", _TYPES),
    Stays("B404", "cli/editor.py", "import subprocess", _EDITOR),
    Stays("B603", "cli/editor.py", "subprocess.run(words", _EDITOR),
    Stays("B404", "cli/demo/processes.py", "import subprocess", _OWN),
    Stays("B603", "cli/demo/processes.py", "self._process = subprocess.Popen(", _OWN),
    Stays("B603", "cli/demo/processes.py", "self.process = subprocess.Popen(", _OWN),
    Stays("B101", "cli/demo/processes.py", "assert self.process.stdout is not None", _TYPES),
    Stays("B101", "cli/demo/processes.py", "assert self.process.stdin is not None", _TYPES),
    Stays("B105", "cli/founding.py", '"secret_keys": "secret.keys"', _WORD),
    Stays("B105", "sources/environment.py", '"secret_keys_text": "secret_keys"', _WORD),
    Stays("B105", "sources/environment.py", '"passphrase_text": "passphrase"', _WORD),
    Stays("B105", "sources/environment.py", '"passphrase": "what opens key files', _WORD),
    Stays("B311", "testing/disk.py", "random.randrange(len(self._unsynced) + 1)", _SEEDED),
    Stays("B311", "testing/mesh.py", "self.random = Random(seed)", _SEEDED),
    Stays("B311", "testing/storm.py", "self.random = Random(f", _SEEDED),
    Stays("B101", "testing/invariants.py", "assert peer.replicator is not None", _TYPES, 6),
    Stays("B101", "testing/invariants.py", "assert held is not None", _TYPES),
    Stays("B101", "testing/invariants.py", "assert joiner.replicator is not None", _TYPES),
    Stays("B101", "testing/mesh.py", "assert peer.replicator is not None", _TYPES),
    Stays("B101", "testing/storm.py", "assert witness.replicator is not None", _TYPES),
    Stays("B101", "writer/opentrials.py", "assert delta.trial is not None", _TYPES),
)
KNOWN: Final[Mapping[str, str]] = {
    "CVE-2025-69872": "diskcache unpickles what it reads: our Disk takes bytes only, and tests/adapters/test_lkg.py "
    "plants pickles and file names",
}


class Finding(NamedTuple):
    """What bandit found, and where."""

    test: str
    path: str
    number: int
    line: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.test} {self.text}\n    {self.line}"


def findings(report: Mapping[str, Any]) -> list[Finding]:
    """Return the findings in bandit's JSON, with the line that each points at."""
    return [
        Finding(
            one["test_id"],
            one["filename"].partition(f"{LIBRARY}/")[2],
            one["line_number"],
            _line(one),
            one["issue_text"],
        )
        for one in report["results"]
    ]


def _line(result: Mapping[str, Any]) -> str:
    for numbered in result["code"].splitlines():
        number, _, text = numbered.partition(" ")
        if number == str(result["line_number"]):
            return str(text).strip()
    return ""


def unjustified(found: Iterable[Finding], table: Sequence[Stays] = STAYS) -> tuple[list[Finding], list[Stays]]:
    """Return the findings that no entry of the table covers, and the entries that do not fit what was found."""
    seen: Counter[Stays] = Counter()
    bare = []
    for one in found:
        fits = [entry for entry in table if (entry.test, entry.path) == (one.test, one.path) and entry.line in one.line]
        seen.update(fits[:1])
        bare += [] if fits else [one]
    return bare, [entry for entry in table if seen[entry] != entry.count]


class Audited(NamedTuple):
    """What pip-audit says: packages that it asked about, vulnerabilities of them, and what it skipped."""

    asked: tuple[str, ...]
    unknown: tuple[str, ...]
    known: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def ran(self) -> bool:
        """Whether it asked about every package that the library needs to run."""
        return set(RUNTIME) <= {name.lower() for name in self.asked}


def audited(report: Mapping[str, Any], accounted: Mapping[str, str] = KNOWN) -> Audited:
    """Return what is in pip-audit's JSON."""
    asked, unknown, known, skipped = [], [], [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            skipped.append(package["name"])
            continue
        asked.append(package["name"])
        for vulnerability in package["vulns"]:
            names = {vulnerability["id"], *vulnerability.get("aliases", ())}
            words = f"{package['name']} {package['version']}: {', '.join(sorted(names))}"
            (known if names & accounted.keys() else unknown).append(words)
    return Audited(tuple(asked), tuple(unknown), tuple(known), tuple(skipped))


def _output(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def _bandit() -> bool:
    done = _output("bandit", "-q", "-r", LIBRARY, "-f", "json")
    try:
        report = json.loads(done.stdout)
    except ValueError:
        print(f"bandit: failed: {done.stderr.strip()[-500:]}")
        return False
    bare, stale = unjustified(findings(report))
    for one in bare:
        print(f"not justified: {one}")
    for entry in stale:
        print(f"the table says {entry.count} times, and it is not so: {entry.test} {entry.path}: {entry.line}")
    bad = bool(bare or stale or report["errors"])
    print(f"bandit: {'failed' if bad else 'passed'}: {len(report['results'])} findings, {len(bare)} not justified")
    return not bad


def _pip_audit() -> bool:
    done = _output("pip_audit", "--progress-spinner", "off", "--skip-editable", "-f", "json")
    try:
        found = audited(json.loads(done.stdout))
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["no word"]
        print(f"pip-audit: NOT RUN: {lines[-1][:300]}")
        return True
    for words in found.unknown:
        print(f"vulnerable: {words}")
    for words in found.known:
        print(f"accounted for: {words}")
    if not found.ran:
        print(f"pip-audit: NOT RUN: its service could say something of {len(found.asked)} packages, not of all we need")
        return not found.unknown
    fate = "failed" if found.unknown else "passed"
    print(f"pip-audit: {fate}: {len(found.asked)} packages, {len(found.skipped)} skipped")
    return not found.unknown


if __name__ == "__main__":
    sys.exit(0 if all([_bandit(), _pip_audit()]) else 1)
