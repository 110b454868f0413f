"""The table of what brokers can and can't do: measured by the suite, kept beside it, and shown in the documentation.

``measured.json`` holds it. ``pytest tests/conformance -n 2 --learn`` measures it anew and writes both files; otherwise
each cell is measured and compared, so that a broker that learns something fails the suite too.
"""

from __future__ import annotations

import fcntl
import json
import textwrap
from pathlib import Path
from typing import Final

from tars_settings.cli.brokerwords import FACTS, TOGETHER

ALONE: Final = ("mosquitto, MQTT 5", "mosquitto, MQTT 3.1.1", "NATS", "amqtt", "aedes")
MEASURED: Final = Path(__file__).with_name("measured.json")
DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "brokers.rst"
_BEGIN: Final = ".. The table is generated: tox -e brokers -- --learn\n"
_END: Final = ".. The generated table ends here.\n"
_INDENTED: Final = {"initial_indent": "   ", "subsequent_indent": "   "}
_SPOKEN_TO_IN_311: Final = ("mosquitto, MQTT 3.1.1", "amqtt")

BRIDGED: Final = {"5": "two mosquitto, MQTT 5", "3.1.1": "two mosquitto, MQTT 3.1.1"}
CLUSTER: Final = "three NATS"
COLUMNS_TOGETHER: Final = {
    "conflicting writes and deletes over a cut": tuple(BRIDGED.values()),
    "loss of a member": (CLUSTER,),
}


def protocol_of(column: str) -> str:
    """Return what the fleet's members are told to speak; amqtt is found out about elsewhere, for it takes seconds."""
    return "3.1.1" if column in _SPOKEN_TO_IN_311 else "auto"


def measured() -> dict[str, dict[str, str]]:
    """Return the cells by fact and column."""
    cells: dict[str, dict[str, str]] = json.loads(MEASURED.read_text())
    return cells


def columns_of(fact: str) -> tuple[str, ...]:
    """Return the columns that a fact is measured for."""
    return COLUMNS_TOGETHER.get(fact, ALONE)


def render(cells: dict[str, dict[str, str]]) -> str:
    """Return the tables, what is asked and what the limits mean as reStructuredText."""
    alone = [("", *ALONE), *((fact, *(cells[fact][column] for column in ALONE)) for fact in FACTS)]
    together = [(fact, column, cells[fact][column]) for fact in TOGETHER for column in columns_of(fact)]
    return "\n".join(
        [
            *_table(alone),
            *(f"{name}\n   {fact.asks}" for name, fact in FACTS.items()),
            "",
            *_heading("Together"),
            *_table([("", "Brokers", "Measured"), *together]),
            *(f"{name}\n   {fact.asks}" for name, fact in TOGETHER.items()),
            "",
            *_heading("What the limits mean"),
            *_limits(cells),
        ]
    )


def _heading(text: str) -> list[str]:
    return [text, "-" * len(text), ""]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for row in rows:
        lines += [f"   {'* -' if n == 0 else '  -'} {cell}".rstrip() for n, cell in enumerate(row)]
    return [*lines, ""]


def _limits(cells: dict[str, dict[str, str]]) -> list[str]:
    lines: list[str] = []
    for name, fact in FACTS.items():
        for answer in dict.fromkeys(cells[name].values()):
            if words := fact.limit(answer):
                where = "; ".join(column for column, found in cells[name].items() if found == answer)
                lines += [f"{name}: {answer} ({where})", textwrap.fill(words, 117, **_INDENTED), ""]
    return lines


def with_table(document: str, cells: dict[str, dict[str, str]]) -> str:
    """Return the page with its tables replaced."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{render(cells)}\n{_END}{after}"


def write(cells: dict[str, dict[str, str]]) -> None:
    """Write what was measured into both files; cells that were not measured now stay.

    Each of several processes that test at once writes its own part.
    """
    with MEASURED.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(cells)


def _write(cells: dict[str, dict[str, str]]) -> None:
    merged = measured()
    for fact, row in cells.items():
        merged.setdefault(fact, {}).update(row)
    every = (*FACTS, *TOGETHER)
    ordered = {fact: {column: merged.get(fact, {}).get(column, "?") for column in columns_of(fact)} for fact in every}
    MEASURED.write_text(json.dumps(ordered, indent=2) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), ordered))
