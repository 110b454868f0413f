"""A class's JSON Schema as workers publish it: canonical bytes, keys by field name, secrets marked and never shown."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tars_settings.core.wire import DECODE_ERRORS, short_hash
from tars_settings.errors import MalformedError

SECRET_MARK: Final = "x-tars-secret"
SERVICE_MARK: Final = "x-tars-service"
ENV_MARK: Final = "x-tars-env"
"""On a setting: the variables that reach it whatever the prefix, where it has aliases."""
ENV_PREFIX_MARK: Final = "x-tars-env-prefix"
ENV_DELIMITER_MARK: Final = "x-tars-env-delimiter"
_SECRETS: Final = (Secret, SecretStr, SecretBytes)
_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 256
"""Branches that are looked at for one key: each level of a path multiplies those of a union within a union."""
_JSON: Final = (bool, int, type(None))
Schema = Mapping[str, Any]


class _Generator(GenerateJsonSchema):
    """Describes what can be described: a type that JSON Schema has no word for is left open."""

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        del schema, error_info
        return {}

    def encode_default(self, dft: Any) -> Any:
        """Return a default as it stands in the schema; what is JSON already needs no type adapter made for it."""
        # A third of describing a class of 50 plain fields. A text may hold what can't be encoded: pydantic says so.
        is_json = type(dft) in _JSON or (type(dft) is str and dft.isascii())
        return dft if is_json else super().encode_default(dft)

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Say nothing: a schema is advice."""


def schema_of(cls: type[BaseModel]) -> bytes:
    """Return the class's JSON Schema in canonical form: sorted keys, no blanks.

    Properties are field names, whatever aliases there are. Secret fields carry ``x-tars-secret`` and no default.
    """
    schema = cls.model_json_schema(by_alias=False, schema_generator=_Generator)
    _mark(cls, schema, schema.get("$defs", {}), set())
    _name_variables(cls, schema)
    service = cls.model_config.get("service")
    if service is not None:
        schema[SERVICE_MARK] = service
    return json.dumps(schema, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str).encode()


def schema_hash(schema: bytes) -> str:
    """Return the hash under which a schema is published: 32 hex digits."""
    return short_hash(schema)


def _mark(cls: type[BaseModel], schema: dict[str, Any], definitions: dict[str, Any], seen: set[type]) -> None:
    """Mark the secret fields of a model and of those it holds; take away whatever may show a secret's default."""
    if cls in seen:
        return
    seen.add(cls)
    node = definitions.get(schema["$ref"].rpartition("/")[2], {}) if "$ref" in schema else schema
    properties = node.get("properties", {})
    for name, field in cls.model_fields.items():
        described = properties.get(name)
        if not isinstance(described, dict):
            continue
        if holds_secret(field.annotation):
            described.pop("default", None)
            described.pop("examples", None)
        if is_secret_type(field.annotation):
            described[SECRET_MARK] = True
        for nested in _models_in(field.annotation):
            where = definitions.get(nested.__name__)
            if where is None:
                where = next((one for one in definitions.values() if one.get("title") == nested.__name__), None)
            if where is not None:
                _mark(nested, where, definitions, seen)


def _name_variables(cls: type[BaseModel], schema: dict[str, Any]) -> None:
    """Say which environment variables reach the settings, so that a ``.env`` file can be understood elsewhere."""
    config: Mapping[str, Any] = cls.model_config
    for mark, option in ((ENV_PREFIX_MARK, "env_prefix"), (ENV_DELIMITER_MARK, "env_nested_delimiter")):
        if config.get(option):
            schema[mark] = config[option]
    for name, field in cls.model_fields.items():
        alias = field.validation_alias
        names = [one for one in getattr(alias, "choices", [alias]) if isinstance(one, str)]
        described = schema.get("properties", {}).get(name)
        if names and (config.get("populate_by_name") or config.get("validate_by_name")):
            names.append(f"{config.get('env_prefix') or ''}{name}")
        if names and isinstance(described, dict):
            described[ENV_MARK] = names


def variables_of(schema: bytes, prefix: str | None = None) -> dict[str, str]:
    """Return the environment variables that reach a class's settings, in upper case, and the key of each.

    *prefix* stands in for the class's own ``env_prefix``. Leaves of nested models have a variable only where the class
    has an ``env_nested_delimiter``; a whole model's takes JSON.

    >>> variables_of(b'{"properties":{"gain":{"type":"number"}},"x-tars-env-prefix":"STT_"}')
    {'STT_GAIN': 'gain'}
    """
    root = parse_schema(schema)
    own, delimiter = root.get(ENV_PREFIX_MARK), root.get(ENV_DELIMITER_MARK)
    before = prefix if prefix is not None else own if isinstance(own, str) else ""
    properties = root.get("properties")
    found: dict[str, str] = {}
    for key in keys_of(schema):
        top, *rest = key.split(".")
        if rest and not (isinstance(delimiter, str) and delimiter):
            continue
        node = properties.get(top) if isinstance(properties, dict) else None
        aliases = _list(node.get(ENV_MARK)) if isinstance(node, dict) else []
        for name in aliases or [f"{before}{top}"]:
            if isinstance(name, str):
                found.setdefault(str(delimiter).join([name, *rest]).upper(), key)
    return found


def is_secret_type(annotation: Any) -> bool:
    """Return whether a type is a secret, or a container of secrets."""
    plain = get_origin(annotation) or annotation
    if isinstance(plain, type) and issubclass(plain, _SECRETS):
        return True
    inner = get_args(annotation)[:1] if plain is Annotated else get_args(annotation)
    return any(is_secret_type(one) for one in inner)


def holds_secret(annotation: Any, depth: int = 0) -> bool:
    """Return whether a type is a secret or holds one at any depth."""
    if is_secret_type(annotation) or depth > _MAX_DEPTH:
        return depth <= _MAX_DEPTH
    models = _models_in(annotation)
    return any(holds_secret(field.annotation, depth + 1) for model in models for field in model.model_fields.values())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    for one in inner:
        yield from _models_in(one)


@functools.lru_cache(maxsize=256)
def parse_schema(schema: bytes) -> Schema:
    """Return a schema's content; not to be changed.

    Raises:
        MalformedError: it is no JSON object.
    """
    try:
        parsed = json.loads(schema)
    except DECODE_ERRORS:
        parsed = None
    if not isinstance(parsed, dict):
        raise MalformedError("malformed schema: no JSON object")
    return parsed


def resolve(schema: Schema, root: Schema) -> Schema:
    """Return a schema with its ``$ref`` followed within the document; what leads nowhere is an open schema."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target: Any = root
        for part in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            return {}
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return {}


def branches(schema: Schema, root: Schema, depth: int = 0) -> Iterator[Schema]:
    """Yield what a schema stands for, with references and unions resolved; null is left out."""
    resolved = resolve(schema, root)
    several = [*_list(resolved.get("anyOf")), *_list(resolved.get("oneOf")), *_list(resolved.get("allOf"))]
    if several and depth < _MAX_DEPTH:
        for one in several:
            if isinstance(one, dict):
                yield from branches(one, root, depth + 1)
    elif resolved.get("type") != "null":
        yield resolved


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def keys_of(schema: bytes) -> tuple[str, ...]:
    """Return the dotted keys that a class can be told: its fields, and those of nested models.

    A model that holds itself is followed once.
    """
    root = parse_schema(schema)
    return tuple(dict.fromkeys(_keys(root, root, "", ())))


def _keys(schema: Schema, root: Schema, prefix: str, above: tuple[Any, ...]) -> Iterator[str]:
    for branch in branches(schema, root):
        properties = branch.get("properties")
        if not isinstance(properties, dict) or id(properties) in above:
            continue
        for name, described in properties.items():
            yield prefix + name
            if isinstance(described, dict):
                yield from _keys(described, root, f"{prefix}{name}.", (*above, id(properties)))


def nodes_at(schema: bytes, key: str) -> tuple[Schema, ...]:
    """Return the schemas of a key, one for each branch of unions on the way; none where the class does not have it."""
    root = parse_schema(schema)
    here: list[Schema] = [root]
    for segment in key.split("."):
        below: list[Schema] = []
        for node in here:
            for branch in branches(node, root):
                properties = branch.get("properties")
                more = branch.get("additionalProperties")
                if isinstance(properties, dict) and isinstance(properties.get(segment), dict):
                    below.append(properties[segment])
                elif properties is None and branch.get("type") == "object" and more is not False:
                    below.append(more if isinstance(more, dict) else {})
        here = below[:_MAX_NODES]
    return tuple(here)


def is_secret(schema: bytes, key: str) -> bool | None:
    """Return whether a key is a secret, None where the class does not have it.

    A whole model is secret when anything in it is; what lies below a secret is secret.
    """
    root = parse_schema(schema)
    parts = key.split(".")
    found = nodes_at(schema, key)
    if not found:
        return None
    above = [node for n in range(1, len(parts)) for node in nodes_at(schema, ".".join(parts[:n]))]
    return any(_is_marked(node, root) for node in above) or any(_holds_mark(node, root, set()) for node in found)


def _is_marked(node: Schema, root: Schema) -> bool:
    return any(one.get(SECRET_MARK) is True or one.get("writeOnly") is True for one in (node, *branches(node, root)))


def _holds_mark(node: Schema, root: Schema, seen: set[int]) -> bool:
    """Return whether a node or anything in it is marked; *seen* are the properties that were looked into."""
    if _is_marked(node, root):
        return True
    for branch in branches(node, root):
        properties = branch.get("properties") or {}
        if id(properties) in seen:
            continue
        seen.add(id(properties))
        if any(_holds_mark(one, root, seen) for one in properties.values() if isinstance(one, dict)):
            return True
    return False
