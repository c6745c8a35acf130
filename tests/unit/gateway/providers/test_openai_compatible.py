"""An upstream behind a base URL, against a server on loopback whose every byte the test writes."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.golden.application import DONE, LAST, Upstream, event, upstream

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.providers.openai_compatible import OpenAICompatible
from windlass.gateway.transport.transport import CLIENTS
from windlass.gateway.wire import parse_chat

BODY = b'{"model": "m",  "messages": [{"role": "user", "content": "h\\u00e9"}], "x_new": 1.50}'
CHOSEN: dict[str, Any] = {}
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True, params=CLIENTS)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test is run over each HTTP client."""
    monkeypatch.setitem(CHOSEN, "transport", request.param)
    return str(request.param)


def _options(url: str, **more: Any) -> ProviderOptions:
    return ProviderOptions(name="up", base_url=url, models=(ModelOptions(name="m"),), **CHOSEN, **more)


def _request(body: bytes = BODY) -> ProviderRequest:
    return ProviderRequest("call_1", "m", body, parse_chat(body))


def _says(*parts: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


def _whole(status: str, content_type: str, body: bytes, *headers: str) -> Answer:
    head = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *headers, "", ""]
    return _says("\r\n".join(head).encode() + body)


@asynccontextmanager
async def _connected(answer: Answer, key: str = "", **more: float) -> AsyncIterator[tuple[OpenAICompatible, Upstream]]:
    async with upstream(answer) as server:
        provider = OpenAICompatible(_options(server.url, **more), key)
        try:
            yield provider, server
        finally:
            await provider.close()


async def _read(reply: ProviderReply) -> bytes:
    return b"".join([chunk async for chunk in reply.chunks])


async def test_the_body_goes_up_byte_for_byte_with_the_key() -> None:
    async with _connected(_whole("200 OK", "application/json", b"{}"), "sk-up") as (provider, server):
        assert await _read(await provider.send(_request())) == b"{}"
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert body == BODY
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1")
        assert b"authorization: Bearer sk-up" in head
        assert b"content-type: application/json" in head


async def test_without_a_key_none_is_sent() -> None:
    async with _connected(_whole("200 OK", "application/json", b"{}")) as (provider, server):
        await _read(await provider.send(_request()))
        assert b"authorization" not in server.requests[0].lower()


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        ("200 OK", "application/json", b'{"x": 1.50, "\\u00e9": []}  '),
        ("400 Bad Request", "application/json", b'{"error": {"message": "no", "weird": true}}'),
        ("401 Unauthorized", "application/json", b"{}"),
        ("429 Too Many Requests", "application/json", b'{"error":{"code":"rate_limit_exceeded"}}'),
        ("500 Internal Server Error", "text/html", b"<html>\xff\xfe Oops</html>"),
        ("503 Service Unavailable", "text/plain", b""),
        ("529 Overloaded", "application/json", b"\x00\x01"),
    ],
)
async def test_every_answer_comes_back_as_it_is(status: str, content_type: str, body: bytes) -> None:
    async with _connected(_whole(status, content_type, body, "Retry-After: 7", "Set-Cookie: a=b")) as (provider, _):
        reply = await provider.send(_request())
        assert (reply.status, reply.content_type) == (int(status[:3]), content_type)
        assert reply.headers == {"retry-after": "7"}
        assert await _read(reply) == body


async def test_a_compressed_answer_is_read() -> None:
    packed = gzip.compress(b'{"ok": true}')
    async with _connected(_whole("200 OK", "application/json", packed, "content-encoding: gzip")) as (provider, _):
        assert await _read(await provider.send(_request())) == b'{"ok": true}'


async def test_a_redirect_is_not_followed() -> None:
    async with upstream(_whole("200 OK", "application/json", b"{}")) as other:
        moved = _whole("307 Temporary Redirect", "text/plain", b"moved", f"location: {other.url}/chat/completions")
        async with _connected(moved) as (provider, _):
            reply = await provider.send(_request())
            assert (reply.status, await _read(reply)) == (307, b"moved")
        assert other.requests == []


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        provider = OpenAICompatible(_options(f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))
        with pytest.raises(UpstreamError, match="provider up failed: connect_refused") as failed:
            await provider.send(_request())
        await provider.close()
    assert classify(failed.value) is ErrorCategory.CONNECT_REFUSED


async def test_a_late_first_byte_is_a_timeout_of_its_own() -> None:
    async def silent(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with _connected(silent, first_byte_timeout_s=0.05) as (provider, server):
        with pytest.raises(UpstreamError) as failed:
            await provider.send(_request())
        assert classify(failed.value) is ErrorCategory.FIRST_BYTE_TIMEOUT
        assert server.requests


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


async def test_a_stream_that_stops_talking_is_idle() -> None:
    async def stops(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n" + event("a"))
        await writer.drain()
        await asyncio.Event().wait()

    async with _connected(stops, idle_timeout_s=0.05) as (provider, _):
        reply = await provider.send(_request())
        assert await anext(aiter(reply.chunks)) == event("a")
        with pytest.raises(UpstreamError) as failed:
            await anext(aiter(reply.chunks))
        assert classify(failed.value) is ErrorCategory.STREAM_IDLE


async def _hang_up(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n",
        HEAD + b"content-length: 100\r\n\r\ndata: {",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nnonsense\r\n",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 9\r\n\r\nnot gzip!",
    ],
    ids=["chunked", "length", "nonsense", "gzip"],
)
async def test_a_body_that_breaks_off_is_an_upstream_error(sent: bytes) -> None:
    async with _connected(lambda writer: _hang_up(writer, sent)) as (provider, _):
        with pytest.raises(UpstreamError) as failed:
            await _read(await provider.send(_request()))
        handling = classify(failed.value).handling
        assert handling.counts_against_breaker, "the provider is at fault"


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x00" * 100, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"],
    ids=["nothing", "zeros", "ssh", "header"],
)
async def test_what_is_not_http_is_an_upstream_error(sent: bytes) -> None:
    async with _connected(lambda writer: _hang_up(writer, sent)) as (provider, _):
        with pytest.raises(UpstreamError) as failed:
            await _read(await provider.send(_request()))
        assert classify(failed.value) is not ErrorCategory.UNKNOWN


async def test_leaving_early_hangs_up_so_that_the_upstream_stops() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n" + event("a"))
        await writer.drain()

    async with _connected(endless) as (provider, server):
        reply = await provider.send(_request())
        assert await anext(aiter(reply.chunks)) == event("a")
        await reply.chunks.aclose()
        async with asyncio.timeout(2):
            await server.hung_up.wait()


async def test_cancelling_while_waiting_for_the_answer_hangs_up() -> None:
    async def silent(_writer: asyncio.StreamWriter) -> None:
        """Go on to wait for the end of the connection."""

    async with _connected(silent) as (provider, server):
        waiting = asyncio.create_task(provider.send(_request()))
        async with asyncio.timeout(2):
            while not server.requests:
                await asyncio.sleep(0.001)
            waiting.cancel()
            await server.hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_stream_comes_as_it_is_sent() -> None:
    release = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"connection: close\r\n\r\n" + event("a"))
        await writer.drain()
        await release.wait()
        await _hang_up(writer, event("b") + LAST + DONE)

    async with _connected(slowly) as (provider, _):
        reply = await provider.send(_request())
        assert await anext(aiter(reply.chunks)) == event("a")
        release.set()
        assert await _read(reply) == event("b") + LAST + DONE


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999/v1", "http://[::1/v1", "http://a b/v1", "https://"])
async def test_a_url_that_cannot_be_is_an_upstream_error(url: str) -> None:
    provider = OpenAICompatible(_options(url))
    with pytest.raises(UpstreamError):
        await provider.send(_request())
    await provider.close()


@pytest.mark.parametrize("key", ["sk-up\n", "sk\r\nx-evil: 1", "sk-⚓"])
async def test_a_key_that_no_header_can_hold_never_reaches_the_upstream_split(key: str) -> None:
    async with _connected(_whole("200 OK", "application/json", b"{}"), key) as (provider, server):
        try:
            await _read(await provider.send(_request()))
        except UpstreamError:
            assert server.requests == []
        else:
            assert b"\r\nx-evil" not in server.requests[0]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with _connected(_whole("200 OK", "application/json", b"{}")) as (provider, _):
        assert await _read(await provider.send(_request())) == b"{}"


async def test_cookies_do_not_travel_from_one_call_to_the_next() -> None:
    async with _connected(_whole("200 OK", "application/json", b"{}", "set-cookie: a=b", "connection: close")) as (
        provider,
        server,
    ):
        for _ in range(2):
            await _read(await provider.send(_request()))
        assert all(b"cookie" not in request.lower().partition(b"\r\n\r\n")[0] for request in server.requests)


async def test_more_than_a_hundred_calls_reach_the_upstream_at_once() -> None:
    """aiohttp's own limit is 100 connections; the call after that would wait, and fail as `connect_timeout`."""
    calls, release = 130, asyncio.Event()
    answered = json.dumps({"choices": []}).encode()

    async def together(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await _whole("200 OK", "application/json", answered)(writer)

    async with _connected(together, connect_timeout_s=10.0) as (provider, server):
        waiting = [asyncio.create_task(provider.send(_request())) for _ in range(calls)]
        for _ in range(500):
            if len(server.requests) == calls:
                break
            await asyncio.sleep(0.01)
        together_there = len(server.requests)
        release.set()
        replies = await asyncio.gather(*waiting, return_exceptions=True)
        failed = [str(reply) for reply in replies if isinstance(reply, BaseException)]
        for reply in replies:
            if isinstance(reply, ProviderReply):
                await _read(reply)
        assert (together_there, failed) == (calls, [])


async def test_closing_twice_and_without_a_call_is_fine() -> None:
    provider = OpenAICompatible(_options("http://127.0.0.1:1/v1"))
    await provider.close()
    await provider.close()


async def test_a_reply_that_is_given_back_unread_hangs_up() -> None:
    """The client may leave before the first chunk is asked for; a generator that never began closes nothing."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n" + event("a"))

    async with _connected(endless) as (provider, server):
        reply = await provider.send(_request())
        await reply.chunks.aclose()
        async with asyncio.timeout(2):
            await server.hung_up.wait()


@pytest.mark.parametrize("content_type", ["text/\u2693", "nonsense", "", "text/html; charset=\xff", "a/b\tc"])
async def test_a_content_type_of_any_bytes_can_be_passed_on(content_type: str) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    async with _connected(_says(head)) as (provider, _):
        reply = await provider.send(_request())
        assert reply.content_type.encode("latin-1")
        assert await _read(reply) == b"{}"
