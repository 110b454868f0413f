"""``schema show``, ``schema check`` and ``schema export``: what settings there are, and what they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Final

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.options import ModelOption
from tars_settings.cli.push import published
from tars_settings.cli.render import Table, rows_of, value_text
from tars_settings.cli.session import session
from tars_settings.cli.values import assignments, model_of, typed
from tars_settings.core.names import Scope
from tars_settings.errors import InvalidValueError, RefusedError, UsageError
from tars_settings.schema import check, entries_of, keys_of, markdown, rst, schema_hash, schema_of
from tars_settings.sources.template import dotenv

ServiceArgument = Annotated[
    str | None, typer.Argument(metavar="[SERVICE]", help="Whose settings; or name a class with --model")
]
TargetArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="Whose settings, or - with --model")]
WordsArgument = Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What to check")]
AdvancedOption = Annotated[bool, typer.Option("--advanced", help="Show settings that are called advanced, too")]
FormatOption = Annotated[str, typer.Option("--format", metavar="FORMAT", help="json, env, markdown or rst")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="What settings there are, and what they take.", no_args_is_help=True)
    command(group, "show", show)
    command(group, "check", check_values)
    command(group, "export", export)
    app.add_typer(group, name="schema")


def _pretty(schema: bytes) -> str:
    return json.dumps(json.loads(schema), indent=2, sort_keys=True) + "\n"


_FORMATS: Final[dict[str, Callable[[bytes], str]]] = {"json": _pretty, "markdown": markdown, "rst": rst}


def _schemas(common: Common, service: str | None, model: str | None) -> list[bytes]:
    """Return the class's schema, or those that the service's workers published.

    Raises:
        UsageError: neither a service nor a class is named.
        RefusedError: no worker published any.
    """
    if model is not None:
        return [schema_of(model_of(model))]
    if service is None or service == "-":
        raise UsageError("name a service, or a class with --model module:Class")
    scope = Scope.parse(service)
    with session(common) as writer:
        found = list(dict.fromkeys(published(writer, scope)))
    if not found:
        raise RefusedError(f"no worker of {service} has published a schema; name a class with --model module:Class")
    return found


def show(
    common: Common, service: ServiceArgument = None, model: ModelOption = None, advanced: AdvancedOption = False
) -> int:
    """List a service's settings: type, default, unit, and what they are for. Secrets have no default to show.

    Example: tars-settings schema show stt-worker
    """
    schemas = _schemas(common, service, model)
    told = [(schema_hash(schema), entries_of(schema)) for schema in schemas]
    common.out.document(
        {"schemas": [{"hash": name, "settings": [one.as_dict() for one in entries]} for name, entries in told]}
    )
    for name, entries in told:
        shown = [one for one in entries if advanced or one.complexity == "simple"]
        if len(told) > 1:
            common.out.note(f"schema {name}")
        rows = [
            (one.key, one.told, "(secret)" if one.secret else "(required)" if one.required else one.default, one.text)
            for one in shown
        ]
        common.out.table(Table(("key", "type", "default", "description"), rows_of(rows)))
        if len(shown) < len(entries):
            common.out.note(f"{len(entries) - len(shown)} advanced settings are not shown; see them with --advanced")
    return 0


def check_values(common: Common, service: TargetArgument, words: WordsArgument, model: ModelOption = None) -> int:
    """Check values against every schema in use, without pushing them. Exit code 1 where one does not fit.

    Example: tars-settings schema check stt-worker vad_threshold=0.6
    """
    schemas = _schemas(common, service, model)
    texts = assignments(words)
    complaints: dict[str, list[str]] = {key: [] for key in texts}
    for key, text in texts.items():
        complaints[key] = _complaints(schemas, key, text)
    common.out.document({"checked": [{"key": key, "complaints": told} for key, told in complaints.items()]})
    for key, told in complaints.items():
        common.out.line(f"{key}: {'; '.join(told) or 'fits'}")
    return 1 if any(complaints.values()) else 0


def _complaints(schemas: list[bytes], key: str, text: str) -> list[str]:
    if not any(key == one or key.startswith(f"{one}.") for schema in schemas for one in keys_of(schema)):
        return ["no schema in use has this key"]
    try:
        value = typed({key: text}, schemas)[key]
    except InvalidValueError as error:
        return [str(error).removeprefix(f"{key}: ")]
    return list(dict.fromkeys(one for schema in schemas for one in check(schema, key, value)))


def export(
    common: Common, service: ServiceArgument = None, model: ModelOption = None, form: FormatOption = "json"
) -> int:
    """Print a schema as JSON Schema, a .env template, or a reference in Markdown or reStructuredText.

    Example: tars-settings schema export --model robot.settings:SttSettings --format env
    """
    if form not in (*_FORMATS, "env"):
        raise UsageError(f"--format {form}: expected json, env, markdown or rst")
    if form == "env" and model is None:
        raise UsageError("--format env needs --model module:Class: only the class knows its variables")
    schemas = _schemas(common, service, model)
    if len(schemas) > 1:
        hashes = ", ".join(map(schema_hash, schemas))
        raise RefusedError(f"workers of {service} use {len(schemas)} schemas ({hashes}); name a class with --model")
    text = dotenv(model_of(model), schemas[0]) if form == "env" and model else _FORMATS[form](schemas[0])
    common.out.document({"format": form, "hash": schema_hash(schemas[0]), "text": text})
    common.out.line(value_text(text).rstrip("\n"), exact=True)
    return 0
