"""docs/performance.rst from what the benchmarks kept: ``python -m benchmarks.page``. Nothing is measured here."""

from __future__ import annotations

import json
import sys

from benchmarks import plots
from benchmarks.harness import RESULTS, ROOT, Json, number

DOCS = ROOT / "docs"
FIGURES = DOCS / "performance"
ORDER = (
    *("reading", "constructing", "importing", "cold_start", "one_change", "pushing", "joining"),
    *("deltas", "resting", "repair_traffic", "simulating", "growth"),
)
HEAD = """\
Performance
===========

.. This page is written by ``python -m benchmarks.page`` from ``benchmarks/results``; change it there.

What settings cost, measured against the floor that libsodium, the broker and SQLite set, and against what people pick
instead, side by side in one run. Figures of one machine drift by tens of percent from run to run; the ratios are what
to hold on to, and each is the median over rounds in which all cases took turns.

Run it with ``tox -e bench`` (the short form), ``tox -e bench -- --full``, or one question with
``python -m benchmarks.reading``. A benchmark fails where a measurement is broken; it never fails because of a time.
"""


def main() -> int:
    found = [document for name in ORDER if (document := _load(name)) is not None]
    FIGURES.mkdir(exist_ok=True)
    for old in FIGURES.glob("*.svg"):
        old.unlink()
    parts = [HEAD, _goals(found), *(_section(document) for document in found), _machine(found)]
    (DOCS / "performance.rst").write_text("\n".join(parts))
    print(f"docs/performance.rst: {len(found)} of {len(ORDER)} questions")
    return 0


def _load(name: str) -> Json | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _goals(found: list[Json]) -> str:
    rows = [(goal, document) for document in found for goal in document["goals"]]
    met = sum(1 for goal, _ in rows if goal["met"])
    lines = [
        "Goals",
        "-----",
        "",
        f"{met} of {len(rows)} are met; the others say below by how much they are not, and why.",
        "",
    ]
    lines += _table(
        ("question", "measured as", "wanted", "found", "met"),
        [_goal_cells(goal) for goal, _ in rows],
        (22, 38, 14, 14, 12),
    )
    return "\n".join(lines)


def _goal_cells(goal: Json) -> tuple[str, ...]:
    sign = "at most" if goal["at_most"] else "at least"
    unit = "" if goal["unit"] == "x" else f" {goal['unit']}"
    times = " x" if goal["unit"] == "x" else unit
    word = {True: "yes", False: "**no**", None: "not measured"}[goal["met"]]
    return (
        goal["question"],
        goal["text"],
        f"{sign} {number(goal['limit'])}{times}",
        f"{number(goal['measured'])}{times}",
        word,
    )


def _section(document: Json) -> str:
    title = document["title"]
    lines = ["", title, "-" * len(title), "", f"{document['how'][0].upper()}{document['how'][1:]}.", ""]
    lines += _table(
        ("what", "median", "first to last decile", "rounds", "whose"),
        [_row_cells(row) for row in document["rows"]],
        (46, 16, 20, 8, 10),
    )
    for curve_number, curve in enumerate(document["curves"]):
        name = f"{document['question']}-{curve_number}.svg"
        drawn = plots.svg(curve["title"], curve["x_label"], curve["y_label"], curve["x"], curve["lines"])
        if drawn:
            (FIGURES / name).write_text(drawn)
            lines += [
                "",
                f".. figure:: performance/{name}",
                f"   :alt: {curve['title']}",
                "",
                f"   {curve['title']}; both axes are logarithmic.",
            ]
    notes = [*document["notes"], *_missed(document)]
    if notes:
        lines += ["", *(f"* {_plain(note)}" for note in notes)]
    return "\n".join([*lines, ""])


def _missed(document: Json) -> list[str]:
    told = []
    for goal in document["goals"]:
        if goal["note"] or goal["met"] is False:
            word = "" if goal["met"] is not False else f" Missed: {_by_how_much(goal)}."
            told.append(f"{goal['text'][0].upper()}{goal['text'][1:]}:{word} {goal['note']}".strip())
    return told


def _by_how_much(goal: Json) -> str:
    measured, limit = goal["measured"], goal["limit"]
    unit, word = goal["unit"], "at most" if goal["at_most"] else "at least"
    return f"{number(measured)} {unit} where {word} {number(limit)} {unit} was wanted"


def _row_cells(row: Json) -> tuple[str, ...]:
    if row["median"] is None:
        return (row["what"], "-", row["note"], "-", row["role"])
    spread = f"{number(row['low'])} to {number(row['high'])}" if row["count"] > 1 else ""
    return (row["what"], f"{number(row['median'])} {row['unit']}", spread, str(row["count"]), row["role"])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], widths: tuple[int, ...]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (head, *rows):
        lines += [f"   {'* -' if not at else '  -'} {_plain(cell)}".rstrip() for at, cell in enumerate(row)]
    return [*lines, ""]


def _plain(text: str) -> str:
    """Return text in which nothing but our own bold is markup."""
    kept = text.replace("\\", "\\\\").replace("`", "'").replace("_", "\\_")
    return kept if kept == "**no**" else kept.replace("*", "\\*").replace("|", "\\|")


def _machine(found: list[Json]) -> str:
    lines = ["", "Machine and versions", "--------------------", ""]
    machines: list[dict[str, str]] = []
    for document in found:
        if document["machine"] not in machines:
            machines.append(document["machine"])
    for machine in machines:
        names = [document["question"].replace("_", " ") for document in found if document["machine"] == machine]
        lines += [f"For {', '.join(names)}:", ""]
        lines += _table(("what", "version"), list(machine.items()), (24, 76))
    forms = {document["form"] for document in found}
    days = sorted({document["at"] for document in found})
    lines += [f"Form: {' and '.join(sorted(forms))}. Measured on {' and '.join(days)}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
