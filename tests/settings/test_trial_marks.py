"""Facts of what is kept of trials over a restart, and of how old a delta says that it is."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from tars_settings.adapters import starts
from tars_settings.core.trial import TrialMark
from tars_settings.sources.environment import Environment
from tars_settings.sources.trials import TrialStore, age_s
from tars_settings.trust.keys import fleet_text
from tests.fleets import ALICE, delta, set_
from tests.settings.stage import ROOT, SERVICE

MARK = TrialMark("ab" * 32, 5_000, 1_000)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read(fleet=fleet_text(ROOT.public), state_dir=tmp_path / "state")


def test_marks_come_back_as_they_were_kept_and_none_leave_no_file(environment: Environment) -> None:
    store = TrialStore(environment, SERVICE)
    assert store.read() == ()
    store.write([MARK])
    assert store.read() == (MARK,)
    store.write([])
    assert not environment.trials_path(SERVICE).exists()


def test_marks_whose_key_is_gone_are_none(environment: Environment) -> None:
    store = TrialStore(environment, SERVICE)
    store.write([MARK])
    environment.seal_key_path.unlink()
    assert store.read() == ()


def test_marks_that_go_while_they_are_read_are_none(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrialStore(environment, SERVICE)
    store.write([MARK])
    monkeypatch.setattr(starts, "read_whole", lambda _: None)
    assert store.read() == ()


@pytest.mark.parametrize(
    ("at", "expected_s"),
    [
        ("2026-11-27T12:00:00Z", 60.0),
        ("2026-11-27T12:00:00", 60.0),
        ("2026-11-27T14:00:00+02:00", 60.0),
        ("2026-11-27T12:00:00.500Z", 59.5),
        ("2026-11-27T13:00:00Z", 0.0),
        ("noon", 0.0),
        ("", 0.0),
    ],
)
def test_a_delta_is_as_old_as_its_time_says_and_without_a_zone_that_is_utc(at: str, expected_s: float) -> None:
    said = delta(ALICE, 1, set_("a"), at=at)
    assert age_s(said, datetime(2026, 11, 27, 12, 1, tzinfo=timezone.utc)) == expected_s
