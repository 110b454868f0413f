"""A worker as systemd and Compose start it: it follows its settings until it is told to end."""

from __future__ import annotations

import logging
import signal
import threading

from pydantic import Field, SecretStr

import tars_settings

log = logging.getLogger("stt-worker")


class SttSettings(tars_settings.Settings):
    """Speech to text."""

    model_config = tars_settings.SettingsConfigDict(service="stt-worker", env_prefix="STT_")

    vad_threshold: float = Field(default=0.5, ge=0, le=1, description="Speech probability that opens the gate")
    api_key: SecretStr | None = Field(default=None, description="Key of the remote backend")


def main() -> None:
    """Work until SIGTERM, which systemd and Docker send."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with tars_settings.Fleet() as fleet:
        fleet.on_notice(lambda notice: log.info("%s", notice.as_dict()))
        live = fleet.join(SttSettings)
        live.on_change(lambda change: log.info("changed: %s", ", ".join(sorted(change.fields))))
        log.info("started with vad_threshold %s", live.current.vad_threshold)
        over.wait()


if __name__ == "__main__":
    main()
