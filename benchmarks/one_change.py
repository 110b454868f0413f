"""One change: what work does a delta make in the worker, from bytes to the swapped snapshot?

Against the same five steps done bare, and against rebuilding ``BaseSettings()``.
``python -m benchmarks.one_change [--full]``
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import msgspec
from nacl.bindings import crypto_sign_open
from pydantic_settings import BaseSettings

from benchmarks.harness import Answer, Goal, check, cpu, directory, main, ratio, rounds, take_turns
from benchmarks.stage import Stage, Worker, plain_model
from tars_settings.core.delta import DeltaBody
from tars_settings.core.wire import Envelope, pae

FIELDS = 30
BATCH = 40
OURS, FLOOR, VERIFY = "our worker", "verify, decode, merge, validate, swap, bare", "verify alone"
REBUILD, REPEATED = "rebuild BaseSettings(), a .env of 30 lines", "our worker, a delta that it has (duplicate)"


def measure(full: bool) -> Answer:
    """Give a worker of 30 fields one signed delta after the other, the disk aside."""
    answer = Answer(
        "one_change",
        "One change, work in the worker",
        f"processor time for one delta, a model of {FIELDS} fields; storing comes later and is apart",
    )
    with directory() as there:
        stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", FIELDS)
        worker = Worker(stage, FIELDS)
        bare = Bare(stage.fleet.writer.public, stage.fleet.id)
        dotenv = there / ".env"
        dotenv.write_text("".join(f"BENCH_K{n:05d}=8\n" for n in range(FIELDS)))
        values = itertools.count(1000)

        def fresh() -> list[tuple[str, bytes]]:
            keys = [f"k{n % FIELDS:05d}" for n in range(BATCH)]
            return [(stage.topic(key), stage.delta(key, next(values))) for key in keys]

        def ours() -> float:
            batch = fresh()
            took = cpu(lambda: [worker.receive(raw, topic) for topic, raw in batch]) / BATCH
            check(worker.swaps == BATCH, f"{worker.swaps} swaps for {BATCH} deltas")
            worker.swaps = 0
            return took * 1e6

        cases = {
            OURS: ours,
            FLOOR: lambda: _each(bare.apply, fresh()),
            VERIFY: lambda: _each(bare.verify, fresh()),
            REPEATED: lambda: _again(worker, stage),
            REBUILD: lambda: cpu(lambda: _rebuild(dotenv), 3) * 1e6,
        }
        samples = take_turns(cases, rounds(full, 20, 100))
    for name in cases:
        answer.add(name, "us", samples[name], "ours" if name in (OURS, REPEATED) else "floor")
    answer.goals += [
        Goal("one change, work in the worker", f"{OURS} against {FLOOR}", ratio(samples, OURS, FLOOR), 1.25, note=NOTE),
        Goal("one change, work in the worker", "how much faster than rebuilding BaseSettings()",
             ratio(samples, REBUILD, OURS), 50.0, at_most=False, note=REBUILD_NOTE),
    ]  # fmt: skip
    return answer


NOTE = (
    "The bare steps trust the bytes: they check no canonical form, no names, grants or order, keep no second best for"
    " the day a key is stolen, tell nobody, and cannot say where a value came from. It was 4.2 x: the fold of a scope"
    " goes on from the last one, views are gathered when asked, a first difference ends the comparison, and nothing is"
    " hashed against a list of bad payloads that is empty. Then 184 us became 153: names and topics are remembered,"
    " the digest that recognises a copy is computed once, winners are not searched for trials where none is on trial."
    " 2.55 x became 2.1: what is new in a fold is looked for at its end, rows are named when they are written, a"
    " message is taken out of what was read as a whole (342 calls where there were 404). What is left is spread thin:"
    " 170 Python calls, of which none takes 7 us but the check (60). Tried without gain: libsodium's own entry without"
    " PyNaCl's copies of the message, key ids without a pattern, the collector off."
)


REBUILD_NOTE = (
    "The bare steps themselves are 65 to 70 x faster, checking a signature being most of them: 50 x would leave"
    " half a check for all the rest. And what is rebuilt became faster than when the goal was set (7 ms)."
)


class Bare:
    """The floor: the same steps with nothing around them. It trusts form, names, grants and order blindly."""

    def __init__(self, public: bytes, fleet: str) -> None:
        self._public = public
        self._fleet = fleet
        self._envelopes = msgspec.json.Decoder(Envelope)
        self._bodies = msgspec.json.Decoder(DeltaBody)
        self._winners: dict[str, tuple[Any, Any]] = {}
        self._values = {f"k{n:05d}": n for n in range(FIELDS)}
        self._model = plain_model(FIELDS)
        self.current = self._model(**self._values)

    def verify(self, raw: bytes) -> Envelope:
        """Check the signature."""
        envelope = self._envelopes.decode(raw)
        crypto_sign_open(envelope.sig + pae("delta", self._fleet, envelope.kid, bytes(envelope.body)), self._public)
        return envelope

    def apply(self, raw: bytes) -> None:
        """Check, decode, keep the later one, validate the whole model, swap."""
        body = self._bodies.decode(self.verify(raw).body)
        for item in body.assign:
            held = self._winners.get(item.key)
            if held is None or held[0] < (body.gen, body.epoch):
                self._winners[item.key] = ((body.gen, body.epoch), item.set)
                self._values[item.key] = item.set
        self.current = self._model(**self._values)


def _each(step: Any, batch: list[tuple[str, bytes]]) -> float:
    return cpu(lambda: [step(raw) for _, raw in batch]) / len(batch) * 1e6


def _again(worker: Any, stage: Stage) -> float:
    raw = stage.delta("k00001", stage.epoch)
    topic = stage.topic("k00001")
    worker.receive(raw, topic)
    worker.swaps = 0
    took = cpu(lambda: worker.receive(raw, topic), BATCH) * 1e6
    check(worker.swaps == 0, "a duplicate swapped")
    return took


def _rebuild(dotenv: Path) -> None:
    made: BaseSettings = plain_model(FIELDS, BaseSettings)(_env_file=dotenv)
    check(made.k00003 == 8, "the .env was not read")  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main(measure))
