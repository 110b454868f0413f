"""Settings classes of a voice robot's workers, built from a description of them and not by hand.

The description (``settings.json``) and the workers' ``.env`` files lie in a folder beside the checkout or where
TARS_SETTINGS_REAL_INPUT says; where there is none, a small look-alike of the same form stands in.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, create_model
from pydantic_settings import NoDecode

from tars_settings import Settings, SettingsConfigDict

WORKERS = ("router", "stt-worker", "tts-worker")
_SIBLING = Path(__file__).parents[2] / "shared" / "real-input"


def _split(value: Any) -> Any:
    """Lists are written as ``a,b`` or ``a|b`` in an .env file."""
    return [part for part in value.replace("|", ",").split(",") if part] if isinstance(value, str) else value


_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list[str]": Annotated[list[str], NoDecode, BeforeValidator(_split)],
}


@cache
def folder() -> Path:
    """Return the folder with settings.json and the .env files."""
    given = os.environ.get("TARS_SETTINGS_REAL_INPUT")
    if given:
        return Path(given)
    return _SIBLING if (_SIBLING / "settings.json").is_file() else _look_alike()


def dotenv_of(worker: str) -> Path:
    """Return the worker's .env file."""
    return folder() / f"{worker}.env"


@cache
def settings_classes() -> dict[str, type[Settings]]:
    """Return a Settings class for each worker: names, types, defaults, constraints and secrets as described."""
    described = json.loads((folder() / "settings.json").read_text())
    return {worker: _class_of(worker, fields) for worker, fields in described.items()}


def described(worker: str) -> list[dict[str, Any]]:
    """Return the description of a worker's settings."""
    found: list[dict[str, Any]] = json.loads((folder() / "settings.json").read_text())[worker]
    return found


def _class_of(worker: str, fields: list[dict[str, Any]]) -> type[Settings]:
    name = "".join(part.capitalize() for part in worker.split("-"))
    # An operator's .env holds lines for others too.
    config = SettingsConfigDict(service=worker, env_file=dotenv_of(worker), extra="ignore", populate_by_name=True)
    base = type(f"{name}Base", (Settings,), {"model_config": config, "__module__": __name__})
    members: dict[str, Any] = {field["name"]: _field_of(field) for field in fields}
    return create_model(name, __base__=base, __module__=__name__, **members)


def _field_of(described: dict[str, Any]) -> tuple[Any, Any]:
    limits: dict[str, Any] = described["constraints"]
    enforced = limits.get("enforced", False)
    kind = SecretStr if described["secret"] else _TYPES[described["type"]]
    if enforced and "choices" in limits:
        kind = Literal[tuple(limits["choices"])]
    bounds = {"ge": limits["min"]} if enforced and "min" in limits else {}
    bounds |= {"le": limits["max"]} if enforced and "max" in limits else {}
    default = SecretStr(described["default"]) if described["secret"] else described["default"]
    return kind, Field(default=default, validation_alias=described["env"], **bounds)


def _setting(name: str, kind: str, default: Any, *, secret: bool = False, **limits: Any) -> dict[str, Any]:
    return {
        "name": name, "env": name.upper(), "type": kind, "default": default, "constraints": limits, "secret": secret,
    }  # fmt: skip


def _look_alike() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="tars-settings-look-alike-"))
    many = [_setting(f"threshold_{n}", "float", n / 10) for n in range(20)]
    common = [_setting("log_level", "str", "INFO"), _setting("mqtt_url", "str", "mqtt://u:p@h", secret=True), *many]
    workers = {
        "stt-worker": [
            *common,
            _setting("SAMPLE_RATE", "int", 16_000),
            _setting("OPENAI_API_KEY", "str", "", secret=True),
            _setting("vad", "int", 2, min=0, max=3, enforced=True),
            _setting("words", "list[str]", []),
        ],
        "tts-worker": [*common, _setting("provider", "str", "piper", choices=["piper", "cloud"], enforced=True)],
        "router": [*common, _setting("stream", "bool", True), _setting("wake_texts", "list[str]", ["yes", "hm"])],
    }
    (directory / "settings.json").write_text(json.dumps(workers))
    for worker, line in {"stt-worker": "VAD=3", "tts-worker": "PROVIDER=cloud  # why", "router": "STREAM=0"}.items():
        lines = (f"# of {worker}", "LOG_LEVEL=DEBUG", "MQTT_URL=mqtt://localhost", line, "NOT_OURS=1", "")
        (directory / f"{worker}.env").write_text("\n".join(lines))
    return directory
