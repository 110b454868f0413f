"""Facts of status --watch and watch: what is shown again, what is shown of a change, and how they end."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tars_settings.cli import status, watch
from tars_settings.cli.common import Common
from tars_settings.cli.render import MASK, Output
from tars_settings.core.names import Scope
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.room import Pipe, Room, Strict, Stt, open_room, variables

SECRET = "sk-robot-0451"


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with open_room() as room:
        room.employ(Stt, "pi-1")
        room.until_described("stt-worker")
        room.fleet.push("stt-worker", {"vad_threshold": 0.5, "api_key": SECRET})
        yield room


class Following:
    """A command that follows, in a thread of its own, with what it wrote."""

    def __init__(self, room: Room, *, as_json: bool = False, terminal: bool = False) -> None:
        self.out = Pipe(terminal)
        self.notes: list[str] = []
        output = Output(as_json=as_json, stdout=self.out)
        output.note = self.notes.append  # type: ignore[method-assign]
        self.common = Common(output)
        self.result: list[int] = []
        self.ready = threading.Event()
        self.over = threading.Event()
        self._stack = ExitStack()
        self._stack.enter_context(variables(**room.environment()))
        self.writer = self._stack.enter_context(Writer(read_only=True))
        self._thread: threading.Thread | None = None

    def start(self, run: Callable[[], int]) -> None:
        self._thread = threading.Thread(target=lambda: self.result.append(run()), daemon=True)
        self._thread.start()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self._thread is not None:
            self._thread.join(60)
            assert not self._thread.is_alive()
        self._stack.close()


class WatchingRoom(Following):
    def watch(self, count: int, timeout_s: float = 60, reveal: tuple[str, ...] = ()) -> None:
        watching = watch.Watching(self.common, self.writer, Scope("stt-worker"), reveal)
        self.start(lambda: watching.run(count, timeout_s, self.ready.set))
        assert self.ready.wait(60)

    def lines(self, count: int) -> list[list[str]]:
        eventually(lambda: len(self.out.getvalue().splitlines()) >= count)
        return [line.split("\t") for line in self.out.getvalue().splitlines()]


# --- watch ---------------------------------------------------------------------------------------------------------


def test_a_change_is_one_line_with_what_it_was_and_is_who_and_why(room: Room) -> None:
    with WatchingRoom(room) as following:
        following.watch(2)
        room.fleet.writer.push("stt-worker", {"vad_threshold": 0.6, "language": "de"}, reason="noisy", by="ann")
        lines = {line[2]: line for line in following.lines(2)}
    assert lines["vad_threshold"][1:6] == ["stt-worker", "vad_threshold", "0.5 -> 0.6", "tests (ann)", "noisy"]
    assert lines["language"][3] == "(unset) -> de"
    assert lines["language"][6].startswith("epoch ")
    assert following.result == [2]


def test_a_change_is_one_document_a_line(room: Room) -> None:
    with WatchingRoom(room, as_json=True) as following:
        following.watch(2)
        room.fleet.push("stt-worker", {"audio": {"gain": 2, "rate": 8000}})
        room.fleet.push("stt-worker", {"audio.gain": 3})
        following.lines(2)
    whole, leaf = [json.loads(line) for line in following.out.getvalue().splitlines()]
    for one in (whole, leaf):
        assert_fits("watch", one)
    assert (whole["key"], whole["new"]) == ("audio", {"gain": 2, "rate": 8000})
    assert (leaf["key"], leaf["old"], leaf["new"]) == ("audio.gain", 2, 3), "what a leaf was stood in the whole"


def test_a_secret_that_changes_is_masked_before_and_after(room: Room) -> None:
    with WatchingRoom(room) as following:
        following.watch(1)
        room.fleet.push("stt-worker", {"api_key": f"{SECRET}-2"})
        (line,) = following.lines(1)
    assert line[3] == f"{MASK} -> {MASK}"
    assert SECRET not in following.out.getvalue() + "".join(following.notes)


def test_what_becomes_a_secret_is_masked_as_it_was_too(room: Room) -> None:
    open_yet = "not-a-secret-yet"
    room.fleet.writer.push("stt-worker", {"mood": open_yet}, plain=["mood"]).wait(10)
    with WatchingRoom(room) as following:
        following.watch(1)
        room.fleet.writer.push("stt-worker", {"mood": open_yet}, secret=["mood"])
        (line,) = following.lines(1)
    assert line[2:4] == ["mood", f"{MASK} -> {MASK}"]


def test_what_is_taken_away_is_a_change(room: Room) -> None:
    room.fleet.push("stt-worker", {"suppress_echo": False})
    with WatchingRoom(room) as following:
        following.watch(1)
        room.fleet.writer.unset("stt-worker", ["suppress_echo"]).wait(10)
        (line,) = following.lines(1)
    assert line[2:4] == ["suppress_echo", "false -> (unset)"]


def test_a_watch_goes_on_when_the_broker_comes_back_and_says_so(room: Room) -> None:
    with WatchingRoom(room) as following:
        following.watch(1)
        room.fleet.broker.stop()
        eventually(lambda: any("connection lost" in one for one in following.notes))
        room.fleet.broker.start()
        eventually(lambda: "connected again" in following.notes)
        room.fleet.push("stt-worker", {"vad_threshold": 0.7})
        assert following.lines(1)[0][2] == "vad_threshold"
    assert following.result == [1]


def test_a_scope_of_a_worker_that_comes_later_is_watched_too(room: Room) -> None:
    with WatchingRoom(room) as following:
        following.watch(1)
        room.employ(Stt, "late")
        watching_late = "stt-worker@late"
        eventually(lambda: following.writer.agent.replicator.state_of(watching_late) == "ready")
        eventually(lambda: bool(following.result) or _pushed(room, following))
    assert following.out.getvalue().split("\t")[1] == watching_late


def _pushed(room: Room, following: Following) -> bool:
    """Push again until it is seen: which scopes are watched already, nobody says."""
    room.fleet.writer.push("stt-worker@late", {"vad_threshold": 0.4})
    return bool(following.result)


def test_a_watch_ends_after_a_while(room: Room) -> None:
    done = room("watch", "stt-worker", "--timeout", "0.3")
    assert (done.code, done.out) == (0, "")
    assert "watching _all, stt-worker" in done.err
    assert room("watch", "stt-worker", "--timeout", "0.3", "--count", "1").code == 1


# --- status --watch ------------------------------------------------------------------------------------------------


class StatusRoom(Following):
    def follow(self, *, long: bool = False) -> None:
        def run() -> int:
            with variables(NO_COLOR="1", COLUMNS="80", TERM="xterm"):
                return status.keep_watching(
                    self.common, self.writer, Scope("stt-worker"), long=long, timeout_s=20, is_over=self.over.is_set
                )

        self.start(run)
        eventually(lambda: bool(self.out.getvalue()))


def _shows(following: Following, words: str) -> bool:
    return words in following.out.getvalue()


def test_a_pipe_gets_a_block_for_each_change(room: Room) -> None:
    with StatusRoom(room) as following:
        following.follow()
        before = following.out.getvalue()
        room.employ(Strict, "strict")
        room.fleet.push("stt-worker", {"vad_threshold": 0.8})
        eventually(lambda: _shows(following, "refuses stt-worker"))
    assert following.out.getvalue().startswith(before)
    assert "\n\n" in following.out.getvalue(), "blocks are apart"
    assert "not converged: stt-worker@strict" in following.notes
    assert following.result == [1]
    room.fleet.push("stt-worker", {"vad_threshold": 0.5})


def test_documents_are_one_a_line(room: Room) -> None:
    with StatusRoom(room, as_json=True) as following:
        following.follow()
        room.fleet.push("stt-worker", {"vad_threshold": 0.45})
        eventually(lambda: len(following.out.getvalue().splitlines()) >= 2)
    for line in following.out.getvalue().splitlines():
        assert_fits("status", json.loads(line))


def test_nothing_new_is_not_shown_again(room: Room) -> None:
    with StatusRoom(room, as_json=True) as following:
        following.follow()
        looks: list[Any] = []
        counted = following.writer.presences
        following.writer.presences = lambda *words: looks.append(1) or counted(*words)  # type: ignore[method-assign,func-returns-value]
        eventually(lambda: len(looks) > 10)
    documents = [json.loads(line) for line in following.out.getvalue().splitlines()]
    told = [json.dumps(status._without_ages(one)) for one in documents]
    assert all(first != second for first, second in itertools.pairwise(told))


def test_a_terminal_is_redrawn_in_place(room: Room) -> None:
    with StatusRoom(room, terminal=True) as following:
        following.follow()
        room.fleet.push("stt-worker", {"vad_threshold": 0.55})
        eventually(lambda: following.out.getvalue().count("stt-worker@pi-1") >= 2)
    assert "\x1b[" in following.out.getvalue(), "the cursor goes back"
    assert "\x1b[31m" not in following.out.getvalue()


def test_the_brokers_absence_is_said(room: Room) -> None:
    with StatusRoom(room) as following:
        following.follow()
        room.fleet.broker.stop()
        eventually(lambda: any("connection lost" in one for one in following.notes))
        room.fleet.broker.start()
        eventually(lambda: "connected again" in following.notes)


def test_long_status_is_a_row_for_each_scope(room: Room) -> None:
    def shown() -> dict[str, list[str]]:
        rows = room("status", "stt-worker", "--long").rows()
        return {row[1]: row for row in rows if row[0] == "stt-worker@pi-1"}

    # A report is as old as it is: after what other tests did, the next one tells.
    eventually(lambda: shown()["stt-worker"][4] == "same")
    mine = shown()
    assert set(mine) == {"_all", "stt-worker", "stt-worker@pi-1"}
    assert (len(mine["stt-worker"][3]), mine["stt-worker"][4]) == (8, "same")
    assert "Python 3." in mine["stt-worker"][6]


@pytest.mark.parametrize("words", [("--prometheus", "--json"), ("--prometheus", "--watch"), ("--prometheus", "--long")])
def test_metrics_are_metrics_and_nothing_else(room: Room, words: tuple[str, ...], tmp_path: Path) -> None:
    assert room("status", *words).code == 2


@pytest.mark.parametrize(
    "words",
    [
        "status",
        "status --long",
        "explain stt-worker vad_threshold",
        "list --all",
        "list --services",
        "search speech",
    ],
)
def test_what_is_drawn_is_legible_at_80_columns_without_colour(room: Room, words: str) -> None:
    done = room.terminal(*words.split())
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("stt-worker" in line for line in lines)
    assert "\x1b[3" not in done.out
    assert any("───" in line for line in lines), "a table, and no line of a pipe"
