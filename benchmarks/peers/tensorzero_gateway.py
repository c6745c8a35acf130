"""TensorZero's gateway from its Python package, in a process of its own. Run in the peer's environment.

usage: python tensorzero_gateway.py CONFIG [embedded]

Without `embedded` it serves HTTP and prints its port. With it, the gateway is called as a library in this process: each
line `COUNT CONNECTIONS KB STREAMED AT_ONCE` on its input is answered with the CPU seconds of so many inferences, less
those of the same loop around nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

tensorzero: Any = importlib.import_module("tensorzero")
uvloop: Any = importlib.import_module("uvloop")
FUNCTION = "auto"


def serve(config: str) -> None:
    """The package starts the very gateway that its Docker image serves."""
    gateway = tensorzero._start_http_gateway(
        config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    print(urlsplit(gateway.base_url).port, flush=True)
    sys.stdin.read()


async def embedded(config: str) -> None:
    client = await tensorzero.AsyncTensorZeroGateway.build_embedded(config_file=config)
    print(0, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, connections, kilobytes, streamed, at_once = map(int, line.split())
        text = ("[at once] " if at_once else "") + ("a pawl holds the wheel " * (kilobytes * 46))[: kilobytes * 1_000]
        used = [await _cpu_s(one, count, connections) for one in (_infer(client, text, bool(streamed)), _nothing)]
        print(used[0] - used[1], flush=True)


def _infer(client: Any, text: str, streamed: bool) -> Callable[[], Awaitable[None]]:
    asked = {"messages": [{"role": "user", "content": text}]}

    async def one() -> None:
        reply = await client.inference(function_name=FUNCTION, input=asked, stream=streamed)
        if streamed:
            async for _ in reply:
                pass

    return one


async def _nothing() -> None:
    await asyncio.sleep(0)


async def _cpu_s(one: Callable[[], Awaitable[None]], count: int, connections: int) -> float:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await one()

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(connections)))
    return time.process_time() - began


if __name__ == "__main__":
    if sys.argv[2:] == ["embedded"]:
        uvloop.run(embedded(sys.argv[1]))
    else:
        serve(sys.argv[1])
