"""What a key takes, and which key may have been meant: what a complaint ends with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

from tars_settings.core.names import is_key
from tars_settings.schema import Entry, entries_of, is_model, keys_of, variables_of

_AT_MOST: Final = 3
_INDENT: Final = "    "


def is_known(schemas: Iterable[bytes], key: str) -> bool:
    """Return whether any schema has a key, or something that holds it.

    >>> is_known([b'{"properties":{"a":{"type":"object"}}}'], "a.b"), is_known([], "a")
    (True, False)
    """
    return any(key == one or key.startswith(one + ".") for schema in schemas for one in keys_of(schema))


def allowed(schemas: Iterable[bytes], key: str) -> str:
    """Return in words what a key takes: type, limits, default and examples; empty where no schema has it.

    >>> allowed([b'{"properties":{"a":{"type":"number","maximum":1,"default":0.5}}}'], "a")
    'allowed: number, at most 1; default 0.5'
    """
    told = [one for schema in schemas for one in _in(schema, key)]
    return " or ".join(dict.fromkeys(told)) and f"allowed: {' or '.join(dict.fromkeys(told))}"


def _in(schema: bytes, key: str) -> Iterable[str]:
    entries = entries_of(schema)
    if is_model(schema, key):
        inner = [one.key.removeprefix(f"{key}.") for one in entries if one.key.startswith(f"{key}.")]
        yield f"an object of {', '.join(inner)}"
        return
    yield from (_told(one) for one in entries if one.key == key)


def _told(entry: Entry) -> str:
    default = f"; default {entry.default}" if entry.default else ""
    examples = f"; for example {', '.join(entry.examples)}" if entry.examples else ""
    as_json = '; in words and .env files as JSON, such as ["a", "b"]' if entry.type.startswith("list") else ""
    return f"{entry.told}{default}{examples}{as_json}"


def similar(schemas: Sequence[bytes], key: str) -> tuple[str, ...]:
    """Return the keys that may have been meant, the likeliest first; at most three.

    >>> similar([b'{"properties":{"vad_threshold":{},"gain":{}}}'], "vad_treshold")
    ('vad_threshold',)
    """
    known = {one.lower(): one for schema in schemas for one in keys_of(schema)}
    known |= {name.lower(): one for schema in schemas for name, one in variables_of(schema).items()}
    wanted = key.lower().replace("__", ".")
    same_end = [one for lowered, one in known.items() if lowered.rpartition(".")[2] == wanted]
    close = difflib.get_close_matches(wanted, known, n=_AT_MOST, cutoff=0.6)
    return tuple(dict.fromkeys([*same_end, *(known[one] for one in close)]))[:_AT_MOST]


def meant(schemas: Sequence[bytes], key: str) -> str:
    """Return the question whether another key was meant; empty where none comes near."""
    found = similar(schemas, key)
    return f"did you mean {' or '.join(found)}?" if found else ""


def with_allowed(message: str, schemas: Sequence[bytes]) -> str:
    """Return complaints, one ``key: reason`` a line, each followed by what is allowed or which key may be meant."""
    lines: list[str] = []
    for line in message.splitlines():
        lines.append(line)
        key, colon, _ = line.partition(": ")
        if colon and is_key(key):
            hint = allowed(schemas, key) if is_known(schemas, key) else meant(schemas, key)
            lines += [_INDENT + hint] if hint else []
    return "\n".join(lines)
