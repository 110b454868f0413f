"""What the benchmarks share. Nothing is measured here."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import harness, page, plots
from benchmarks.harness import Answer, BrokenMeasurementError, Goal, excess, ratio, take_turns


def test_all_cases_take_turns_and_none_is_always_first() -> None:
    order: list[str] = []

    def case(name: str, value: float) -> float:
        order.append(name)
        return value

    samples = take_turns({"a": lambda: case("a", 1.0), "b": lambda: case("b", 3.0)}, 4, warm_up=0)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert samples == {"a": [1.0] * 4, "b": [3.0] * 4}


def test_a_ratio_is_taken_within_rounds() -> None:
    # The machine was ten times slower in the second round: a quotient of medians would be 5.5.
    samples = {"ours": [2.0, 20.0, 2.0], "floor": [1.0, 10.0, 1.0]}
    assert ratio(samples, "ours", "floor") == 2.0
    assert excess(samples, "ours", "floor") == 1.0


def test_what_was_not_measured_is_a_row_and_an_undecided_goal() -> None:
    answer = Answer("x", "X", "how")
    answer.add_missing("a peer", "it is not installed")
    assert answer.rows[0].note == "not measured: it is not installed"
    assert Goal("x", "against a peer", None, 1.0).met is None


def test_a_row_without_a_value_is_a_broken_measurement() -> None:
    with pytest.raises(BrokenMeasurementError, match="nothing"):
        Answer("x", "X", "how").add("nothing", "ms", [])


@pytest.mark.parametrize(("measured", "at_most", "met"), [(1.1, True, True), (1.2, True, False), (1.2, False, True)])
def test_a_goal_is_met_or_not(measured: float, at_most: bool, met: bool) -> None:
    assert Goal("x", "x", measured, 1.1, at_most=at_most).met is met


def test_the_page_names_every_goal_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer("reading", "Reading a value", "as it is")
    answer.add("ours_x", "ns", [1.0, 2.0, 3.0])
    answer.add_missing("a peer", "it is not installed")
    answer.goals.append(Goal("read", "ours against the floor", 2.5, 1.1, note="That is why."))
    answer.curves.append(
        harness.Curve("Growth", "keys", "ms", [1.0, 10.0], {"ours": [1.0, None], "floor": [2.0, 20.0]})
    )
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "machine", lambda: {"processor": "a model"})
    harness.keep(answer, full=False, seconds=1.0)
    assert json.loads((tmp_path / "reading.json").read_text())["goals"][0]["met"] is False
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "DOCS", tmp_path)
    monkeypatch.setattr(page, "FIGURES", tmp_path / "performance")
    page.main()
    text = (tmp_path / "performance.rst").read_text()
    for told in ("**no**", "not measured: it is not installed", "2.5 x where at most 1.1 x", "That is why.", "a model"):
        assert told in text
    assert ET.parse(tmp_path / "performance" / "reading-0.svg").getroot().tag.endswith("svg")


def test_a_plot_without_points_is_none() -> None:
    assert plots.svg("x", "x", "y", [1.0], {"ours": [None]}) == ""


def test_the_examples_of_the_harness_hold() -> None:
    assert doctest.testmod(harness).attempted > 0
    assert doctest.testmod(harness).failed == 0
