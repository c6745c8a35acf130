"""What the tests of the provider kinds share: an upstream whose every byte the test writes, and golden dialects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.golden.application import Upstream, upstream

from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import Provider, ProviderReply, ProviderRequest
from windlass.gateway.providers import upstreams
from windlass.gateway.wire import parse_chat

GOLDEN = Path(__file__).parents[3] / "golden" / "dialects"
KEY = "key-that-nobody-may-see"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def options(kind: str, url: str = "", models: tuple[ModelOptions, ...] = (), **more: Any) -> ProviderOptions:
    """A provider `up` of this kind."""
    return ProviderOptions(name="up", kind=kind, base_url=url, models=models or (ModelOptions(name="shown"),), **more)


def request(model: str = "sent", call: str = "c1", **fields: Any) -> ProviderRequest:
    """A chat for the model `shown`, whose own name upstream is `model`."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    raw = json.dumps(body).encode()
    return ProviderRequest(call, "shown", raw, parse_chat(raw))


def streamed(**fields: Any) -> ProviderRequest:
    """A chat to be streamed, with its usage."""
    return request(stream=True, stream_options={"include_usage": True}, **fields)


@asynccontextmanager
async def connected(kind: str, answer: Answer, **more: Any) -> AsyncIterator[tuple[Any, Upstream]]:
    """A provider of this kind as the settings make it, and its upstream."""
    async with upstream(answer) as server:
        provider: Provider = upstreams.make(options(kind, server.url, **more), KEY)
        try:
            yield provider, server
        finally:
            await provider.close()


def whole(status: str, body: bytes, *headers: str, kind: str = "application/json") -> Answer:
    """An answer with its length; the next request comes over a connection of its own, for one answers once."""
    own = [f"content-type: {kind}", f"content-length: {len(body)}", "connection: close"]
    return says("\r\n".join([f"HTTP/1.1 {status}", *own, *headers, "", ""]).encode() + body)


def says(*parts: bytes) -> Answer:
    """These bytes, one packet each; the connection stays open."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


def events(body: bytes, seed: int = 0, *, ended: bool = True) -> Answer:
    """A chunked stream of events, split at random places. ended: with the chunk of no length that makes it whole."""
    rng, parts = Random(seed), [CHUNKED]
    while body:
        size = rng.choice((1, 2, 3, 7, 40, 200, 1000))
        parts.append(b"%x\r\n%b\r\n" % (len(body[:size]), body[:size]))
        body = body[size:]
    return says(*parts, *([b"0\r\n\r\n"] if ended else []))


async def read(reply: ProviderReply) -> bytes:
    """All of it."""
    return b"".join([chunk async for chunk in reply.chunks])


def head_of(server: Upstream) -> tuple[str, dict[str, str], bytes]:
    """The first line, the headers and the body of the request that came."""
    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return first, {name.lower(): value for name, _, value in pairs}, body


def without_time(chat: bytes) -> bytes:
    """A chat reply with the time that the golden files have."""
    return b'"created":1,'.join(
        part.partition(b",")[2] if n else part for n, part in enumerate(chat.split(b'"created":'))
    )


def golden(kind: str, dialect: str) -> list[Path]:
    """Every kept answer of a dialect that becomes a chat."""
    ending = "txt" if kind == "streams" else "json"
    found = GOLDEN.joinpath(kind).glob(f"*.{dialect}.{ending}" if kind != "errors" else f"*.{dialect}.*.{ending}")
    return sorted(path for path in found if ".to-" not in path.name and as_chat(path).exists())


def as_chat(path: Path) -> Path:
    """What a chat client gets for it."""
    return path.with_name(f"{path.stem}.to-chat{path.suffix}")
