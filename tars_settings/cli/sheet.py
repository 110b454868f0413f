"""The text that ``edit`` opens: a line ``key = JSON`` for each value, comments that say what it takes, and back."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tars_settings.cli.render import MASK, printable
from tars_settings.core.names import is_key, overlap
from tars_settings.schema import Entry, entries_of

_WIDTH: Final = 100
_ERROR: Final = "#! "
_LINE: Final = re.compile(r"[ \t]*([^\s=#]+)[ \t]*=[ \t]*")
_REST: Final = re.compile(r"[ \t]*(#[^\n]*)?(\n|\Z)")
_BLANK: Final = re.compile(r"[ \t]*(#[^\n]*)?(\n|\Z)")


@dataclass(frozen=True)
class Row:
    """One value as it stands in the text: the JSON value that may be shown, and the scope that says it."""

    key: str
    value: Any
    scope: str


class SheetError(Exception):
    """A text that is no sheet: what is wrong with it, a line for each."""

    def __init__(self, complaints: Sequence[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = tuple(complaints)


def written(title: str, rows: Iterable[Row], schemas: Sequence[bytes], own_scope: str) -> str:
    """Return the sheet of some values; settings that the fleet does not say follow, commented out."""
    entries = {entry.key: entry for schema in schemas for entry in entries_of(schema)}
    rows = list(rows)
    head = (
        f"{title}. Change a value to set it, take a line out to unset it, write a line to set another key. "
        f"Values are JSON: texts stand in double quotes. {MASK} stands for a secret; it stays as it is unless replaced."
    )
    lines = [*(f"# {line}" for line in textwrap.wrap(head, _WIDTH)), ""]
    for row in rows:
        lines += _about(row.key, entries.get(row.key))
        if row.scope != own_scope:
            lines.append(f"# set by {row.scope}; changed here it is set by {own_scope}")
        lines += [f"{row.key} = {json_text(row.value)}", ""]
    unset = [entry for key, entry in entries.items() if not any(overlap(key, row.key) for row in rows)]
    if unset:
        lines += ["# --- what the fleet does not say ---", ""]
    for entry in unset:
        lines += [*_about(entry.key, entry), f"# {entry.key} = {entry.default or '...'}", ""]
    return "\n".join(lines)


def json_text(value: Any) -> str:
    r"""Return JSON on one line that an editor shows as it is: what steers or hides is escaped.

    >>> print(json_text("ä\u202e\u2028"))
    "ä\u202e\u2028"
    """
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _about(key: str, entry: Entry | None) -> list[str]:
    if entry is None:
        return [f"# {key}: no worker described it"]
    default = f"; default {entry.default}" if entry.default else ""
    examples = f"; for example {', '.join(entry.examples)}" if entry.examples else ""
    secret = "; a secret" if entry.secret else ""
    # One line that a person can skip; a schema is a stranger's word, and must not become a line of its own.
    told = printable(f"{entry.description.strip() or key}: {entry.told}{secret}{default}{examples}")
    return [f"# {line}" for line in textwrap.wrap(told, _WIDTH)]


def parsed(text: str) -> dict[str, Any]:
    r"""Return the values of a sheet by key. A value may span lines.

    >>> parsed('# note\na.b = {"x":\n 1}  # why\nc = "d"\n')
    {'a.b': {'x': 1}, 'c': 'd'}

    Raises:
        SheetError: lines that are none, keys that can be none or are there twice. Values are not quoted.
    """
    values: dict[str, Any] = {}
    complaints: list[str] = []
    position = 0
    while position < len(text):
        blank = _BLANK.match(text, position)
        if blank is not None:
            position = max(blank.end(), position + 1)
            continue
        line = text.count("\n", 0, position) + 1
        complaint, end = _take(text, position, values)
        if complaint:
            complaints.append(f"line {line}: {complaint}")
        position = end
    if complaints:
        raise SheetError(complaints)
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_decoder: Final = json.JSONDecoder(parse_constant=_no_constant)


def _take(text: str, position: int, values: dict[str, Any]) -> tuple[str, int]:
    """Take one assignment in; return what is wrong with it, and where the next line begins."""
    next_line = text.find("\n", position) + 1 or len(text)
    found = _LINE.match(text, position)
    if found is None:
        return "expected key = JSON value", next_line
    key = found[1]
    if not is_key(key):
        return f"{printable(key)[:80]} can be no key", next_line
    try:
        value, end = _decoder.raw_decode(text, found.end())
    except (ValueError, RecursionError):
        return f"{key}: its value is no JSON; texts stand in double quotes", next_line
    rest = _REST.match(text, end)
    if rest is None:
        return f"{key}: something follows its value", next_line
    if key in values:
        return f"{key} is there twice", rest.end()
    values[key] = value
    return "", rest.end()


def with_errors(text: str, complaints: str) -> str:
    """Return a sheet with what is wrong with it on top; what stood there of an earlier round goes."""
    marked = [f"{_ERROR}{printable(line)}" for line in complaints.splitlines()]
    return "\n".join([f"{_ERROR}Nothing was pushed. Put this right, or empty the file to give up:", *marked, ""]) + (
        without_errors(text)
    )


def without_errors(text: str) -> str:
    """Return a sheet without what :func:`with_errors` put on top."""
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith(_ERROR.rstrip()):
        del lines[0]
    return "".join(lines)


def kept(text: str, secret: Iterable[str]) -> str:
    """Return the values of a sheet as they may be kept in a file: without comments, and secrets masked.

    Raises:
        SheetError: it is none.
    """
    values = parsed(text)
    hidden = {key: MASK if key in set(secret) else value for key, value in values.items()}
    return "".join(f"{key} = {json_text(value)}\n" for key, value in hidden.items())


def changes(before: Mapping[str, Row], after: Mapping[str, Any], own_scope: str) -> tuple[dict[str, Any], list[str]]:
    """Return what was set and what was unset between two states of a sheet.

    Raises:
        SheetError: lines that can't be pushed: what another scope says can't be unset here, and neither a key and a
            part of it be changed at once.
    """
    put = {key: value for key, value in after.items() if key not in before or not _same(before[key].value, value)}
    gone = [key for key in before if key not in after]
    # Setting a whole model takes what was said of its parts away by itself.
    gone = [key for key in gone if not any(key.startswith(f"{whole}.") for whole in put)]
    complaints = [
        f"{key}: {before[key].scope} sets it; unset it there" for key in gone if before[key].scope != own_scope
    ]
    keys = [*put, *gone]
    complaints += [
        f"{key}: {other} is a part of it; push one after the other"
        for key in keys
        for other in keys
        if other.startswith(f"{key}.")
    ]
    complaints += [
        f"{key}: {MASK} stands for a secret that is there already; give a value"
        for key, value in put.items()
        if value == MASK
    ]
    if complaints:
        raise SheetError(complaints)
    return put, gone


def _same(first: Any, second: Any) -> bool:
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
