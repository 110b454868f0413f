"""A worker process for tests: joins one of the robot's services, prints a JSON line for each state and snapshot, and
leaves when its standard input ends."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import tars_settings
from tars_settings.join import Change, Live
from tests.real_input import settings_classes


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    service, *dotenv = sys.argv[1:]
    cls = settings_classes()[service]
    if dotenv:
        cls.model_config["env_file"] = dotenv[0]
    with tars_settings.join(cls) as live:
        tell(live)
        sys.stdin.read()


def tell(live: Live[Any]) -> None:
    def on_change(change: Change[Any]) -> None:
        say(values=change.new.model_dump(mode="json"), fields=sorted(change.fields), epoch=change.epoch)

    say(values=live.current.model_dump(mode="json"))
    live.on_change(on_change)
    say(state="ready" if live.wait_until_ready(15) else live.status.state)


if __name__ == "__main__":
    main()
