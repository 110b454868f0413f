"""``python -m tests.integration.processes MODE``: a process that joins in one of the ways that there are."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

import tars_settings
from tars_settings import Settings


class Stt(Settings, service="stt-worker"):
    model: str = "base"


def say(**told: Any) -> None:
    """Print a line; one write, so that lines of several processes stay whole."""
    os.write(1, (json.dumps({"pid": os.getpid(), **told}) + "\n").encode())


def follow(live: tars_settings.Live[Stt], until: str) -> None:
    """Say what it has, then follow changes up to a value."""
    say(has=live.current.model, ready=live.wait_until_ready(20))
    watch = live.watch("model")
    while live.current.model != until:
        watch.next(0.2)
    say(follows=live.current.model)


def fork() -> None:
    """The parent joins, and its child uses the same object."""
    with tars_settings.Fleet() as fleet:
        notices: dict[str, set[str]] = {"fleet": set(), "live": set()}
        fleet.on_notice(lambda notice: notices["fleet"].add(notice.kind))
        live = fleet.join(Stt)
        live.on_notice(lambda notice: notices["live"].add(notice.kind))
        live.wait_until_ready(20)
        watch = live.watch("model")
        heard: list[str] = []
        live.on_change(lambda change: heard.append(change.new.model))
        child = os.fork()
        if child == 0:
            for told in notices.values():
                told.clear()
            say(joined=live.wait_until_ready(20))
            change = watch.next(20)
            deadline = time.monotonic() + 20
            awaited = {"Session", "Applied"}
            while not (heard and all(awaited <= told for told in notices.values())) and time.monotonic() < deadline:
                time.sleep(0.01)
            noticed = {name: sorted(told & awaited) for name, told in notices.items()}
            watched = change.new.model if change else None
            say(child=True, watched=watched, called=heard, noticed=noticed, has=live.current.model)
            live.close()
            os._exit(0)
        follow(live, "large")
        os.waitpid(child, 0)
        say(parent=live.status.state, connected=live.status.connected)


def in_child(live: tars_settings.Live[Stt]) -> None:
    follow(live, "large")


def join_in_child() -> None:
    with tars_settings.join(Stt) as live:
        follow(live, "large")


def pool(method: str) -> None:
    """multiprocessing: a forked child inherits the live object, a spawned one joins by itself."""
    context = multiprocessing.get_context(method)
    with tars_settings.join(Stt) as live:
        live.wait_until_ready(20)
        target, arguments = (in_child, (live,)) if method == "fork" else (join_in_child, ())
        child: Any = context.Process(target=target, args=arguments)
        child.start()
        follow(live, "large")
        child.join(30)
        say(exitcode=child.exitcode, parent=live.status.state)


def terminated() -> None:
    """SIGTERM becomes SystemExit, and the join is left in order."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tars_settings.join(Stt) as live:
        say(ready=live.wait_until_ready(20))
        time.sleep(60)


def unprepared() -> None:
    """Nobody takes care of SIGTERM."""
    with tars_settings.join(Stt) as live:
        say(ready=live.wait_until_ready(20))
        time.sleep(60)


def shutdown() -> None:
    """The interpreter ends in the middle of catching up, and nobody left the fleet."""
    fleet = tars_settings.Fleet()
    live = fleet.join(Stt)
    say(state=live.status.state)


def forgetful() -> None:
    """It was ready, and nobody left the fleet."""
    fleet = tars_settings.Fleet()
    live = fleet.join(Stt)
    say(ready=live.wait_until_ready(20))


def broken() -> None:
    """As forgetful, and it ends by an error."""
    forgetful()
    raise RuntimeError("the new values do this")


def two() -> None:
    """One of two processes on one state directory."""
    with tars_settings.join(Stt) as live:
        follow(live, "large")
        live.mark_good()
        say(ended=live.status.unstored)


if __name__ == "__main__":
    mode = sys.argv[1]
    globals()[mode]() if mode != "pool" else pool(sys.argv[2])
