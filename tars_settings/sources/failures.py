"""Validation errors without secrets.

pydantic's ``hide_input_in_errors`` hides inputs from ``str`` only: ``errors()``, ``json()``, the context and a
validator's own words still carry them. So errors are built again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from tars_settings.provenance.fields import FieldName, alternatives, has_names, is_secret, names_of

MASK: Final = "**********"
_KNOWN: Final = frozenset(get_args(core_schema.ErrorType))
_OWN_WORDS: Final = frozenset({"value_error", "assertion_error"})
_MIN_CHARS: Final = 3
"""Shorter inputs that are no secrets are not looked for: 'must be at least 1' would lose its 1."""

_SECRET_NAME: Final = re.compile(
    r"pass|pwd|secret|token|key|cred|auth|private|cert|cookie|session|salt|dsn|pin\b", re.IGNORECASE
)
_SECRET_FORM: Final = re.compile(r"://[^/\s]*@|-----BEGIN |^(?:sk|pk|gh[a-z]|xox[a-z]|eyJ)[-_A-Za-z0-9]{8,}")

Location = tuple[int | str, ...]


def lines_of(error: ValidationError) -> list[tuple[Location, str]]:
    """Return the location and the message of each error."""
    return [(line["loc"], line["msg"]) for line in error.errors(include_url=False, include_input=False)]


def without_secrets(error: ValidationError, model: type, secrets: Iterable[str] = ()) -> ValidationError:
    """Return the error built again without anything that is, or may be, a secret.

    ``str()`` shows no input at all, since that is what ends in logs. ``errors()`` has it, as pydantic's users expect,
    where neither the class nor the fleet holds a secret: in a class with one, whoever mixes up two variables has put it
    anywhere. The texts of *secrets* (values that came encrypted, or stand at secret fields) appear in no message. What
    a class does not know may be another program's line in a shared dotenv file: it is masked where its name or its form
    is that of a secret.

    Type, location, message and harmless context (``le``, ``pattern``) stay. Raise it outside of any except block, or
    its ``__context__`` would hold the original.
    """
    known = tuple(secrets)
    guarded = bool(known) or holds_secret(model)
    lines = [
        _guarded(dict(line), known) if guarded else _open(dict(line), model) for line in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, lines, hide_input=True)


def _open(line: dict[str, Any], model: type) -> InitErrorDetails:
    """Return a line of a class without secrets as it is, but for what the class does not know and what looks secret."""
    kind: str = line["type"]
    is_unknown = kind == "extra_forbidden" or (len(line["loc"]) == 1 and _field_at(model, line["loc"]) is None)
    if is_unknown and _looks_secret(str(line["loc"][-1]), line.get("input")):
        return _guarded(line, ())
    details: InitErrorDetails = {"type": kind, "loc": line["loc"], "input": _shown_part(model, line)}
    if kind not in _KNOWN:
        details["type"] = PydanticCustomError(kind, line["msg"], line.get("ctx"))
    elif "ctx" in line:
        details["ctx"] = line["ctx"]
    return details


def _shown_part(model: type, line: dict[str, Any]) -> Any:
    """Return a line's input; of the whole state what the class knows, and what does not look like a secret."""
    found = line.get("input")
    if not isinstance(found, Mapping) or len(line["loc"]) > 1:
        return found
    names = {name for field in names_of(model).values() for name in (field.name, *field.inputs)}
    return {
        name: MASK if name not in names and _looks_secret(str(name), value) else value for name, value in found.items()
    }


def _looks_secret(name: str, value: Any) -> bool:
    """Return whether something that no class describes is probably a secret, by its name or by its form.

    >>> [_looks_secret(*one) for one in (("MQTT_PASSWORD", "x"), ("db", "postgres://me:pw@db/1"), ("color", "red"))]
    [True, True, False]
    """
    return _SECRET_NAME.search(name) is not None or any(_SECRET_FORM.search(text) for text in texts_of(value))


def _guarded(line: dict[str, Any], secrets: tuple[str, ...]) -> InitErrorDetails:
    kind: str = line["type"]
    context: dict[str, Any] = line.get("ctx") or {}
    details: InitErrorDetails = {"type": kind, "loc": line["loc"], "input": MASK}
    message = masked(line["msg"], [*secrets, *_short_texts(line.get("input"))] if _quotes(kind, context) else secrets)
    if kind in _KNOWN - _OWN_WORDS and message == line["msg"]:
        if context:
            details["ctx"] = context
        return details
    # Without context a template's braces stay as they are.
    details["type"] = PydanticCustomError(kind, message)
    return details


def _field_at(model: type, location: Location) -> FieldName | None:
    fields = names_of(model).values() if location else ()
    return next((field for field in fields if location[0] in (field.name, *field.inputs)), None)


def holds_secret(annotation: Any, above: tuple[Any, ...] = ()) -> bool:
    """Return whether a type is a secret, or holds one at any depth."""
    if is_secret(annotation):
        return True
    for one in alternatives(annotation):
        plain = get_origin(one) or one
        fields = names_of(plain).values() if has_names(one) and plain not in above else ()
        if any(holds_secret(field.annotation, (*above, plain)) for field in fields):
            return True
        if any(holds_secret(inner, above) for inner in get_args(one) if inner is not Ellipsis):
            return True
    return False


def _quotes(kind: str, context: Mapping[str, Any]) -> bool:
    """Return whether an error's message may hold parts of its input, beside the model's own constraints."""
    return kind not in _KNOWN or kind in _OWN_WORDS or "error" in context or "tag" in context


def masked(message: str, texts: Iterable[str]) -> str:
    """Return the message with each of *texts* masked, longest first.

    >>> masked("key k-SECRET is bad", ["k-SECRET"])
    'key ********** is bad'
    """
    for spelling in sorted({one for text in texts for one in _spellings(text)}, key=len, reverse=True):
        message = message.replace(spelling, MASK)
    return message


def _spellings(text: str) -> Iterator[str]:
    yield from (one for one in (text, text.strip(), repr(text)[1:-1], text.lower(), text.upper()) if one)


def _short_texts(value: Any) -> list[str]:
    """Return the texts of a single value; a whole model's would take words out of sentences."""
    if isinstance(value, (Mapping, BaseModel)):
        return []
    return [text for text in texts_of(value) if len(text) >= _MIN_CHARS]


def texts_of(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts that a value consists of."""
    if isinstance(value, (SecretStr, SecretBytes)) or hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value).decode("utf-8", "replace")
    if isinstance(value, BaseModel):
        value = vars(value)
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif depth < 8 and isinstance(value, Mapping):
        for one in value.values():
            yield from texts_of(one, depth + 1)
    elif depth < 8 and isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from texts_of(one, depth + 1)


def secret_texts(model: type, state: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts in a source's state (or a model instance) that stand at secret fields."""
    if isinstance(state, BaseModel):
        state = vars(state)
    if not isinstance(state, Mapping) or depth > 8:
        return
    for field in names_of(model).values():
        for name in (*field.inputs, field.name):
            if name not in state:
                continue
            if is_secret(field.annotation):
                yield from texts_of(state[name])
            for kind in alternatives(field.annotation):
                if has_names(kind):
                    yield from secret_texts(get_origin(kind) or kind, state[name], depth + 1)


def add_notes(error: ValidationError, label: Callable[[Location], str | None]) -> None:
    """Add a note to the error for each of its places, saying where the bad value came from."""
    for location in dict.fromkeys(location for location, _ in lines_of(error)):
        text = label(location)
        if text is not None:
            _add_note(error, f"{'.'.join(map(str, location)) or error.title}: {text}")


def _add_note(error: BaseException, text: str) -> None:
    notes: list[str] | None = getattr(error, "__notes__", None)
    if notes is None:
        notes = error.__notes__ = []  # type: ignore[attr-defined] # add_note() is new in 3.11; this is what it does
    notes.append(text)
