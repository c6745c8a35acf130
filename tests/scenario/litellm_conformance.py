"""The contract of a provider, kept by the kind `litellm`: run by an environment that has it, in a folder of its own.

`python litellm_conformance.py` prints what it found as one line of JSON: the promises that were kept, every host that
the process has asked for, what of the folder's `.env` has reached the environment, and whether litellm was imported
before it was needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
import sys
import zlib
from typing import Any

from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import Provider, ProviderRequest
from windlass.gateway.providers import upstreams
from windlass.gateway.wire import parse_chat
from windlass.testing import check_provider

USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
BEDROCK_USAGE = {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}
GONE_S = 5.0
"""Far more than it takes, on a machine however busy, and far less than a garbage collector may."""
Said = tuple[str, list[bytes]]
hosts: set[str] = set()


def heard(event: str, arguments: tuple[Any, ...]) -> None:
    """Note whom the process turns to."""
    if event == "socket.getaddrinfo":
        hosts.add(str(arguments[0]))
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        hosts.add(str(arguments[1][0]))


def chat(asked: dict[str, Any]) -> Said:
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "word"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return plain({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE})
    parts: list[dict[str, Any]] = [{"index": 0, "delta": {"content": word}} for word in ("one ", "word")]
    parts.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    said = [{"id": "c", "object": "chat.completion.chunk", "choices": [part]} for part in parts]
    return "text/event-stream", [*(event(one) for one in said), b"data: [DONE]\n\n"]


def messages(asked: dict[str, Any]) -> Said:
    head = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    usage = {"input_tokens": 3, "output_tokens": 1}
    if not asked.get("stream"):
        content = [{"type": "text", "text": "word"}]
        return plain({**head, "content": content, "stop_reason": "end_turn", "usage": usage})
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return "text/event-stream", [b"event: " + one["type"].encode() + b"\n" + event(one) for one in said]


def converse(_asked: dict[str, Any]) -> Said:
    """Bedrock's, whole."""
    message = {"role": "assistant", "content": [{"text": "word"}]}
    return plain({"output": {"message": message}, "stopReason": "end_turn", "usage": BEDROCK_USAGE})


def converse_stream(_asked: dict[str, Any]) -> Said:
    """Bedrock's, in frames."""
    said: list[tuple[str, dict[str, Any]]] = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "word"}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": BEDROCK_USAGE, "metrics": {"latencyMs": 1}}),
    ]
    return "application/vnd.amazon.eventstream", [frame(name, payload) for name, payload in said]


def frame(name: str, payload: dict[str, Any]) -> bytes:
    """One event of AWS's framing (Amazon Transcribe developer guide, "Event stream encoding")."""
    told = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for key, value in told.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    framed = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return framed + struct.pack(">I", zlib.crc32(framed))


def vectors(asked: dict[str, Any]) -> Said:
    data = [{"object": "embedding", "index": at, "embedding": [0.6, 0.8]} for at in range(len(asked["input"]))]
    return plain({"object": "list", "data": data, "model": "m", "usage": USAGE})


def plain(value: Any) -> Said:
    return "application/json", [json.dumps(value).encode()]


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


WAYS = {
    b"/chat/completions": chat,
    b"/messages": messages,
    b"/converse": converse,
    b"/converse-stream": converse_stream,
    b"/embeddings": vectors,
}
UPSTREAMS = ("openai/m", "anthropic/m", "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0")


async def read(reader: asyncio.StreamReader) -> Said:
    """One request, and what there is to say to it, in the dialect of its path."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    assert length is not None
    asked = json.loads(await reader.readexactly(int(length[1])))
    path = head.split(b" ")[1]
    return next(way for end, way in WAYS.items() if path.endswith(end))(asked)


async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and hang up."""
    kind, parts = await read(reader)
    body = b"".join(parts)
    lines = ("HTTP/1.1 200 OK", f"content-type: {kind}", f"content-length: {len(body)}", "connection: close", "", "")
    writer.write("\r\n".join(lines).encode() + body)
    await writer.drain()
    writer.close()


async def left_at_once(upstream: str) -> None:
    """An upstream that stops in the middle sees at once that nobody listens any more, without a read that waits."""
    gone = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, parts = await read(reader)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode())
        writer.write(b"".join(parts[:-2]))
        await writer.drain()
        await reader.read()
        gone.set()
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        provider = made(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", upstream)
        reply = await provider.send(request(upstream, stream=True))
        assert await anext(aiter(reply.chunks))
        await reply.chunks.aclose()
        async with asyncio.timeout(GONE_S):
            await gone.wait()
        await provider.close()


async def not_led_elsewhere(upstream: str) -> None:
    """A redirect is an answer like any other: nobody else gets to see the prompt and the key."""
    knocked: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.append(await reader.readuntil(b"\r\n"))
        writer.close()

    async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        port = other.sockets[0].getsockname()[1]
        lines = ("HTTP/1.1 307 X", f"location: http://127.0.0.1:{port}/v1", "content-length: 0", "connection: close")
        writer.write("\r\n".join((*lines, "", "")).encode())
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(elsewhere, "127.0.0.1", 0) as other,
        await asyncio.start_server(moved, "127.0.0.1", 0) as server,
    ):
        provider = made(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", upstream)
        for stream in (False, True):
            reply = await provider.send(request(upstream, stream=stream))
            assert reply.status == 307, reply
            await reply.chunks.aclose()
        await provider.close()
    assert knocked == []


def request(upstream: str, **more: Any) -> ProviderRequest:
    body = json.dumps({"model": upstream, "messages": [{"role": "user", "content": "Hi"}], **more}).encode()
    return ProviderRequest("call_1", "m", body, parse_chat(body))


def made(url: str, upstream: str) -> Provider:
    options = {"params": {"aws_region_name": "eu-central-1"}} if upstream.startswith("bedrock/") else {}
    models = (ModelOptions(name="m", upstream=upstream),)
    provider = ProviderOptions(name="tail", kind="litellm", base_url=url, models=models, options=options)
    return upstreams.make(provider, "sk-of-the-settings")


async def imported(provider: Provider) -> None:
    """The first request imports litellm, which no promise allows the time for on a busy machine."""
    reply = await provider.send(request(UPSTREAMS[0]))
    assert reply.status == 200, reply
    await reply.chunks.aclose()
    await provider.close()


async def check() -> list[str]:
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    kept = []
    async with server:
        await imported(made(url, UPSTREAMS[0]))
        for upstream in UPSTREAMS:
            await check_provider(
                lambda name=upstream: made(url, name), broken=lambda name=upstream: made("http://127.0.0.1:1/v1", name)
            )
            await left_at_once(upstream)
            await not_led_elsewhere(upstream)
            kept.append(upstream)
    return kept


if __name__ == "__main__":
    sys.addaudithook(heard)
    for name in UPSTREAMS:
        made("", name)
    early = "litellm" in sys.modules
    kept = asyncio.run(check())
    env = os.environ.get("FROM_THE_FILE", "")
    found = {"kept": kept, "hosts": sorted(hosts), "env": env, "early": early, "late": "litellm" in sys.modules}
    sys.stdout.write(json.dumps(found) + "\n")
