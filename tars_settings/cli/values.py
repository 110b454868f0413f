"""``key=value`` as it was typed becomes JSON values: by the model, by the schemas in use, or by its looks."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tars_settings.cli.allowed import is_known
from tars_settings.core.names import check_key
from tars_settings.errors import InvalidValueError, UsageError
from tars_settings.schema import coerce
from tars_settings.settings import Settings


def assignments(words: Sequence[str]) -> dict[str, str]:
    """Return the texts of ``key=value`` words by key.

    Raises:
        UsageError: a word without ``=``, or a key twice.
        IllegalNameError: a key is none.
    """
    texts: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            # Never the word itself: it may be a value whose key was forgotten.
            raise UsageError("an assignment lacks its '=': expected key=value, such as vad_threshold=0.6")
        if check_key(key) in texts:
            raise UsageError(f"{key} is given twice")
        texts[key] = text
    return texts


def model_of(name: str) -> type[Settings]:
    """Return the Settings class that ``module:Class`` names; modules of the working directory are found too.

    Raises:
        UsageError: there is no such module or class, or it is no Settings class.
    """
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        raise UsageError(f"--model {name}: expected module:Class")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise UsageError(f"--model {name}: it is no Settings class")
    return found


def typed(texts: Mapping[str, str], schemas: Sequence[bytes]) -> dict[str, Any]:
    """Return the values, typed by the schemas that workers published; what none of them knows, by its looks.

    Raises:
        InvalidValueError: all that do not fit are named together.
    """
    values, complaints = typed_as_far(texts, schemas)
    if complaints:
        raise InvalidValueError("\n".join(complaints))
    return values


def typed_as_far(texts: Mapping[str, str], schemas: Sequence[bytes]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that fit, as :func:`typed` has them, and what is wrong with the others."""
    complaints: list[str] = []
    values: dict[str, Any] = {}
    for key, text in texts.items():
        known = [schema for schema in schemas if is_known((schema,), key)]
        try:
            values[key] = _agreed(key, [coerce(schema, key, text) for schema in known]) if known else guess(text)
        except InvalidValueError as error:
            complaints.append(str(error))
    return values, complaints


def _agreed(key: str, values: Sequence[Any]) -> Any:
    # Two releases may type one text differently during an upgrade; which is meant must not depend on who came first.
    if any(json.dumps(one, sort_keys=True) != json.dumps(values[0], sort_keys=True) for one in values[1:]):
        raise InvalidValueError(f"{key}: the releases in use type it differently; say which with --model")
    return values[0]


def guess(text: str) -> Any:
    """Return *text* as JSON if it is JSON, else as a string.

    >>> guess("0.6"), guess("base.en"), guess('["a"]'), guess("NaN")
    (0.6, 'base.en', ['a'], 'NaN')
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def checked_keys(names: Iterable[str]) -> tuple[str, ...]:
    """Return keys, each checked.

    Raises:
        IllegalNameError: the first that is none.
        UsageError: one is given twice.
    """
    keys = tuple(check_key(name) for name in names)
    if len(set(keys)) != len(keys):
        raise UsageError("a key is given twice")
    return keys
