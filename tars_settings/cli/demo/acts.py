"""The acts: each does one thing to the fleet, looks at what came of it, and says whether that was as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tars_settings.cli.demo.forgery import forged
from tars_settings.cli.demo.processes import DEADLINE_S, Worker, eventually
from tars_settings.cli.demo.stage import PINNED_MODEL, PREFIX, Stage, shown
from tars_settings.cli.demo.workers import LaxSttSettings
from tars_settings.cli.outcome import one_line
from tars_settings.cli.render import MASK, Table, rows_of
from tars_settings.cli.status import Report, scope_report
from tars_settings.core.names import ALL, scopes_of
from tars_settings.errors import InvalidValueError
from tars_settings.writer import Receipt, Writer

SECRET: Final = "sk-robot-0451"


@dataclass(frozen=True)
class Act:
    """What was shown: for people a heading, the command, a table and a remark; for machines the same as facts."""

    name: str
    title: str
    table: Table
    remark: str
    held: bool
    commands: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as a document."""
        rows = [dict(zip(self.table.columns, row, strict=True)) for row in self.table.rows]
        return {
            "name": self.name,
            "title": self.title,
            "held": self.held,
            "commands": list(self.commands),
            "rows": rows,
            "remark": self.remark,
            "facts": dict(self.facts),
        }


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _listed(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={shown(value)}" for name, value in values.items())


def _is(event: str) -> Callable[[dict[str, Any]], bool]:
    return lambda one: one["event"] == event


def start(stage: Stage) -> Act:
    """Start the workers, all at the same time."""
    for service, instance in stage.cast:
        stage.employ(service, instance)
    with stage.writer():  # the operator's first visit puts the trust document there
        told = {worker: worker.wait_for(_is("ready"), "that it is ready") for worker in stage.workers}
    eventually(stage.has_schemas, "each service's schema is published")
    ready = [bool(one["ready"]) for one in told.values()]
    rows = [
        (worker.name, "ready" if one["ready"] else "degraded", len(one["values"]), one["at_s"] - worker.started_s)
        for worker, one in told.items()
    ]
    return Act(
        "start",
        f"{len(rows)} workers of a voice robot join over {stage.broker.kind}",
        Table(("worker", "state", "settings", "ready after"), rows_of([(*r[:3], _milliseconds(r[3])) for r in rows])),
        "Each is a process of its own; the time includes the start of Python.",
        all(ready),
        facts={"workers": [row[0] for row in rows], "ready_after_s": {row[0]: row[3] for row in rows}},
    )


@dataclass(frozen=True)
class _Arrival:
    worker: Worker
    fields: dict[str, Any]
    after_s: float


def _push(
    writer: Writer, target: str, values: dict[str, Any], workers: Sequence[Worker], **options: Any
) -> tuple[Receipt, list[_Arrival]]:
    """Push, and wait until each of *workers* told of the change; times are measured in the workers."""
    marks = {worker.name: worker.told() for worker in workers}
    receipt = writer.push(target, values, by="operator", **options)
    arrivals = []
    for worker in workers:
        told = worker.wait_for(
            lambda one: one["event"] == "change" and set(values) & one["fields"].keys() != set(),
            f"the change of {', '.join(values)}",
            after=marks[worker.name],
        )
        arrivals.append(_Arrival(worker, told["fields"], told["at_s"] - receipt.pushed_s))
    return receipt, arrivals


def push(stage: Stage) -> Act:
    """Push to every service, then to one."""
    commands = (
        "tars-settings push _all log_level=DEBUG",
        "tars-settings push stt-worker vad_threshold=0.62 silence_s=0.8",
    )
    with stage.writer() as writer:
        everyone = {"log_level": "DEBUG"}
        _, first = _push(writer, ALL, everyone, stage.workers, plain=everyone)
        values = {"vad_threshold": 0.62, "silence_s": 0.8}
        receipt, second = _push(writer, "stt-worker", values, stage.of("stt-worker"))
        report = receipt.wait(DEADLINE_S)
    arrivals = [*first, *second]
    rows = [(one.worker.name, _listed(one.fields), one.after_s) for one in arrivals]
    return Act(
        "push",
        "A push arrives in every running worker",
        Table(("worker", "now has", "after"), rows_of([(*row[:2], _milliseconds(row[2])) for row in rows])),
        "Signed, sent, verified, validated, swapped: until the worker's own callback.",
        report.stage == "retained" and not report.refused and second[0].fields == values,
        commands,
        {"after_s": [{"worker": one.worker.name, "fields": one.fields, "s": one.after_s} for one in arrivals]},
    )


def secret(stage: Stage) -> Act:
    """Push a secret, and look for it at the broker."""
    with stage.writer() as writer:
        _, arrivals = _push(writer, "tts-worker", {"api_key": SECRET}, stage.of("tts-worker"), reason="new key")
    eventually(lambda: f"{PREFIX}/tts-worker/api_key" in stage.signed(), "the secret's topic is retained")
    payloads = stage.onlooker.retained()
    leaks = sum(SECRET.encode() in payload for payload in payloads.values())
    rows = [
        (one.worker.name, "api_key", shown(one.fields.get("api_key")), _milliseconds(one.after_s)) for one in arrivals
    ]
    return Act(
        "secret",
        "A secret travels encrypted, and is shown to nobody",
        Table(("worker", "key", "now has", "after"), rows_of(rows)),
        f"Topics at the broker: {len(payloads)}; with the secret in plain text: {leaks}.",
        leaks == 0 and all(one.fields.get("api_key") == MASK for one in arrivals),
        (f"tars-settings push tts-worker api_key={SECRET}",),
        {"topics": len(payloads), "leaks": leaks},
    )


def shadow(stage: Stage) -> Act:
    """Push a value that one worker's own environment pins."""
    free = [worker for worker in stage.of("stt-worker") if worker.name != stage.pinned]
    with stage.writer() as writer:
        receipt, _ = _push(writer, "stt-worker", {"whisper_model": "base.en"}, free)
        report = receipt.wait(DEADLINE_S)
    rows = []
    for reply in report.replies:
        worker = next(one for one in stage.workers if one.name == f"{reply.service}@{reply.instance}")
        note = f"shadowed by {reply.shadowed['whisper_model']}" if reply.shadowed else ""
        rows.append((worker.name, reply.fate, worker.look()["values"]["whisper_model"], note))
    held = {row[0]: row[2] for row in rows}
    return Act(
        "shadow",
        "A worker's own environment wins, and the push says so",
        Table(("worker", "fate", "whisper_model", "note"), rows_of(rows)),
        "Arguments and environment stand above the fleet's values; defaults below.",
        held.pop(stage.pinned) == PINNED_MODEL
        and set(held.values()) <= {"base.en"}
        and any(reply.shadowed for reply in report.replies),
        ("tars-settings push stt-worker whisper_model=base.en",),
        {"pinned": stage.pinned, "models": {row[0]: row[2] for row in rows}},
    )


# --- refusals ------------------------------------------------------------------------------------------------------


def _thresholds(stage: Stage) -> set[float]:
    return {worker.look()["values"]["vad_threshold"] for worker in stage.of("stt-worker")}


def _count(stage: Stage, counter: str) -> int:
    return sum(int(worker.look()["counters"].get(counter, 0)) for worker in stage.of("stt-worker"))


def _attack(stage: Stage, topic: str, payload: bytes) -> float:
    """Publish something in place of a winner, and return after how long the winner was back."""
    winner = stage.signed()[topic]
    mark = len(stage.onlooker.history(topic))
    stage.onlooker.publish(topic, payload)
    eventually(lambda: _repaired_s(stage, topic, mark, payload, winner) is not None, "the winner is back")
    return _repaired_s(stage, topic, mark, payload, winner) or 0.0


def _repaired_s(stage: Stage, topic: str, mark: int, attack: bytes, winner: bytes) -> float | None:
    """Return the time from the attack's arrival at the broker to the winner's, None where either is not there yet."""
    seen = stage.onlooker.history(topic)[mark:]
    attacked_s = next((at_s for at_s, payload in seen if payload == attack), None)
    if attacked_s is None:
        return None
    return next((at_s - attacked_s for at_s, payload in seen if payload == winner and at_s > attacked_s), None)


def refuse(stage: Stage) -> Act:
    """A forged push, a replayed one, and two that do not fit the model."""
    topic = f"{PREFIX}/stt-worker/vad_threshold"
    old = stage.settled()[topic]
    with stage.writer() as writer:
        _push(writer, "stt-worker", {"vad_threshold": 0.7}, stage.of("stt-worker"))
        eventually(lambda: stage.signed()[topic] != old, "the newer push is retained")
        before = {
            name: _count(stage, name) for name in ("rejected unknown-writer", "rejected bad-signature", "superseded")
        }
        fake_s = _attack(stage, topic, forged(old, stage.fleet.fleet))
        replay_s = _attack(stage, topic, old)
        counted = {name: _count(stage, name) - count for name, count in before.items()}
        rows = [
            ("signed by a stranger", f"rejected; the good one is back after {_milliseconds(fake_s)}"),
            ("an old one again", f"superseded; the good one is back after {_milliseconds(replay_s)}"),
        ]
        untouched = _thresholds(stage) == {0.7}
        at_push, at_worker = _out_of_range(stage, writer)
    rows += [("vad_threshold=7", f"not signed: {at_push}"), ("the same, by an old model", f"refused: {at_worker}")]
    safe = untouched and _thresholds(stage) == {0.62}
    return Act(
        "refuse",
        "Forged, replayed and invalid pushes change nothing",
        Table(("what arrives", "what becomes of it"), rows_of(rows)),
        "No worker read another value. Then the operator put vad_threshold to 0.62.",
        safe and bool(at_push) and bool(at_worker) and sum(counted.values()) > 0,
        facts={"counted": counted, "back_after_s": {"forged": fake_s, "replayed": replay_s}, "message": at_worker},
    )


def _out_of_range(stage: Stage, writer: Writer) -> tuple[str, str]:
    """Push a value that the model refuses, twice: against its schema, and past it. Return both refusals."""
    at_push = at_worker = ""
    try:
        writer.push("stt-worker", {"vad_threshold": 7})
    except InvalidValueError as error:
        at_push = one_line(str(error))
    receipt = writer.push(LaxSttSettings, {"vad_threshold": 7})
    report = receipt.wait(DEADLINE_S)
    if len(report.refused) == len(stage.of("stt-worker")) and _thresholds(stage) == {0.7}:
        at_worker = one_line(report.refused[0].message)
    _push(writer, "stt-worker", {"vad_threshold": 0.62}, stage.of("stt-worker"))
    return at_push, at_worker


# --- loss ----------------------------------------------------------------------------------------------------------


def amnesia(stage: Stage) -> Act:
    """Kill the broker, start it without its memory, and let the workers fill it."""
    before = stage.settled()
    stage.broker.kill()
    eventually(lambda: all(worker.look()["state"] == "stale" for worker in stage.workers), "the workers notice")
    kept = _thresholds(stage)
    eventually(lambda: not stage.onlooker.is_connected, "the onlooker notices")
    stage.broker.start()
    began_s = time.monotonic()
    eventually(lambda: stage.onlooker.is_connected, "the onlooker is back")
    after = len(stage.signed())
    eventually(lambda: stage.holds(before), "all topics are back, byte for byte")
    refilled_s = time.monotonic() - began_s
    for worker in stage.workers:
        eventually(lambda one=worker: one.look()["state"] == "ready", f"{worker.name} is ready again")  # type: ignore[misc]
    rows = [
        ("topics before", len(before)),
        ("topics after the restart", after),
        ("topics that the workers brought back, byte for byte", len(before)),
        ("time from its restart", _milliseconds(refilled_s)),
    ]
    return Act(
        "amnesia",
        "The broker is killed and forgets; the fleet fills it again",
        Table(("", "count"), rows_of(rows)),
        "No operator was there. Meanwhile the workers went on with what they had.",
        kept == {0.62} and len(before) > 0,
        ("kill -9 the broker, and start it empty",),
        {"topics": len(before), "left": after, "refilled_s": refilled_s},
    )


def late(stage: Stage) -> Act:
    """Start a worker that saw nothing of all this, and ask everybody."""
    worker = stage.employ("stt-worker", "garage")
    told = worker.wait_for(_is("ready"), "that it is ready")
    values = told["values"]
    took_s = told["at_s"] - worker.started_s
    with stage.writer() as writer:
        reports = _reports(stage, writer)
    rows = [(one.name, one.presence.state, "yes" if one.is_in_step else "no") for one in reports]
    wanted = {"vad_threshold": 0.62, "silence_s": 0.8, "whisper_model": "base.en", "log_level": "DEBUG"}
    has = {name: values[name] for name in wanted}
    return Act(
        "late",
        "A worker that starts later has it all, and everyone agrees",
        Table(("worker", "state", "in step"), rows_of(rows)),
        f"{worker.name} has {_listed(has)} after {_milliseconds(took_s)}.",
        has == wanted and len(rows) == len(stage.workers) and all(one.is_in_step for one in reports),
        ("tars-settings status",),
        {"values": has, "ready_after_s": took_s},
    )


def _reports(stage: Stage, writer: Writer) -> list[Report]:
    """Return what every worker reports, once all of them have caught up or the deadline has passed."""
    found: list[Report] = []

    def agree() -> bool:
        scopes = {scope for one in stage.workers for scope in scopes_of(one.service, one.instance)}
        for scope in sorted(scopes):
            writer.sync(scope)
        expected = {scope: scope_report(scope, writer.view(scope)) for scope in scopes}
        found[:] = [Report(presence, expected) for presence in writer.presences()]
        return len(found) == len(stage.workers) and all(one.is_in_step for one in found)

    eventually(agree, "every worker reports that it is in step")
    return found


ACTS: Final[tuple[Callable[[Stage], Act], ...]] = (start, push, secret, shadow, refuse, amnesia, late)
