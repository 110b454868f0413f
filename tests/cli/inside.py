"""The command line and its workers within this process, over a real broker: what most facts can be seen by, quickly."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from pydantic import BaseModel, Field

from tars_settings.cli.app import run as run_app
from tars_settings.cli.demo.workers import MODELS
from tars_settings.join import Fleet, Live
from tars_settings.settings import Settings, SettingsConfigDict
from tars_settings.writer import Writer
from tests.brokers import Mosquitto, eventually
from tests.cli.running import Done
from tests.integration.fleets import TestFleet


class Audio(BaseModel):
    gain: float = Field(default=1.0, ge=0, le=10)
    rate: int = 16_000


class EarSettings(Settings):
    model_config = SettingsConfigDict(service="ear", env_prefix="EAR_", env_nested_delimiter="__")

    audio: Audio = Audio()
    limits: dict[str, int] = {}
    mode: Literal["near", "far"] = "near"


class Inside:
    """A fleet with a broker, workers, and a command line that runs here."""

    def __init__(self, home: Path, broker: Mosquitto, stack: ExitStack) -> None:
        self.home = home
        self.broker = broker
        self.keys = TestFleet(home / "fleet", broker.url)
        self._stack = stack
        with Writer(**self.keys.writer_given()):  # whoever holds a key leaves the trust document on the broker
            eventually(lambda: broker.retained("system/config/_trust"), what="the trust document is there")

    def __call__(self, *words: str, stdin: bytes = b"", **variables: str) -> Done:
        """Run a command to its end."""
        environment = {**self.keys.environment("ops"), "HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "80"}
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment | variables, clear=True),
            mock.patch("sys.argv", ["tars-settings", *words]),
            mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.home) if hasattr(contextlib, "chdir") else _chdir(self.home),
        ):
            code = run_app()
        return Done(code, out.getvalue(), err.getvalue())

    def employ(self, service: str, instance: str, model: type[Settings] | None = None, **variables: str) -> Live[Any]:
        """Return a worker that is ready, and whose schema is on the broker."""
        with mock.patch.dict(os.environ, variables):
            live = self._stack.enter_context(Fleet(**self.keys.given(instance))).join(model or MODELS[service])
        assert live.wait_until_ready(15), live.status
        name, schema = live._follower._schema
        self.broker.publish(f"system/config/{service}/_schema/{name}", schema)  # as the worker will in a second
        return live

    def write(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        """Write a file at home, and return where."""
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def signed(self) -> dict[str, bytes]:
        """Return the deltas and heads that the broker retains."""
        found = self.broker.retained("system/config/#")
        return {
            topic: payload for topic, payload in found.items() if "/_schema/" not in topic and "/_trust" not in topic
        }


@contextmanager
def _chdir(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
