"""What a user's type checker must understand without a plugin. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr
from typing_extensions import assert_type

import tars_settings
from tars_settings import About, Change, Explanation, Explanations, Fleet, Live, Settings, SettingsConfigDict, Writer
from tars_settings.join import Status
from tars_settings.testing import MemoryFleet, override


class Audio(BaseModel):
    gain: float = 1.0
    rate: Annotated[int, About(unit="Hz", complexity="advanced")] = 16_000


class Stt(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_")
    threshold: float = Field(default=0.5, ge=0, le=1)
    audio: Audio = Audio()
    api_key: SecretStr | None = None


class Tts(Settings):
    model_config = SettingsConfigDict(service="tts-worker")
    voice: str = "tars"


def joined() -> None:
    """``live.current`` is the user's class."""
    with tars_settings.join(Stt) as live:
        assert_type(live, Live[Stt])
        assert_type(live.current, Stt)
        assert_type(live.current.threshold, float)
        assert_type(live.current.audio.rate, int)
        assert_type(live.status, Status)
        assert_type(live.wait_until_ready(1.0), bool)
        for change in live.watch("threshold"):
            assert_type(change, Change[Stt])
            assert_type(change.old, Stt)
            assert_type(change.new.threshold, float)
            assert_type(change.fields, frozenset[str])
        for status in live.watch_status():
            assert_type(status, Status)

    def heard(change: Change[Stt]) -> None:
        assert_type(change.new, Stt)

    async def heard_later(change: Change[Stt]) -> None:
        assert_type(change.new, Stt)

    live.on_change(heard, "threshold")()
    live.on_change(heard_later)
    live.on_status(lambda status: print(status.state))


async def joined_in_a_loop() -> None:
    """The same objects serve an event loop."""
    async with tars_settings.join(Stt) as live:
        assert_type(live, Live[Stt])
        async for change in live.watch():
            assert_type(change.new, Stt)
    async with Fleet() as fleet:
        assert_type(fleet.join(Tts).current, Tts)


def several() -> None:
    """Each service of a fleet has its own class."""
    with Fleet() as fleet:
        stt, tts = fleet.join(Stt), fleet.join(Tts)
        assert_type(stt.current, Stt)
        assert_type(tts.current.voice, str)


def explained() -> None:
    """With a key one explanation, without one all of them."""
    assert_type(tars_settings.explain(Stt()), Explanations)
    assert_type(tars_settings.explain(Stt(), "threshold"), Explanation)


def pushed() -> None:
    """A push takes a class and values by key."""
    with Writer() as writer:
        receipt = writer.push(Stt, {"threshold": 0.6, "audio.gain": 2}, reason="noisy kitchen")
        assert_type(receipt.wait(timeout_s=5).applied, int)


def tested() -> None:
    """Overrides and fleets in memory."""
    with override(Stt, {"threshold": 0.9}), MemoryFleet() as fleet:
        assert_type(fleet.join(Stt).current, Stt)
        assert_type(Stt().threshold, float)
