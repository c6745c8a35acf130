"""A client that leaves is heard of by the request that it has left, over a real connection."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import uvicorn

from windlass.server import asgi
from windlass.server.connection import Connection, connection_of
from windlass.server.serve import listen

PATIENCE_S = 5.0
App = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def served(app: App) -> AsyncIterator[int]:
    """The port of a server whose only application is `app`."""
    with listen("127.0.0.1", 20_400) as listening:
        config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


async def _ask(port: int, body: bytes = b"x") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "paused reading"])
async def test_who_watches_hears_that_the_client_left(size: int) -> None:
    left, watching = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        await asgi.read_body(receive, 1_000_000)
        connection = connection_of(scope)
        assert connection is not None
        connection.watch(left.set)
        watching.set()
        await left.wait()

    async with served(app) as port:
        _, writer = await _ask(port, b"x" * size)
        await asyncio.wait_for(watching.wait(), PATIENCE_S)
        assert not left.is_set()
        writer.close()
        await asyncio.wait_for(left.wait(), PATIENCE_S)


async def test_it_is_told_at_once_where_the_client_has_left_before() -> None:
    told, arrived = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        await asgi.read_body(receive, 1_000)
        arrived.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        connection = connection_of(scope)
        assert connection is not None
        connection.watch(told.set)
        assert told.is_set()

    async with served(app) as port:
        _, writer = await _ask(port)
        await asyncio.wait_for(arrived.wait(), PATIENCE_S)
        writer.close()
        await asyncio.wait_for(told.wait(), PATIENCE_S)


async def test_a_request_that_is_over_hears_nothing_of_the_next_one_on_its_connection() -> None:
    heard: list[int] = []
    over = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = len(await asgi.read_body(receive, 1_000))
        connection = connection_of(scope)
        assert connection is not None

        def stop() -> None:
            heard.append(number)
            over.set()

        connection.watch(stop)
        if number == 2:
            await over.wait()
            return
        connection.unwatch(stop)
        await asgi.respond(send, 200, b"done")

    async with served(app) as port:
        reader, writer = await _ask(port, b"1")
        assert b"done" in await asyncio.wait_for(reader.readuntil(b"done"), PATIENCE_S)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n22")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.wait_for(over.wait(), PATIENCE_S)
    assert heard == [2]


def test_another_server_has_no_such_connection() -> None:
    assert connection_of({}) is None
    assert connection_of({"extensions": {"windlass.connection": "forged"}}) is None


async def test_who_leaves_with_a_request_behind_another_leaves_no_trace() -> None:
    """The first is stopped while the second waits: nothing is written to the closed connection, nothing raised."""
    watching, ended, troubles = asyncio.Event(), asyncio.Event(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        await asgi.read_body(receive, 100)
        connection, left = connection_of(scope), asyncio.Event()
        assert connection is not None
        connection.watch(left.set)
        watching.set()
        await left.wait()
        ended.set()

    async with served(app) as port:
        _, writer = await _ask(port)
        await asyncio.wait_for(watching.wait(), PATIENCE_S)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        await asyncio.sleep(0.05)
    gc.collect()
    assert troubles == []
