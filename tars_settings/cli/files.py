"""What a file or standard input sets, before any schema was asked: ``.env``, JSON, YAML or TOML."""

from __future__ import annotations

import datetime as dt
import importlib
import io
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from dotenv.parser import parse_stream

from tars_settings.cli.envfile import line_of
from tars_settings.errors import ConfigurationError, SurroundingsError, UsageError

STDIN: Final = "-"
MAX_BYTES: Final = 8 * 1024 * 1024
_MAX_DEPTH: Final = 32


class InputFileError(SurroundingsError):
    """A file that was named can't be read."""


@dataclass(frozen=True)
class Content:
    """What a file says: the texts of a ``.env`` file's variables, or a tree of JSON values.

    ``lines`` tells where each variable stands, ``repeated`` those that stand there more than once: the last counts.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    tree: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()


def read_content(name: str, form: str | None) -> Content:
    """Return what a file says, or standard input where the name is ``-``; its format is that of its suffix, or *form*.

    Raises:
        UsageError: its format is not told, or it is not of that format. What it says is never quoted.
        InputFileError: it can't be read.
        ConfigurationError: this Python lacks what reads the format; the message says what to type.
    """
    reader = _FORMATS[form_of(name, form)]
    text = _text_of(name)
    shown = "standard input" if name == STDIN else name
    reason = ""
    try:
        return reader(text)
    except _NotThat as error:
        reason = str(error)
    # Raised out here, and without the content: the context would hold values.
    del text
    raise UsageError(f"{shown}: {reason}")


def form_of(name: str, form: str | None) -> str:
    """Return the format of a file: *form*, else what its suffix says.

    >>> form_of("worker.env", None), form_of(".env", None), form_of("a.yml", None), form_of("-", "json")
    ('env', 'env', 'yaml', 'json')

    Raises:
        UsageError: nothing says so, or no such format is known.
    """
    if form is not None:
        if form not in _FORMATS:
            raise UsageError(f"--format {form}: expected {', '.join(_FORMATS)}")
        return form
    suffix = Path(name).suffix.removeprefix(".") or Path(name).name.removeprefix(".")
    found = {"yml": "yaml"}.get(suffix, suffix)
    if name == STDIN or found not in _FORMATS:
        raise UsageError(f"--file {name}: nothing says of which format it is; say --format {'|'.join(_FORMATS)}")
    return found


def _text_of(name: str) -> str:
    try:
        if name == STDIN:
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputFileError(f"{name} can't be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{name} is over {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8, at byte {error.start}") from None


class _NotThat(Exception):  # noqa: N818 - a signal within this module
    """The text is not of the format; says where, and never what."""


def _env(text: str) -> Content:
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    repeated: dict[str, None] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise _NotThat(f"line {line_of(binding)}: expected NAME=value")
        if binding.key is None or binding.value is None:
            continue
        if binding.key in texts:
            repeated[binding.key] = None
        texts[binding.key] = binding.value
        lines[binding.key] = line_of(binding)
    return Content(texts=texts, lines=lines, repeated=tuple(repeated))


def _json(text: str) -> Content:
    try:
        return _tree(json.loads(text, object_pairs_hook=_once))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _NotThat(f"not JSON, at {where}: {error.msg}") from None
    except RecursionError:
        raise _NotThat("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _NotThat(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found


def _yaml(text: str) -> Content:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise ConfigurationError("YAML is read by PyYAML, which is not installed; type: pip install PyYAML") from None
    try:
        return _tree(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", at line {mark.line + 1} column {mark.column + 1}" if mark is not None else ""
        raise _NotThat(f"not YAML{where}") from None
    except RecursionError:
        raise _NotThat("nested too deeply") from None


def _toml(text: str) -> Content:
    tomllib = _toml_reader()
    try:
        return _tree(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # Its message quotes at most one character, and says where.
        raise _NotThat(f"not TOML: {error}") from None
    except RecursionError:
        raise _NotThat("nested too deeply") from None


def _toml_reader() -> Any:
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigurationError("TOML is read by Python 3.11, or by tomli before; type: pip install tomli")


_FORMATS: Final[Mapping[str, Callable[[str], Content]]] = MappingProxyType(
    {"env": _env, "json": _json, "yaml": _yaml, "toml": _toml}
)


def _tree(value: Any) -> Content:
    if value is None:
        return Content()
    if not isinstance(value, dict):
        raise _NotThat("expected an object of settings, as in {key: value}")
    return Content(tree=_plain(value, "", 0))


def _plain(value: Any, where: str, depth: int) -> Any:
    """Return a JSON value: dates and times as ISO 8601 text; what JSON can't carry is refused by where it stands."""
    if depth > _MAX_DEPTH:
        raise _NotThat(f"{where}: nested too deeply")
    if isinstance(value, dict):
        strangers = [name for name in value if not isinstance(name, str)]
        if strangers:
            raise _NotThat(f"{where or 'the top'}: a name is no text; YAML's yes, no, on, off and numbers need quotes")
        return {name: _plain(one, f"{where}.{name}".lstrip("."), depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, where, depth + 1) for one in value]
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise _NotThat(f"{where}: not a value that JSON can carry")
