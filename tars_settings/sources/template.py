"""A template of a ``.env`` file: which environment variable reaches which setting of a class."""

from __future__ import annotations

import json
import textwrap

from pydantic_settings import BaseSettings

from tars_settings.provenance.fields import steps
from tars_settings.schema.reference import WIDTH, entries_of, title_of


def dotenv(cls: type[BaseSettings], schema: bytes) -> str:
    """Return a template of a ``.env`` file for a class: every variable, commented out but those that must be set.

    *schema* is the class's own. A key that no variable of its own reaches (without ``env_nested_delimiter``) is named
    with its model's variable, which takes JSON.
    """
    lines = [f"# {title_of(schema)}: settings of this host. What is set here wins over the fleet.", ""]
    said: set[str] = set()
    for entry in entries_of(schema):
        name = variable_of(cls, entry.key)
        if name in said:
            continue
        said.add(name)
        whole = variable_of(cls, entry.key, exact=True) == ""
        heading = f"{entry.key}: {entry.text}" if entry.text else entry.key
        lines += [f"# {line}" for line in textwrap.wrap(heading, WIDTH)]
        lines.append("# JSON of the whole model" if whole else f"# {entry.told}{'; a secret' if entry.secret else ''}")
        value = "" if whole or not entry.default else _plain(entry.default)
        lines += [f"{'' if entry.required else '# '}{name}={value}", ""]
    return "\n".join(lines)


def variable_of(cls: type[BaseSettings], key: str, *, exact: bool = False) -> str:
    """Return the environment variable that reaches a key; with *exact* none where only its model's does."""
    config = cls.model_config
    top, _, rest = key.partition(".")
    found = steps(cls, key, {}) or ()
    field = cls.model_fields[top]
    prefix = config.get("env_prefix") or ""
    name = f"{prefix}{top}" if field.validation_alias is None else found[0].inputs[0] if found else top
    delimiter = config.get("env_nested_delimiter")
    if rest and delimiter:
        name = delimiter.join([name, *(one.inputs[0] for one in found[1:])])
    elif rest and exact:
        return ""
    return name if config.get("case_sensitive") else name.upper()


def _plain(default: str) -> str:
    value = json.loads(default)
    if value is None:
        return ""
    return value if isinstance(value, str) and value and not set(value) & set(" #'\"\n") else default
