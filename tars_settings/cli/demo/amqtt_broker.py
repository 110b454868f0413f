"""An embedded broker in a process of its own: ``python -m tars_settings.cli.demo.amqtt_broker PORT``.

It keeps retained messages in memory only, and ends when stdin does: so it cannot outlive its parent.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from amqtt.broker import Broker


def _config(port: int) -> dict[str, Any]:
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }


async def _serve(port: int) -> None:
    broker = Broker(_config(port))
    await broker.start()
    await asyncio.to_thread(sys.stdin.read)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
