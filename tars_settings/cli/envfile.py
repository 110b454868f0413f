"""An ordinary ``.env`` file, line by line: what it sets, and what must be said of the other lines.

Read as python-dotenv reads it, which is how a worker read it so far, but nothing is looked up: ``${HOME}`` is known to
the worker's host alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from dotenv.parser import Binding, parse_stream

from tars_settings.errors import ReplicaError, UsageError
from tars_settings.sources.environment import PREFIX as OURS

Why = Literal[
    "comment",
    "commented out",
    "malformed",
    "no value",
    "empty",
    "repeated",
    "interpolation",
    "pem",
    "ours",
    "unknown",
    "undescribed",
    "does not fit",
]

WORDS: Final = MappingProxyType(
    {
        "comment": "a comment",
        "commented out": "commented out",
        "malformed": "it is not of the form NAME=VALUE",
        "no value": "it has no '='",
        "empty": "it is empty, which says nothing of a type; push it where an empty text is meant",
        "interpolation": "it refers to another variable, which only the worker's host knows; push the value itself",
        "pem": "a PEM with \\n outside of double quotes would stay one line; put it into double quotes",
        "ours": "it says where and whom to trust, and stays in this file",
    }
)
_REFERENCE: Final = re.compile(r"\$\{[^}]*\}")
_COMMENTED_OUT: Final = re.compile(r"#+\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=")
_MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Line:
    """A line that sets something. Its value is not for showing: it may be a secret."""

    number: int
    name: str
    value: str


@dataclass(frozen=True)
class Left:
    """A line that was left, and why; ``name`` is empty where it has none."""

    number: int
    name: str
    why: Why
    message: str


@dataclass(frozen=True)
class EnvFile:
    """What a file sets, in the order of its lines; what was left; and what else there is to say, by line."""

    lines: tuple[Line, ...]
    left: tuple[Left, ...]
    notes: tuple[tuple[int, str], ...]


def read_env(path: Path) -> EnvFile:
    """Return what a ``.env`` file holds.

    Raises:
        ReplicaError: it can't be read.
        UsageError: it is no text, or larger than any such file.
    """
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise ReplicaError(f"{path} can't be read: {error.strerror or error}") from error
    if len(content) > _MAX_BYTES:
        raise UsageError(f"{path} is too large for a .env file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # raised out here: the other's object attribute would hold the content
        raise UsageError(f"{path} is no text; expected lines of NAME=VALUE")
    return parse_env(text)


def parse_env(text: str) -> EnvFile:
    r"""Return what the text of a ``.env`` file holds.

    >>> found = parse_env("# ours\nA=1\nB=\nA=2\n")
    >>> [(line.number, line.name) for line in found.lines], [(one.number, one.why) for one in found.left]
    ([(4, 'A')], [(1, 'comment'), (2, 'repeated'), (3, 'empty')])
    """
    lines: dict[str, Line] = {}
    left: list[Left] = []
    notes: list[tuple[int, str]] = []
    for binding in parse_stream(io.StringIO(text)):
        number = line_of(binding)
        if binding.key is None:
            left += _nameless(binding, number)
            continue
        if (earlier := lines.pop(binding.key, None)) is not None:
            left.append(repeated(earlier, number))
        why = _fault(binding.key, binding.value)
        if why is not None:
            left.append(Left(number, binding.key, why, WORDS[why]))
            continue
        lines[binding.key] = Line(number, binding.key, binding.value or "")
        notes += ((number, note) for note in _notes(binding))
    return EnvFile(tuple(lines.values()), tuple(sorted(left, key=lambda one: one.number)), tuple(notes))


def repeated(earlier: Line, number: int) -> Left:
    """Return what is to be said of a line that a later one makes void."""
    return Left(earlier.number, earlier.name, "repeated", f"line {number} sets it again, and the last one counts")


def line_of(binding: Binding) -> int:
    """Return the line where a binding itself begins."""
    # A binding begins with the blank lines before it.
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _nameless(binding: Binding, number: int) -> Iterable[Left]:
    text = binding.original.string.strip()
    if binding.error:
        yield Left(number, "", "malformed", WORDS["malformed"])
    elif (found := _COMMENTED_OUT.match(text)) is not None:
        yield Left(number, found[1], "commented out", WORDS["commented out"])
    elif text:
        yield Left(number, "", "comment", WORDS["comment"])


def _fault(name: str, value: str | None) -> Why | None:
    if name.upper().startswith(OURS):
        return "ours"
    if value is None:
        return "no value"
    if value == "":
        return "empty"
    if _REFERENCE.search(value):
        return "interpolation"
    return "pem" if "-----BEGIN" in value and "\\n" in value else None


def _notes(binding: Binding) -> Iterator[str]:
    text = binding.original.string.strip()
    after = text.partition("=")[2].strip()
    if text.startswith("export "):
        yield f"{binding.key}: the word 'export' was passed over"
    if after[:1] in ("'", '"'):
        return
    if re.search(r"\s#", after):
        yield f"{binding.key}: what follows ' #' was taken for a comment; put the value into quotes where it is none"
    elif "#" in after:
        yield f"{binding.key}: the '#' is part of the value"
