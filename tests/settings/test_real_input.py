"""The workers of a voice robot, with their own names, types, defaults, secrets and .env files."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from tars_settings import Settings, SettingsConfigDict, explain
from tars_settings.provenance.fields import is_secret_key
from tars_settings.schema import coerce, is_secret, keys_of, schema_of, values_for
from tars_settings.settings import SnapshotBuilder
from tests.real_input import WORKERS, described, dotenv_of, settings_classes
from tests.settings.stage import PIN, Stage, delta
from tests.settings.stage import parsed as parsed_delta


@pytest.fixture(params=WORKERS)
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    for field in described(name):
        monkeypatch.delenv(field["env"], raising=False)
    return name


def _plain(cls: type[Settings]) -> type[Settings]:
    return type("Plain", (cls,), {"model_config": SettingsConfigDict(env_file=None), "__module__": __name__})


def _open(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def test_names_types_defaults_and_secrets_are_as_described(worker: str) -> None:
    cls = settings_classes()[worker]
    settings = _plain(cls)()
    fields = described(worker)
    assert list(cls.model_fields) == [field["name"] for field in fields]
    for field in fields:
        value = _open(getattr(settings, field["name"]))
        assert value == field["default"]
        assert isinstance(value, {"list[str]": list}.get(field["type"]) or _type_named(field["type"]))
        assert is_secret_key(cls, field["name"]) is field["secret"]


def _type_named(name: str) -> type:
    return {"str": str, "int": int, "float": float, "bool": bool}[name]


def test_their_env_files_load_and_explain_names_file_and_line(worker: str) -> None:
    settings = settings_classes()[worker]()
    path = dotenv_of(worker)
    from_file = [one for one in explain(settings) if one.winner is not None and one.winner.source == "dotenv"]
    assert from_file
    lines = path.read_text().splitlines()
    for one in from_file:
        assert one.winner is not None
        where, _, name = one.winner.where.partition(" ")
        number = int(where.rpartition(":")[2])
        assert lines[number - 1].startswith(f"{name}=")
    told = str(explain(settings))
    secrets = [_open(getattr(settings, field["name"])) for field in described(worker) if field["secret"]]
    assert not any(str(text) in told for text in secrets if text)


def test_every_setting_can_be_pushed_and_is_applied(worker: str, stage: Stage) -> None:
    cls = _plain(settings_classes()[worker])
    schema = schema_of(cls)
    values = {field["name"]: _other(field) for field in described(worker)}
    assert set(keys_of(schema)) == set(values)
    pushed = values_for(cls, values)
    assert pushed == values
    for key, value in values.items():
        assert coerce(schema, key, value if isinstance(value, str) else json.dumps(value)) == value
        assert is_secret(schema, key) is is_secret_key(cls, key)
    names = list(pushed)
    raws = [
        delta({name: pushed[name] for name in names[at : at + 10]}, at + 1, scope=worker)
        for at in range(0, len(names), 10)
    ]
    stage.store(*raws)
    settings = cls()
    snapshot = (
        SnapshotBuilder(cls, environment=stage.environment, trust=lambda: PIN).build(_view(worker, raws)).snapshot
    )
    for name, value in values.items():
        assert _open(getattr(settings, name)) == _open(getattr(snapshot, name)) == value
        winner = explain(settings, name).winner
        assert winner is not None
        assert winner.source == "fleet"


def _view(worker: str, raws: list[bytes]):  # type: ignore[no-untyped-def]
    from tars_settings.core.names import scopes_of
    from tars_settings.core.register import FleetView, Registers

    registers = Registers()
    for raw in raws:
        registers.offer(parsed_delta(raw))
    return FleetView.of(registers, scopes_of(worker, "pi-3"))


def _other(field: dict[str, object]) -> object:
    """Return a legal value that is not the default."""
    limits, value = field["constraints"], field["default"]
    assert isinstance(limits, dict)
    if "choices" in limits:
        return next(one for one in limits["choices"] if one != value)
    if "max" in limits:
        return limits["max"] if value != limits["max"] else limits.get("min", 0)
    changed = {bool: lambda: not value, int: lambda: value + 1, float: lambda: value + 0.5, list: lambda: ["x", "y"]}  # type: ignore[operator]
    make = changed.get(type(value))
    return make() if make is not None else f"{value}-changed"
