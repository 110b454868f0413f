"""Each cell of the table is measured, and is what the table says."""

from __future__ import annotations

import pytest

from tars_settings.cli.brokerwords import FACTS, TOGETHER
from tests.conformance.brokers import Broker
from tests.conformance.conftest import Learned
from tests.conformance.probes import PROBES
from tests.conformance.table import DOCUMENT, columns_of, measured, with_table

ALL = {**FACTS, **TOGETHER}


@pytest.mark.parametrize("fact", PROBES)
def test_fact(broker: Broker, column: str, fact: str, learned: Learned) -> None:
    learned(fact, column, PROBES[fact](broker, column))


@pytest.mark.reads_the_table
def test_every_fact_is_measured_for_every_broker() -> None:
    assert set(FACTS) == {*PROBES, "many keys"}, "the last one is measured beside this file"
    assert {fact: set(row) for fact, row in measured().items()} == {
        fact: set(columns_of(fact)) for fact in (*FACTS, *TOGETHER)
    }
    assert "?" not in {cell for row in measured().values() for cell in row.values()}


@pytest.mark.reads_the_table
def test_every_answer_is_fine_or_has_words() -> None:
    """What a broker can't do is said in the table and by ``doctor``, never passed over."""
    answers = {(fact, answer) for fact, row in measured().items() for answer in row.values() if fact != "many keys"}
    mute = [one for one in answers if one[1] not in ALL[one[0]].fine and not ALL[one[0]].limit(one[1])]
    assert mute == []


@pytest.mark.reads_the_table
def test_the_documentation_shows_what_was_measured() -> None:
    document = DOCUMENT.read_text()
    assert with_table(document, measured()) == document, "run: tox -e brokers -- --learn"
