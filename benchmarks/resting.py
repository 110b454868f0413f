"""A worker that rests, and one that is told something: memory, processor, bytes on the wire, writes to the disk.

``python -m benchmarks.resting [--full]``
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import ROOT, Answer, Curve, Goal, check, directory, main
from benchmarks.pushing import Publisher
from benchmarks.stage import Stage, mosquitto

FIELDS = 50
SIZES = (0, 1_000, 10_000)
PROBATION_S = 2
WORKER = """
import gc, json, os, resource, sys, time
import tars_settings, tars_settings.join, tars_settings.adapters.mqtt, nacl.bindings, sqlite3, diskcache
from benchmarks.stage import model
from tars_settings.adapters.lkg import DiskLkg
cls = model(int(sys.argv[1]))
lkg = {"writes": 0}

def write(*given, held=DiskLkg.write, **more):
    lkg["writes"] += 1
    held(*given, **more)

DiskLkg.write = write

def tell(**more):
    gc.collect()
    pages = dict(line.split(":") for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    disk = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    own_kib = sum(int(pages[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
    print(json.dumps({"own_kib": own_kib, "rss_kib": int(pages["Rss"].split()[0]), "cpu_s": time.process_time(),
        "disk": int(disk["write_bytes"]), "written": int(disk["wchar"]), **more}), flush=True)

tell()
if sys.argv[2:] == ["plain"]:
    sys.stdin.read()
with tars_settings.join(cls) as live:
    ready = live.wait_until_ready(120)
    peer = live._agent.replicator.peer
    while peer.unproven or not live._agent.replicator.quiet:
        time.sleep(0.05)
    time.sleep(0.5)  # until the last rows are stored, and the last known good values
    for line in sys.stdin:
        keys = sum(len(peer.registers.winners(scope)) for scope in peer.registers.scopes())
        tell(ready=ready, value=live.current.k00007, keys=keys, counters=dict(live.status.counters), lkg=lkg["writes"])
"""


class Meter:
    """A relay in front of a broker that counts what passes, by direction."""

    def __init__(self, port: int) -> None:
        self.up = self.down = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._port))
            for one in (client, broker):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._relay, args=(client, broker, "up"), daemon=True).start()
            threading.Thread(target=self._relay, args=(broker, client, "down"), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while chunk := source.recv(65536):
                setattr(self, way, getattr(self, way) + len(chunk))
                sink.sendall(chunk)
        except OSError:
            pass
        for one in (source, sink):
            one.close()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()


class Lone:
    """One worker as a process that says what it uses when asked."""

    def __init__(self, stage: Stage, member: str, broker: str, fields: int, *more: str) -> None:
        environment = {
            **os.environ,
            **stage.fleet.environment(member),
            "TARS_SETTINGS_BROKER": broker,
            "TARS_SETTINGS_PROBATION_S": str(PROBATION_S),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(fields), *more],
            env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.before = self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        check(line, "the worker ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self) -> dict[str, Any]:
        """Return what it uses now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def end(self) -> None:
        """Let it leave."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def measure(full: bool) -> Answer:
    """Look at a worker with 50 keys at rest, at pushes to it, and at workers with many keys."""
    answer = Answer(
        "resting", "What a worker costs", "a process of its own behind a counting relay; /proc says the rest"
    )
    for keys in SIZES:
        _memory(answer, keys)
    _memory_goal(answer)
    _rest_and_pushes(answer, 600.0 if full else 45.0)
    return answer


def _memory(answer: Answer, keys: int) -> None:
    with directory() as there, mosquitto(there) as broker:
        stage = Stage(there / "fleet", broker.url, keys)
        stage.put_on(broker.port)
        worker = Lone(stage, "w", broker.url, FIELDS)
        now = worker.ask()
        worker.end()
        check(now["ready"], "it is not ready")
        check(now["keys"] == keys, f"it holds {now['keys']} keys of {keys}")
        answer.add(f"memory of its own, {keys:,} keys in the scope", "KiB", [now["own_kib"]])
        if not keys:
            answer.add("memory of its own before joining, all imported", "KiB", [worker.before["own_kib"]], "floor")
            answer.add("resident, shared pages too, no keys", "KiB", [now["rss_kib"]])


def _memory_goal(answer: Answer) -> None:
    held = {row.what: row.median or 0.0 for row in answer.rows}
    sizes = [held[f"memory of its own, {keys:,} keys in the scope"] for keys in SIZES]
    each = (sizes[-1] - sizes[0]) * 1024 / SIZES[-1]
    answer.add("memory for each of 10,000 keys", "bytes", [each])
    answer.goals.append(
        Goal(
            "memory, 10,000 keys",
            "bytes a key over the worker without keys",
            each,
            700.0,
            unit="bytes",
            note=MEMORY_NOTE,
        )
    )
    answer.curves.append(
        Curve("Memory of a worker", "keys in the scope", "KiB of its own", [*map(float, SIZES)], {"ours": list(sizes)})
    )


MEMORY_NOTE = (
    "It was 2,209, and 1,948 once a delta's bytes lay in the segment that carries them. The decoded body is not kept"
    " any more, nor a list of candidates for a key that has one, nor what a survey asked for and was told; SQLite keeps"
    " 256 KiB of pages instead of 2 MB. By tracemalloc what is left is the signed bytes (310), assignment with key and"
    " value (277), stamp, digest, delta and register (240), tables (90), and the fold of keys that the model does not"
    " have (100); the rest is the allocator's, which keeps what a join needs for a moment."
)


@contextmanager
def _metered(keys: int) -> Iterator[tuple[Stage, Meter, Lone, Publisher]]:
    """Yield a fleet with so many keys, a worker behind a meter, and who publishes to it past the meter."""
    with directory() as there, mosquitto(there) as broker:
        stage = Stage(there / "fleet", broker.url, keys)
        stage.put_on(broker.port)
        meter = Meter(broker.port)
        try:
            worker = Lone(stage, "w", f"mqtt://127.0.0.1:{meter.port}", FIELDS)
            yield stage, meter, worker, Publisher(broker.port)
            worker.end()
        finally:
            meter.close()


def _rest_and_pushes(answer: Answer, seconds: float) -> None:
    with _metered(FIELDS) as (stage, meter, worker, publisher):
        worker.ask()
        time.sleep(6.0)  # the schema, the report on readiness, the last known good values and their probation: once
        _rest(answer, worker, meter, seconds)
        _push(answer, stage, worker, publisher)
    for keys in (50, 1_000):
        _push_bytes(answer, keys)


def _rest(answer: Answer, worker: Lone, meter: Meter, seconds: float) -> None:
    first, up, down = worker.ask(), meter.up, meter.down
    time.sleep(seconds)
    asked = worker.ask()
    last = worker.ask()
    # What asking itself costs is measured by asking twice in a row.
    cpu_s = max(0.0, asked["cpu_s"] - first["cpu_s"] - (last["cpu_s"] - asked["cpu_s"]))
    wire = (meter.up - up + meter.down - down) / seconds
    answer.add("at rest: processor", "% of a core", [cpu_s / seconds * 100])
    answer.add("at rest: on the wire, both ways, payload of TCP", "bytes/s", [wire])
    answer.add("at rest: on the wire in an hour", "KiB", [wire * 3600 / 1024])
    disk = asked["disk"] - first["disk"]
    answer.add("at rest: written to the disk", "bytes", [disk])
    answer.goals += [
        Goal("idle worker", "processor", cpu_s / seconds * 100, 0.1, unit="% of a core"),
        Goal("idle worker", "bytes a second on the wire", wire, 100.0, unit="bytes/s"),
        Goal("idle worker", "writes to the disk", float(disk), 0.0, unit="bytes"),
    ]


def _push(answer: Answer, stage: Stage, worker: Lone, publisher: Publisher) -> None:
    """Count transactions, writes of last known good values, and bytes: for single changes, and for a burst of 100."""
    for what, count, pause_s in (("a change by itself", 10, 0.4), ("a burst of 100", 100, 0.0)):
        first = worker.ask()
        for turn in range(count):
            publisher.publish(stage.topic("k00007"), stage.delta("k00007", 5_000 + stage.epoch))
            publisher.rest() if pause_s or turn % 10 == 9 else None
            time.sleep(pause_s)
        time.sleep(PROBATION_S / 2)
        soon = worker.ask()
        time.sleep(PROBATION_S)
        now = worker.ask()
        check(now["value"] == 5_000 + stage.epoch - 1, f"{now['value']} is not what was pushed last")
        pushes = 1 if count == 100 else count
        transactions = (now["counters"]["transactions"] - first["counters"]["transactions"]) / pushes
        lkg_writes = (soon["lkg"] - first["lkg"]) / pushes
        check(lkg_writes, "nothing was kept as last known good")
        answer.add(f"{what}: transactions of the replica", "count", [transactions])
        answer.add(f"{what}: writes of the last known good values", "count", [lkg_writes])
        answer.add(f"{what}: ... and later, when the last of them has proven good", "count", [now["lkg"] - soon["lkg"]])
        answer.add(f"{what}: written to the disk", "bytes", [(now["disk"] - first["disk"]) / pushes])
        for of, found, alone in (
            ("transactions", transactions, ""),
            ("writes of the last known good values", lkg_writes, LKG_NOTE),
        ):
            limit, note = (1.0, alone) if count == 10 else (20.0, BURST_NOTE)
            answer.goals.append(Goal("flash writes per change", f"{of} for {what}", found, limit, unit="", note=note))


LKG_NOTE = (
    "Values are kept when they are in use, and marked when they have proven good, half a minute later by default: a"
    " second write, of which a change that is followed by another within that time has none."
)
BURST_NOTE = (
    "A burst is what arrives while the one before is worked on; a hundred deltas, a few hundred microseconds apart,"
    " are several."
)


def _push_bytes(answer: Answer, keys: int) -> None:
    with _metered(keys) as (stage, meter, worker, publisher):
        check(worker.ask()["ready"], "it is not ready")
        time.sleep(3.0)
        down, sizes = meter.down, []
        for _ in range(20):
            raw = stage.delta("k00007", 5_000 + stage.epoch)
            sizes.append(len(raw))
            publisher.publish(stage.topic("k00007"), raw)
            publisher.rest()
        time.sleep(1.0)
        check(worker.ask()["value"] == 5_000 + stage.epoch - 1, "the last push did not arrive")
        each = (meter.down - down) / 20
    what = f"a push of one key to a scope of {keys:,}"
    answer.add(f"{what}: bytes to each live reader", "bytes", [each])
    answer.goals.append(Goal("a push of one key, bytes to each live reader", f"{what}: against its delta",
                             each / (sum(sizes) / len(sizes)), 1.3))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(measure))
