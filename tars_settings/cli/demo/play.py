"""One worker process of the demo: ``python -m tars_settings.cli.demo.play SERVICE``.

It joins, tells its parent on stdout what happens (JSON lines, times of the monotonic clock, which all processes of a
host share), answers ``look`` on stdin with what it sees, and ends when stdin does: so it cannot outlive its parent.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from tars_settings.cli.demo.workers import MODELS
from tars_settings.join import Change, Live, join
from tars_settings.settings import Settings

_writing = threading.Lock()


def _tell(event: str, **more: Any) -> None:
    with _writing:
        print(json.dumps({"event": event, "at_s": time.monotonic(), **more}), flush=True)


def _values(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json")  # secrets come out masked


def _on_change(change: Change[Settings]) -> None:
    values = _values(change.new)
    _tell("change", epoch=change.epoch, fields={name: values[name] for name in sorted(change.fields) if name in values})


def _look(live: Live[Settings]) -> None:
    status = live.status
    refused = [one.message for one in status.refused]
    _tell("look", state=status.state, values=_values(live.current), refused=refused, counters=status.counters)


def main(service: str) -> None:
    """Live until stdin ends."""
    with join(MODELS[service]) as live:
        live.on_change(_on_change)
        _tell("started", state=live.status.state)
        threading.Thread(target=_tell_ready, args=(live,), daemon=True).start()
        for line in sys.stdin:
            if line.strip() == "look":
                _look(live)


def _tell_ready(live: Live[Settings]) -> None:
    ready = live.wait_until_ready(60)
    _tell("ready", ready=ready, values=_values(live.current))


if __name__ == "__main__":
    main(sys.argv[1])
