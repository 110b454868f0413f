"""Three workers of a voice robot: what they can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from tars_settings.settings import Settings, SettingsConfigDict

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class SttSettings(Settings):
    """Speech to text."""

    model_config = SettingsConfigDict(service="stt-worker", env_prefix="STT_")

    log_level: LogLevel = "INFO"
    backend: Literal["whisper", "ws", "openai"] = "whisper"
    whisper_model: str = Field(default="small", description="Name of the Whisper model")
    vad_threshold: float = Field(default=0.5, ge=0, le=1, description="Speech probability that opens the gate")
    silence_s: float = Field(default=1.0, gt=0, le=10, description="Silence that ends an utterance")
    silence_dbfs: float = Field(default=-35.0, ge=-90, le=0, description="What counts as silence")
    partial_interval_s: float = Field(default=0.5, gt=0, description="Time between partial transcriptions")
    suppress_echo: bool = True
    common_words_extra: list[str] = Field(default=[])
    api_key: SecretStr | None = Field(default=None, description="Key of the remote backend")


class LaxSttSettings(Settings):
    """The same service as an older release had it: the threshold had no upper bound."""

    model_config = SettingsConfigDict(service="stt-worker", env_prefix="STT_")

    vad_threshold: float = 0.5


class TtsSettings(Settings):
    """Speech synthesis."""

    model_config = SettingsConfigDict(service="tts-worker", env_prefix="TTS_")

    log_level: LogLevel = "INFO"
    provider: Literal["piper", "elevenlabs"] = "piper"
    piper_voice: str = Field(default="en_US-amy-medium", description="Voice model of Piper")
    pipeline: bool = Field(default=True, description="Synthesise the next sentence while one is spoken")
    concurrency: int = Field(default=1, ge=1, le=8, description="Sentences that are synthesised at once")
    length_scale: float = Field(default=1.0, gt=0, le=4, description="Above 1 speaks slower")
    volume_percent: int = Field(default=100, ge=0, le=200)
    aggregate_debounce_ms: int = Field(default=150, ge=0, le=5000)
    wake_ack_texts: list[str] = Field(default=["Yes?", "Hm?"])
    api_key: SecretStr | None = Field(default=None, description="Key of the remote provider")


class RouterSettings(Settings):
    """The router between language model and speech."""

    model_config = SettingsConfigDict(service="router", env_prefix="ROUTER_")

    log_level: LogLevel = "INFO"
    llm_tts_stream: bool = Field(default=True, description="Speak while the language model still writes")
    stream_min_chars: int = Field(default=20, ge=1, description="Characters that are gathered before they are spoken")
    stream_max_chars: int = Field(default=500, ge=1, description="Characters after which gathering ends in any case")
    stream_boundary_only: bool = Field(default=True, description="End only at the end of a sentence")
    stream_queue_size: int = Field(default=100, ge=1, le=10_000)
    stream_queue_overflow: Literal["drop", "block"] = "drop"
    handler_timeout_s: float = Field(default=30.0, gt=0, le=300)
    wake_ack_enabled: bool = True
    live_mode_default: bool = False

    @model_validator(mode="after")
    def _min_below_max(self) -> RouterSettings:
        if self.stream_min_chars > self.stream_max_chars:
            raise ValueError("stream_min_chars must not exceed stream_max_chars")
        return self


MODELS: dict[str, type[Settings]] = {
    "stt-worker": SttSettings,
    "tts-worker": TtsSettings,
    "router": RouterSettings,
}
