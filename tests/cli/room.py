"""A fleet in memory, and the command line in this process on it: what needs no socket costs none."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr, model_validator

from tars_settings import About, Settings, SettingsConfigDict
from tars_settings.cli.app import run
from tars_settings.join import Live
from tars_settings.testing import MemoryFleet
from tests.brokers import eventually
from tests.cli.running import Done

_OURS = ("TARS_SETTINGS_", "STT_")


class Audio(BaseModel):
    gain: float = Field(default=1.0, ge=0, description="Amplification before recognition")
    rate: Annotated[int, About(unit="Hz", complexity="advanced", help="Of the microphone, as the driver has it")] = (
        16_000
    )


class Stt(Settings):
    model_config = SettingsConfigDict(service="stt-worker", env_prefix="STT_", env_nested_delimiter="__")
    vad_threshold: float = Field(default=0.5, ge=0, le=0.9, description="Speech probability that opens the gate")
    language: str = Field(default="en", examples=["de", "fr"])
    suppress_echo: bool = True
    audio: Audio = Audio()
    api_key: SecretStr | None = None


class Strict(Stt):
    """What its schema can't say, it refuses."""

    model_config = SettingsConfigDict(service="stt-worker", env_prefix="STT_")

    @model_validator(mode="after")
    def _below(self) -> Strict:
        if self.vad_threshold > 0.55:
            raise ValueError("vad_threshold: this microphone needs at most 0.55")
        return self


class Tts(Settings):
    model_config = SettingsConfigDict(service="tts-worker")
    voice: str = Field(default="amy", description="The voice that answers")
    volume_percent: int = Field(default=100, ge=0, le=200)


@contextlib.contextmanager
def variables(**given: str) -> Iterator[None]:
    """Set variables of the process for a while."""
    held = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in held.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Pipe(io.StringIO):
    """What a command writes to; a terminal where it should take it for one."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Room:
    """A fleet in memory with workers, and the command line on it."""

    def __init__(self, stack: ExitStack) -> None:
        self.fleet = stack.enter_context(MemoryFleet())
        assert self.fleet.writer.sync("stt-worker") == "ready"

    def employ(self, cls: type[Any], instance: str, **given: str) -> Live[Any]:
        """Join a worker, with variables of its own."""
        with variables(**given):
            return self.fleet.join(cls, instance)

    def until_described(self, *services: str, schemas: int = 1) -> None:
        """Wait until the writer has that many schemas of each of these services."""
        for service in services:
            eventually(lambda service=service: len(self.fleet.writer.schemas(service)) == schemas)

    def environment(self) -> Mapping[str, str]:
        """Return an operator's variables."""
        return self.fleet.environment("operator")

    def __call__(self, *words: str, **given: str) -> Done:
        """Run a command in this process, its output in a pipe."""
        return self._run(Pipe(), words, given)

    def terminal(self, *words: str, **given: str) -> Done:
        """Run a command in this process, on a terminal of 80 columns without colour."""
        return self._run(Pipe(terminal=True), words, {"NO_COLOR": "1", "COLUMNS": "80", "TERM": "dumb", **given})

    def _run(self, out: io.StringIO, words: tuple[str, ...], given: Mapping[str, str]) -> Done:
        err = io.StringIO()
        argv, sys.argv = sys.argv, ["tars-settings", *words]
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            with (
                variables(**{**self.environment(), **given}),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                code = run()
        finally:
            sys.argv = argv
            root.handlers[:], root.level = handlers, level
        return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def open_room() -> Iterator[Room]:
    """Open a room without anything of ours in its environment."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in [one for one in os.environ if one.startswith(_OURS)]:
            patch.delenv(name)
        patch.setenv("COLUMNS", "80")
        yield Room(stack)
