"""The audit finds what is there, wants a reason for each that stays, and never takes silence for a pass."""

from __future__ import annotations

from typing import Any

from tests.audit import KNOWN, RUNTIME, STAYS, Stays, audited, findings, unjustified


def result(line: str, test: str = "B101", path: str = "tars_settings/core/wire.py") -> dict[str, Any]:
    code = f"6 before\n7     {line}\n8 after\n"
    return {"test_id": test, "filename": path, "line_number": 7, "code": code, "issue_text": "words"}


TABLE = (Stays("B101", "core/wire.py", "assert x", "why not"),)


def test_a_finding_without_a_reason_is_named() -> None:
    for one in (
        result("assert y"),
        result("assert x", "B102"),
        result("assert x", path="/somewhere/tars_settings/core/head.py"),
    ):
        bare, stale = unjustified(findings({"results": [one]}), TABLE)
        assert [str(finding).splitlines()[-1].strip() for finding in bare] == [one["code"].splitlines()[1][2:].strip()]
        assert stale == list(TABLE)
    assert unjustified(findings({"results": [result("assert x  # as ever")]}), TABLE) == ([], [])


def test_a_reason_covers_as_many_as_it_says_and_goes_with_what_it_was_for() -> None:
    assert unjustified([], TABLE) == ([], list(TABLE))
    twice = findings({"results": [result("assert x"), result("assert x")]})
    assert unjustified(twice, TABLE) == ([], list(TABLE))
    assert all(entry.why for entry in STAYS)
    assert len({entry[:3] for entry in STAYS}) == len(STAYS)


def package(name: str, *vulnerabilities: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": [{"id": "PYSEC-1", "aliases": [one]} for one in vulnerabilities]}


def test_a_vulnerability_that_nobody_accounted_for_is_named() -> None:
    asked = [package(name) for name in RUNTIME]
    (known,) = KNOWN
    found = audited({"dependencies": [*asked, package("diskcache", known), package("other", "CVE-1")]})
    assert found.ran
    assert found.unknown == ("other 1: CVE-1, PYSEC-1",)
    assert len(found.known) == 1


def test_what_could_not_be_asked_is_no_pass() -> None:
    skipped = [{"name": name, "skip_reason": "Dependency not found"} for name in RUNTIME]
    assert not audited({"dependencies": skipped}).ran
    assert not audited({"dependencies": [*skipped[1:], package(RUNTIME[0])]}).ran
    assert audited({"dependencies": [package(name) for name in RUNTIME]}).ran
