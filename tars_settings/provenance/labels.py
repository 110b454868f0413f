"""Where a source has a value from, in words: the variable, the file and its line. Looked up only when asked.

Public attributes of pydantic-settings' sources only; what they do not tell is left out rather than guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import AliasChoices, AliasPath, BaseModel

KINDS: Final = {
    "OverrideSettingsSource": "override of a test",
    "InitSettingsSource": "argument",
    "EnvSettingsSource": "environment",
    "DotEnvSettingsSource": "dotenv",
    "SecretsSettingsSource": "secrets directory",
    "NestedSecretsSettingsSource": "secrets directory",
    "CliSettingsSource": "command line",
    "JsonConfigSettingsSource": "file",
    "TomlConfigSettingsSource": "file",
    "YamlConfigSettingsSource": "file",
    "PyprojectTomlConfigSettingsSource": "file",
    "FleetSettingsSource": "fleet",
}
_ASSIGNMENT: Final = re.compile(r"\s*(?:export\s+)?['\"]?([^='\"\s#]+)['\"]?\s*(?:=|$)")


def kind_of(name: str) -> str:
    """Return what a source is called by its class's name; a user's own keeps its name."""
    return KINDS.get(name, name)


def source_named(chain: tuple[Any, ...], name: str) -> Any:
    """Return the source object with this name, None where the chain is not known or does not hold it."""
    return next((one for one in chain if getattr(one, "__name__", type(one).__name__) == name), None)


def where_of(source: Any, name: str, model: type, key: str) -> str:
    """Return the variable, file or line from which *source* has a key, empty where it can't be told."""
    if source is None:
        return ""
    kind = kind_of(name)
    if kind == "environment":
        return _variable(source, model, key)
    if kind == "dotenv":
        return _line(source, model, key)
    if kind == "secrets directory":
        return _secret_file(source, model, key)
    if kind == "file":
        return next((str(value) for value in _paths(source) if value), "")
    return ""


def _paths(source: Any) -> Iterator[Any]:
    for name in ("json_file_path", "toml_file_path", "yaml_file_path"):
        value = getattr(source, name, None)
        yield ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def variables(source: Any, model: type, key: str) -> Iterator[str]:
    """Yield the variable names, as the source spells them, that may hold a key: the most exact first."""
    top, *rest = key.split(".")
    if not issubclass(model, BaseModel) or top not in model.model_fields:
        yield from (_fold(source, f"{getattr(source, 'env_prefix', '') or ''}{top}"), _fold(source, top))
        return
    delimiter = getattr(source, "env_nested_delimiter", None)
    for depth in range(len(rest) if delimiter else 0, -1, -1):
        for base in _bases(source, model, top):
            yield _fold(source, (delimiter or "").join([base, *rest[:depth]]))


def _bases(source: Any, model: type[BaseModel], top: str) -> Iterator[str]:
    prefix = getattr(source, "env_prefix", "") or ""
    target = getattr(source, "env_prefix_target", "variable")
    alias = model.model_fields[top].validation_alias
    for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        text = str(choice.path[0]) if isinstance(choice, AliasPath) else choice
        if text is not None:
            yield (prefix if target in ("alias", "all") else "") + text
    if target in ("variable", "all"):
        yield prefix + top
    yield top


def _fold(source: Any, name: str) -> str:
    return name if getattr(source, "case_sensitive", False) else name.lower()


def _used(source: Any, model: type, key: str) -> str | None:
    held = getattr(source, "env_vars", None) or {}
    return next((name for name in variables(source, model, key) if name in held), None)


def _variable(source: Any, model: type, key: str) -> str:
    used = _used(source, model, key)
    if used is None:
        return ""
    return next((name for name in os.environ if _fold(source, name) == used), used)


def _line(source: Any, model: type, key: str) -> str:
    used = _used(source, model, key)
    files = getattr(source, "env_file", None)
    if used is None or files is None:
        return used or ""
    several = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    for file in reversed(several):
        found = _line_in(source, Path(file).expanduser(), used)
        if found:
            return found
    return used


def _line_in(source: Any, path: Path, used: str) -> str:
    found = ""
    try:
        lines = path.read_text(getattr(source, "env_file_encoding", None) or "utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    for number, line in enumerate(lines, 1):
        match = _ASSIGNMENT.match(line)
        if match is not None and _fold(source, match[1]) == used:
            found = f"{path}:{number} {match[1]}"
    return found


def _secret_file(source: Any, model: type, key: str) -> str:
    directories = getattr(source, "secrets_dir", None)
    if directories is None:
        return ""
    several = [directories] if isinstance(directories, (str, os.PathLike)) else list(directories)
    wanted = set(variables(source, model, key))
    for directory in reversed(several):
        try:
            names = os.listdir(Path(directory).expanduser())
        except OSError:
            continue
        for name in names:
            if _fold(source, name) in wanted:
                return str(Path(directory) / name)
    return ""
