"""A pytest plugin: our Settings where pydantic-settings' tests say BaseSettings; how they end goes to a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pydantic_settings
import pytest

OURS = "TARS_SETTINGS_DROP_IN"
OUTCOMES = "TARS_SETTINGS_DROP_IN_OUTCOMES"

if os.environ.get(OURS):
    from tars_settings import Settings

    # What the tests import; the package itself holds its own class under other names.
    pydantic_settings.BaseSettings = Settings  # type: ignore[misc]

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's three phases."""
    if report.when == "call" or report.outcome != "passed":
        failed = "failed" in (report.outcome, _outcomes.get(report.nodeid))
        _outcomes[report.nodeid] = "failed" if failed else report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes; only the process that has them all, where several run."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ[OUTCOMES]).write_text(json.dumps(_outcomes))
