"""The table of what brokers can and can't do: measured by the suite, kept beside it, and shown in the documentation.

``measured.json`` holds it. ``pytest tests/conformance -n 0 --learn`` measures it anew and writes both files; otherwise
each cell is measured and compared, so that a broker that learns something fails the suite too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

ALONE: Final = ("mosquitto, MQTT 5", "mosquitto, MQTT 3.1.1", "NATS", "amqtt", "aedes")
MEASURED: Final = Path(__file__).with_name("measured.json")
DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "brokers.rst"
_BEGIN: Final = ".. The table is generated: pytest tests/conformance -n 0 --learn\n"
_END: Final = ".. The generated table ends here.\n"
_SPOKEN_TO_IN_311: Final = ("mosquitto, MQTT 3.1.1", "amqtt")

FACTS: Final = {
    "version 5": "what it answers to CONNECT in MQTT 5",
    "retain as published": "whether a live message says that it is retained; without it audits find lost values",
    "size guard": "whether it keeps messages back that are larger than the reader can take",
    "48 KiB retained": "whether it keeps the largest envelope that there may be",
    "empty clears": "whether an empty retained message clears a topic",
    "wildcard replay": "how many of 3,000 retained messages a wildcard brings at QoS 1; the fleet does not rest on it",
    "replays only what was asked for": "whether a reader is spared what other readers asked for",
    "overlapping filters": "how often a message comes that two subscriptions of a reader match",
    "dot in a topic": "whether it takes topics with a dot; the fleet's have none",
    "last will": "whether it publishes the retained last will of a connection that was lost",
    "kill -9": "what it holds when it is started again after kill -9, as configured here",
    "many keys": "with how many keys a fresh worker was seen to join, and what a wildcard brought of them",
}


def protocol_of(column: str) -> str:
    """Return what the fleet's members are told to speak; amqtt is found out about elsewhere, for it takes seconds."""
    return "3.1.1" if column in _SPOKEN_TO_IN_311 else "auto"


def measured() -> dict[str, dict[str, str]]:
    """Return the cells by fact and column."""
    cells: dict[str, dict[str, str]] = json.loads(MEASURED.read_text())
    return cells


def render(cells: dict[str, dict[str, str]]) -> str:
    """Return the table and its legend as reStructuredText."""
    rows = [("", *ALONE), *((fact, *(cells[fact][column] for column in ALONE)) for fact in FACTS)]
    lines = [".. list-table::", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for row in rows:
        lines += [f"   {'* -' if n == 0 else '  -'} {cell}".rstrip() for n, cell in enumerate(row)]
    lines += ["", *(f"{fact}\n   {meaning}" for fact, meaning in FACTS.items())]
    return "\n".join(lines) + "\n"


def with_table(document: str, cells: dict[str, dict[str, str]]) -> str:
    """Return the page with its table replaced."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{render(cells)}\n{_END}{after}"


def write(cells: dict[str, dict[str, str]]) -> None:
    """Write what was measured into both files; cells that were not measured now stay."""
    merged = measured() if MEASURED.exists() else {}
    for fact, row in cells.items():
        merged.setdefault(fact, {}).update(row)
    ordered = {fact: {column: merged.get(fact, {}).get(column, "?") for column in ALONE} for fact in FACTS}
    MEASURED.write_text(json.dumps(ordered, indent=2) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), ordered))
