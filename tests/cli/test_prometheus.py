"""Facts of metrics and drift: a strict reader of the exposition format takes them, whatever a worker claims."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.cli.drift import Drift, drifts_of
from tars_settings.cli.prometheus import escaped
from tars_settings.core.presence import Presence, ScopeReport
from tars_settings.core.register import Register
from tars_settings.core.topics import PresenceTopic, Topics
from tests.cli.room import Room, Stt, open_room
from tests.fleets import ALICE, delta, set_

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
Labels = tuple[tuple[str, str], ...]


class FormatError(ValueError):
    """It is not of the text exposition format 0.0.4."""


def parsed(text: str) -> dict[str, tuple[str, dict[Labels, float]]]:
    """Return kind and samples of each metric.

    As the format says: HELP and TYPE stand once and before their samples, a family's lines stand together, no series
    stands twice, every line ends.
    """
    if not text.endswith("\n"):
        raise FormatError("the last line does not end")
    families: dict[str, tuple[str, dict[Labels, float]]] = {}
    helped: set[str] = set()
    current = ""
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            if name in helped:
                raise FormatError(f"HELP of {name} twice")
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, current, kind = line.split(" ")
            if current in families or kind not in ("counter", "gauge") or current not in helped:
                raise FormatError(line)
            families[current] = (kind, {})
        else:
            name, labels, value = _sample(line)
            if name != current:
                raise FormatError(f"{name} stands apart from its family")
            if labels in families[name][1]:
                raise FormatError(f"a series twice: {line}")
            families[name][1][labels] = value
    return families


def _sample(line: str) -> tuple[str, Labels, float]:
    found = _NAME.match(line)
    if found is None:
        raise FormatError(line)
    rest = line[found.end() :]
    labels: list[tuple[str, str]] = []
    if rest.startswith("{"):
        rest = rest[1:]
        while not rest.startswith("}"):
            label = _LABEL.match(rest)
            if label is None:
                raise FormatError(line)
            value = re.sub(r"\\.", lambda one: _ESCAPES[one[0]], label[2])
            labels.append((label[1], value))
            rest = rest[label.end() :]
            rest = rest.removeprefix(",")
        rest = rest[1:]
    if len({name for name, _ in labels}) != len(labels) or not re.fullmatch(r" [-+0-9.eE]+", rest):
        raise FormatError(line)
    return found[0], tuple(sorted(labels)), float(rest)


@pytest.mark.parametrize(
    "text",
    [
        "a 1",
        "a 1\n",
        "# HELP a x\n# TYPE a gauge\na 1\na 1\n",
        '# HELP a x\n# TYPE a gauge\na{b="\\x"} 1\n',
        "# HELP a x\n# TYPE a gauge\n# HELP b x\n# TYPE b gauge\nb 1\na 1\n",
        "# HELP a x\n# TYPE a gauge\na one\n",
    ],
)
def test_the_reader_is_strict(text: str) -> None:
    with pytest.raises(FormatError):
        parsed(text)


@given(st.text())
@settings(max_examples=40)
def test_any_label_comes_through_as_it_can_be_printed(value: str) -> None:
    text = f'# HELP a x\n# TYPE a gauge\na{{b="{escaped(value)}"}} 1\n'
    ((_, samples),) = parsed(text).values()
    ((_, read),) = next(iter(samples))
    assert read.isprintable()
    assert read == value or not value.isprintable() or value != " "


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with open_room() as room:
        room.employ(Stt, "pi-1")
        room.until_described("stt-worker")
        for value in (0.6, 0.7):
            room.fleet.push("stt-worker", {"vad_threshold": value})
        yield room


def _claim(room: Room, instance: str, **more: object) -> str:
    topic = Topics().format(PresenceTopic("stt-worker", instance))
    claim = {"v": 1, "service": "stt-worker", "instance": instance, "state": "ready", **more}
    room.fleet.broker.publish(topic, json.dumps(claim).encode())
    return topic


def _of(instance: str, **more: str) -> Labels:
    return tuple(sorted({"service": "stt-worker", "instance": instance, **more}.items()))


def test_a_status_is_metrics(room: Room) -> None:
    done = room("status", "--prometheus")
    assert done.code == 0, done.err
    metrics = parsed(done.out)
    assert metrics["tars_settings_converged"] == ("gauge", {(): 1.0})
    assert metrics["tars_settings_worker_ready"][1] == {_of("pi-1"): 1.0}
    assert metrics["tars_settings_worker_epoch"][1][_of("pi-1", scope="stt-worker")] == 2
    assert metrics["tars_settings_scope_epoch"][1][("scope", "stt-worker"),] == 2
    kind, counted = metrics["tars_settings_worker_events_total"]
    assert (kind, counted[_of("pi-1", event="applied")]) == ("counter", 2)
    states = metrics["tars_settings_worker_state"][1]
    assert sum(states.values()) == 1
    assert states[_of("pi-1", state="ready")] == 1


def test_a_worker_that_is_behind_is_counted_and_named(room: Room) -> None:
    topic = _claim(room, "late", scopes={"stt-worker": {"gen": 1, "epoch": 1, "digest": "ab"}})
    metrics = parsed(room("status", "--prometheus").out)
    rows = {row[0]: row for row in room("status").rows()}
    worker = next(one for one in room("status", "--json").document()["workers"] if one["instance"] == "late")
    room.fleet.broker.publish(topic, b"")
    assert metrics["tars_settings_converged"][1] == {(): 0.0}
    assert metrics["tars_settings_worker_epochs_behind"][1][_of("late", scope="stt-worker")] == 1
    assert metrics["tars_settings_worker_lag_seconds"][1][_of("late")] >= 0
    assert "1 epoch behind in stt-worker for" in rows["stt-worker@late"][5]
    assert (worker["drift"][0]["kind"], worker["drift"][0]["epochs"], worker["age_s"]) == ("behind", 1, None)


def test_whatever_a_worker_claims_is_a_well_formed_metric(room: Room) -> None:
    ugly = 'a"b\\c\nd\x1b[31m\u202e'
    topic = _claim(room, "evil", release=ugly, counters={ugly: 1, "b\x1b": 2, "b\\x1b": 3}, at="never")
    done = room("status", "--prometheus")
    room.fleet.broker.publish(topic, b"")
    assert done.code == 0
    metrics = parsed(done.out)
    assert "\x1b" not in done.out
    info = next(dict(labels) for labels in metrics["tars_settings_worker_info"][1] if ("instance", "evil") in labels)
    assert info["release"] == 'a"b\\c\\nd\\x1b[31m\\u202e'


# --- drift ---------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def _drifts(gen: int, epoch: int, digest: str = "ab") -> tuple[Drift, ...]:
    old = delta(ALICE, 3, set_("a"), at="2026-01-01T11:00:00Z")
    new = delta(ALICE, 5, set_("b"), at="2026-01-01T11:30:00Z")
    winners = {one.body.assign[0].key: Register(one.body.assign[0].key, one.body.assign[0], one) for one in (old, new)}
    presence = Presence(1, "stt-worker", "a", "ready", {"stt-worker": ScopeReport(gen, epoch, digest)})
    return drifts_of(presence, {"stt-worker": ScopeReport(1, 5, "cd")}, {"stt-worker": winners})


@pytest.mark.parametrize(
    ("gen", "epoch", "kind", "words"),
    [
        (1, 2, "behind", "3 epochs behind in stt-worker for 1 h"),
        (1, 4, "behind", "1 epoch behind in stt-worker for 30 min"),
        (0, 9, "behind", "a gen behind in stt-worker for 1 h"),
        (1, 7, "ahead", "2 epochs ahead in stt-worker: it holds what the broker lacks"),
        (1, 5, "drift", "drifts from stt-worker: the same epoch, and not the same values"),
    ],
)
def test_how_a_worker_differs_is_told(gen: int, epoch: int, kind: str, words: str) -> None:
    (drift,) = _drifts(gen, epoch)
    assert (drift.kind, drift.told(NOW)) == (kind, words)


def test_a_worker_with_the_same_values_does_not_differ() -> None:
    assert _drifts(1, 5, "cd") == ()
