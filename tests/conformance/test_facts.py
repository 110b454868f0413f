"""Each cell of the table is measured, and is what the table says."""

from __future__ import annotations

import pytest

from tests.conformance.brokers import Broker
from tests.conformance.conftest import Learned
from tests.conformance.probes import PROBES
from tests.conformance.table import ALONE, DOCUMENT, FACTS, measured, with_table


@pytest.mark.parametrize("fact", PROBES)
def test_fact(broker: Broker, column: str, fact: str, learned: Learned) -> None:
    learned(fact, column, PROBES[fact](broker, column))


def test_every_fact_is_measured_for_every_broker() -> None:
    assert set(FACTS) == {*PROBES, "many keys"}, "the last one is measured beside this file"
    assert {fact: set(row) for fact, row in measured().items()} == {fact: set(ALONE) for fact in FACTS}
    assert "?" not in {cell for row in measured().values() for cell in row.values()}


def test_the_documentation_shows_what_was_measured() -> None:
    document = DOCUMENT.read_text()
    assert with_table(document, measured()) == document, "run: pytest tests/conformance -n 0 --learn"
