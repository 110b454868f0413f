"""Bytes that are nearly right: seeds, changed as bytes, as tokens, and as JSON that stays canonical."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import msgspec

_TOKENS: Final = [
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"9007199254740992",
    b"9" * 400,
    b'""',
    b"[]",
    b"{}",
    b"[" * 40,
    b"]",
    b'{"a":' * 40,
    b"}",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\x00",
    b"\n",
    b"\xe2\x80\x8b",
    b"NaN",
    b"@",
    b"_",
    b"__",
    b".",
    b"..",
    b"/",
    b"+",
    b"#",
    b"$SYS",
    b"*",
    b":",
    b"=",
    b",",
    b"_all",
    b"%s",
    b"{0}",
    b"\x1b[2J",
    b"a" * 300,
]
_VALUES: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**53,
    2**63,
    2**64,
    10**30,
    0.5,
    1e308,
    "",
    "a",
    "\0",
    "\n",
    "_all",
    "a.b",
    "a" * 70,
    "0" * 32,
    "0" * 64,
    "A" * 88,
    "stt-worker@pi",
    "*",
    [],
    {},
    [[]],
    {"a": 1},
    {"$ref": "#"},
    {"$ref": "#/$defs/a"},
]


def mutated(random: Random, seeds: list[bytes]) -> bytes:
    """Return a seed with a few changes; sometimes nothing of it is left."""
    content = random.choice(seeds)
    if random.random() < 0.5:
        content = _json(random, content)
    for _ in range(random.choice((0, 0, 1, 1, 2, 4))):
        content = random.choice(_WAYS)(random, content, seeds)
    return content


def _flip(random: Random, content: bytes, seeds: list[bytes]) -> bytes:
    if not content:
        return b"\0"
    at = random.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]


def _cut(random: Random, content: bytes, seeds: list[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _insert(random: Random, content: bytes, seeds: list[bytes]) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + random.choice(_TOKENS) + content[at:]


def _splice(random: Random, content: bytes, seeds: list[bytes]) -> bytes:
    other = random.choice(seeds)
    return content[: random.randrange(len(content) + 1)] + other[random.randrange(len(other) + 1) :]


def _noise(random: Random, content: bytes, seeds: list[bytes]) -> bytes:
    return random.randbytes(random.randrange(64))


_WAYS: Final = (_flip, _flip, _cut, _insert, _insert, _splice, _noise)


def _json(random: Random, content: bytes) -> bytes:
    """Return a JSON document with a few of its values or names changed, in canonical form; other bytes as they are."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return content
    for _ in range(random.choice((1, 1, 2, 3))):
        tree = _changed(random, tree)
    try:
        return msgspec.json.encode(tree)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return json.dumps(tree).encode()


def _changed(random: Random, node: Any) -> Any:
    if isinstance(node, dict) and node and random.random() < 0.85:
        return _changed_dict(random, dict(node))
    if isinstance(node, list) and node and random.random() < 0.85:
        at = random.randrange(len(node))
        after = [*node[:at], _changed(random, node[at]), *node[at + 1 :]]
        return after + random.choice(([], [], after[-1:], after))
    if isinstance(node, str) and node and random.random() < 0.3:
        return node[:-1] + random.choice(("A", "0", "\n", "é", ""))
    if isinstance(node, int) and random.random() < 0.5:
        return node + random.choice((-1, 1, 100))
    return random.choice(_VALUES)


def _changed_dict(random: Random, node: dict[str, Any]) -> dict[str, Any]:
    name = random.choice(list(node))
    what = random.random()
    if what < 0.1:
        del node[name]
    elif what < 0.2:
        node[random.choice(("x", "$ref", "anyOf", "unset", "set", "cosig", ""))] = random.choice(_VALUES)
    else:
        node[name] = _changed(random, node[name])
    return node
