"""Workers of one kind, as processes: ``python -m benchmarks.crowd KIND COUNT FILE CONFIG``.

One process imports what its kind needs and forks the workers, so that fifty take seconds to start. Each writes the time
at which it could use a value into a file that all share as memory: telling by a pipe would wake the reader, and on two
cores the reader would be in the way of what is measured.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST = 4096
"""Values that one run can push; slot 0 says that the worker is ready."""
Seen = Callable[[int], None]
KEY = "k00007"


class Stamps:
    """When (nanoseconds of the system's monotonic clock) each worker saw each value."""

    def __init__(self, path: Path, workers: int, *, create: bool = False) -> None:
        size = workers * MOST * 8
        if create:
            path.write_bytes(b"\0" * size)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)
        self.workers = workers

    def put(self, worker: int, seq: int) -> None:
        """Note that a worker sees a value now."""
        struct.pack_into("<Q", self._memory, (worker * MOST + seq) * 8, time.monotonic_ns())

    def get(self, worker: int, seq: int) -> int:
        """Return when, 0 where not yet."""
        stamp: int = struct.unpack_from("<Q", self._memory, (worker * MOST + seq) * 8)[0]
        return stamp

    def of(self, seq: int) -> list[int]:
        """Return the stamps of all workers."""
        return [self.get(worker, seq) for worker in range(self.workers)]


# --- one worker of each kind: it calls seen(0) when it is ready, seen(n) when it can use n ---------------------------


def raw(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """The raw hop: paho at QoS 1, and nothing done with what arrives."""
    _paho(config, seen, int)


def floor(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """The raw hop, then verify, decode, merge, validate and swap, bare."""
    from benchmarks.one_change import Bare

    bare = Bare(bytes.fromhex(config["public"]), config["fleet"])

    def use(payload: bytes) -> int:
        bare.apply(payload)
        return int(getattr(bare.current, KEY))

    _paho(config, seen, use)


def _paho(config: dict[str, Any], seen: Seen, use: Callable[[bytes], int]) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: seen(0)
    client.on_message = lambda _client, _data, message: None if message.retain else seen(use(message.payload))
    client.connect("127.0.0.1", config["port"])
    client.subscribe(config["topic"], qos=1)
    client.loop_forever()


def ours(config: dict[str, Any], worker: int, seen: Seen) -> None:
    """A worker of ours, as it comes: signatures, validation, replica, last known good values, presence."""
    import tars_settings
    from benchmarks.stage import model

    given = {**config["given"], "instance": f"w{worker}", "state_dir": f"{config['states']}/w{worker}"}
    with tars_settings.join(model(config["fields"]), **given) as live:
        swap = live._follower.on_swap

        def on_swap(snapshot: Any, epoch: int) -> None:
            swap(snapshot, epoch)
            seen(max(0, getattr(live.current, KEY)) if epoch > config["epoch"] else 0)

        live._follower.on_swap = on_swap
        if live.wait_until_ready(60):
            time.sleep(config.get("pause_s", 0.0))
            seen(0)
        threading.Event().wait()


def redis(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """redis-py: a hash and a channel; the message carries the value."""
    import redis as library

    channel = library.Redis(port=config["port"]).pubsub(ignore_subscribe_messages=True)
    channel.subscribe("config")
    channel.get_message(timeout=5)
    values: dict[str, Any] = {}
    seen(0)
    for message in channel.listen():
        values.update(json.loads(message["data"]))
        seen(values[KEY])


def nats(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """nats-py: a watch on a bucket."""
    import asyncio

    import nats as library

    async def follow() -> None:
        client = await library.connect(f"nats://127.0.0.1:{config['port']}")
        bucket = await client.jetstream().key_value("config")
        watch = await bucket.watchall()
        values: dict[str, Any] = {}
        async for update in watch:
            if update is None:
                seen(0)
                continue
            values[update.key] = json.loads(update.value)
            seen(values[KEY])

    asyncio.run(follow())


def etcd(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """grpcio: a watch on a prefix."""
    from benchmarks.etcd import Etcd

    values: dict[str, Any] = {}
    for update in Etcd(config["port"]).watch(b"config/", on_created=lambda: seen(0)):
        values.update(update)
        seen(int(values[f"config/{KEY}".encode()]))


def central(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """A worker of a central service: it is told the whole configuration, and builds its model anew."""
    from benchmarks.stage import plain_model

    model = plain_model(config["fields"])
    _paho(config, seen, lambda payload: int(getattr(model(**json.loads(payload)), KEY)))


def central_service(config: dict[str, Any], _worker: int, seen: Seen) -> None:
    """The service: asked over MQTT to set a key, it commits it to SQLite and publishes the whole configuration."""
    import sqlite3

    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    table = sqlite3.connect(f"{config['states']}/central.sqlite3")
    table.execute("CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT)")
    values: dict[str, Any] = {f"k{n:05d}": n for n in range(config["fields"])}

    def on_message(client: Client, _data: Any, message: Any) -> None:
        asked = json.loads(message.payload)
        values.update(asked)
        table.executemany(
            "INSERT OR REPLACE INTO settings VALUES (?, ?)", [(k, json.dumps(v)) for k, v in asked.items()]
        )
        table.commit()
        client.publish(config["topic"], json.dumps(values), qos=1, retain=True)

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: seen(0)
    client.on_message = on_message
    client.connect("127.0.0.1", config["port"])
    client.subscribe("central/set", qos=1)
    client.loop_forever()


KINDS: dict[str, Callable[[dict[str, Any], int, Seen], None]] = {
    "raw": raw,
    "floor": floor,
    "ours": ours,
    "redis": redis,
    "nats": nats,
    "etcd": etcd,
    "central": central,
    "central_service": central_service,
}
# grpc does not survive a fork: what a kind imports before, if anything.
WARM = {"ours": "tars_settings", "raw": "paho.mqtt.client", "redis": "redis", "nats": "nats"}


def work(kind: str, config: dict[str, Any], worker: int, stamps: Stamps) -> None:
    """Be one worker. A busy one gives its main thread to a loop that never waits, as a worker at work does."""

    def seen(seq: int) -> None:
        stamps.put(worker, seq)

    if not config.get("busy"):
        KINDS[kind](config, worker, seen)
        return
    threading.Thread(target=KINDS[kind], args=(config, worker, seen), daemon=True).start()
    while True:
        sum(n * n for n in range(200))


def main() -> None:
    kind, count, file, config_text = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    config = json.loads(config_text)
    stamps = Stamps(file, count)
    if kind in WARM:
        __import__(WARM[kind])
    if kind == "ours":
        from benchmarks.stage import model

        model(config["fields"])
    children = []
    for worker in range(count):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                work(kind, config, worker, stamps)
            finally:
                os._exit(1)
        children.append(child)
    print(json.dumps(children), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGKILL) for child in children])
    sys.stdin.read()  # until whoever started this ends or closes the pipe
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
