"""Anthropic's own: where requests go, their headers, Messages that go up as they came, and its options."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.gateway.providers.kinds import (
    GOLDEN,
    KEY,
    connected,
    events,
    head_of,
    options,
    read,
    request,
    says,
    streamed,
    whole,
)

from windlass.errors import UpstreamError
from windlass.gateway.provider import Embeds, RawRequest, Relays
from windlass.gateway.providers.anthropic import Anthropic

REPLY = (GOLDEN / "replies" / "text.messages.json").read_bytes()
STREAM = (GOLDEN / "streams" / "text.messages.txt").read_bytes()
RAW = b'{"model":"sent","max_tokens":9, "messages":[{"role":"user","content":"h\\u00e9"}],"x_new":1.50}'


async def test_a_chat_goes_to_messages() -> None:
    async with connected("anthropic", whole("200 OK", REPLY)) as (provider, server):
        await read(await provider.send(request()))
        first, headers, body = head_of(server)
    assert first == "POST /v1/messages HTTP/1.1"
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "anthropic-beta" not in headers
    assert "authorization" not in headers
    sent = json.loads(body)
    assert (sent["model"], sent["max_tokens"], "stream" in sent) == ("sent", 4096, False)
    assert "Hi" in json.dumps(sent["messages"])


async def test_its_options_show_in_the_request() -> None:
    given: dict[str, Any] = {"version": "2030-01-02", "beta": ["one-1", "two.2"], "max_tokens": 7_000, "adaptive": True}
    async with connected("anthropic", events(STREAM), options=given) as (provider, server):
        await read(await provider.send(streamed(reasoning_effort="low")))
        _, headers, body = head_of(server)
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2030-01-02", "one-1,two.2")
    sent = json.loads(body)
    assert sent["stream"] is True
    assert sent["max_tokens"] >= 7_000
    assert sent["thinking"]["type"] == "adaptive"


async def test_a_reply_has_the_model_that_was_asked_for_and_the_time_of_the_clock() -> None:
    async with connected("anthropic", whole("200 OK", REPLY)) as (_, server):
        provider = Anthropic(options("anthropic", server.url), KEY, clock=lambda: 1234.5)
        told = json.loads(await read(await provider.send(request("claude-of-its-own"))))
        await provider.close()
    assert (told["model"], told["created"]) == ("shown", 1234)


@pytest.mark.parametrize("path", ["/messages", "/messages/count_tokens"])
@pytest.mark.parametrize("status", ["200 OK", "529 Overloaded"])
async def test_messages_go_up_and_come_down_byte_for_byte(path: str, status: str) -> None:
    said = b'{"x": 1.50, "\\u00e9": []}  '
    async with connected("anthropic", whole(status, said, "request-id: req_1")) as (provider, server):
        reply = await provider.relay(RawRequest("c1", "shown", "POST", path, RAW, "application/json"))
        assert (reply.status, await read(reply)) == (int(status[:3]), said)
        assert reply.headers == {"request-id": "req_1"}
        first, headers, body = head_of(server)
    assert (first, body) == (f"POST /v1{path} HTTP/1.1", RAW)
    assert (headers["x-api-key"], headers["content-type"]) == (KEY, "application/json")


async def test_a_relayed_stream_is_untouched_and_a_cut_one_fails() -> None:
    relayed = RawRequest("c1", "shown", "POST", "/messages", RAW, "application/json")
    async with connected("anthropic", events(STREAM, 1)) as (provider, _):
        assert await read(await provider.relay(relayed)) == STREAM

    async def cut(writer: asyncio.StreamWriter) -> None:
        await says(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n" + STREAM[:50])(
            writer
        )
        writer.close()

    async with connected("anthropic", cut) as (provider, _):
        with pytest.raises(UpstreamError):
            await read(await provider.relay(relayed))


def test_it_serves_messages_and_nothing_else() -> None:
    provider = Anthropic(options("anthropic"), KEY)
    assert isinstance(provider, Relays)
    assert not isinstance(provider, Embeds)
    served = ["messages", "messages.count_tokens"]
    others = ["responses", "embeddings", "files", "messages.batches", "", "chat", "audio.speech"]
    assert [name for name in (*served, *others) if provider.serves(name)] == served


def test_nobody_needs_a_key_or_a_url_to_make_one() -> None:
    made = options("anthropic")
    assert made.base_url == "https://api.anthropic.com/v1"
    Anthropic(made)
