"""The session on call can be typed as the page shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.session.run import PAGE, fleet, page, played, skeleton


@pytest.mark.timeout(300)
def test_a_person_on_call_finds_tries_rolls_back_rotates_and_restores(tmp_path: Path) -> None:
    with fleet(tmp_path) as plant:
        typed = page(played(plant))
    assert skeleton(typed) == skeleton(PAGE.read_text()), "type: python -m tests.session.run"
