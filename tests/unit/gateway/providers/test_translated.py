"""Chats with upstreams of another dialect, over real connections: what holds for Anthropic and Gemini alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import Client, chat, opened, upstream
from tests.unit.gateway.providers.kinds import (
    CHUNKED,
    GOLDEN,
    KEY,
    as_chat,
    connected,
    events,
    golden,
    read,
    request,
    says,
    streamed,
    whole,
    without_time,
)

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.dialects import translation
from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderReply
from windlass.gateway.providers import translated
from windlass.gateway.wire import Tally
from windlass.records import Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass

KINDS = {"anthropic": "messages", "gemini": "gemini"}
BOTH = pytest.mark.parametrize("kind", KINDS)


def _all(of: str) -> Any:
    found = [(kind, path) for kind, dialect in KINDS.items() for path in golden(of, dialect)]
    return pytest.mark.parametrize(("kind", "path"), found, ids=[path.name for _, path in found])


def _text(kind: str) -> bytes:
    return (GOLDEN / "streams" / f"text.{KINDS[kind]}.txt").read_bytes()


@_all("replies")
async def test_a_reply_comes_down_as_a_chat(kind: str, path: Path) -> None:
    async with connected(kind, whole("200 OK", path.read_bytes())) as (provider, _):
        reply = await provider.send(request())
        told, expected = json.loads(await read(reply)), json.loads(as_chat(path).read_bytes())
    assert reply.status == (502 if "error" in expected else 200), "a failure inside a 200 is a failure"
    assert reply.content_type == JSON
    if "created" in told:
        told["created"] = 1
    assert told == expected


@_all("errors")
async def test_an_error_keeps_its_status(kind: str, path: Path) -> None:
    status = path.name.split(".")[2]
    async with connected(kind, whole(f"{status} No", path.read_bytes(), "retry-after: 9")) as (provider, _):
        for asked in (request(), streamed()):
            reply = await provider.send(asked)
            assert (reply.status, reply.content_type, reply.headers) == (int(status), JSON, {"retry-after": "9"})
            assert json.loads(await read(reply)) == json.loads(as_chat(path).read_bytes())


@_all("streams")
@pytest.mark.parametrize("seed", range(3))
async def test_a_stream_comes_down_as_a_chat_wherever_it_is_split(kind: str, path: Path, seed: int) -> None:
    async with connected(kind, events(path.read_bytes(), seed)) as (provider, _):
        reply = await provider.send(streamed())
        assert (reply.status, reply.content_type) == (200, EVENT_STREAM)
        assert without_time(await read(reply)) == as_chat(path).read_bytes()


@BOTH
@pytest.mark.parametrize("cut", range(0, 1000, 83))
async def test_a_stream_that_is_cut_anywhere_never_ends_well(kind: str, cut: int) -> None:
    """Cut between two events, in one, and in the middle of a chunk: no finish reason, no [DONE]."""
    body = _text(kind)
    last = body.rstrip().rfind(b"\n\n") + 2
    for ended in (True, False):
        tally, sent = Tally(stream=True), body[: min(cut, last)]
        answer = events(sent, cut) if ended else _hanging_up(sent)
        async with connected(kind, answer) as (provider, _):
            reply = await provider.send(streamed())
            if ended:
                tally.feed(await read(reply))
                tally.end()
            else:
                with pytest.raises(UpstreamError) as failed:
                    async for chunk in reply.chunks:
                        tally.feed(chunk)
                assert classify(failed.value).handling.counts_against_breaker
        assert not tally.complete
        assert not tally.done


def _hanging_up(sent: bytes) -> Any:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + (b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b""))
        await writer.drain()
        writer.close()

    return answer


@BOTH
async def test_words_come_down_as_they_come_in(kind: str) -> None:
    release = asyncio.Event()
    begun, rest = _text(kind)[:-200], _text(kind)[-200:]

    async def slowly(writer: asyncio.StreamWriter) -> None:
        await says(CHUNKED, b"%x\r\n%b\r\n" % (len(begun), begun))(writer)
        await release.wait()
        await says(b"%x\r\n%b\r\n" % (len(rest), rest), b"0\r\n\r\n")(writer)

    async with connected(kind, slowly) as (provider, _):
        reply = await provider.send(streamed())
        async with asyncio.timeout(2):
            assert b'"content":' in await anext(aiter(reply.chunks))
        release.set()
        assert (await read(reply)).endswith(b"data: [DONE]\n\n")


@BOTH
@pytest.mark.parametrize("begun", [False, True])
async def test_leaving_early_hangs_up(kind: str, begun: bool) -> None:
    sent = _text(kind)[:-200]
    async with connected(kind, says(CHUNKED, b"%x\r\n%b\r\n" % (len(sent), sent))) as (provider, server):
        reply = await provider.send(streamed())
        if begun:
            await anext(aiter(reply.chunks))
        await reply.chunks.aclose()
        await reply.chunks.aclose()
        async with asyncio.timeout(2):
            await server.hung_up.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(reply.chunks))


@BOTH
@pytest.mark.parametrize("asked", [request, streamed])
async def test_cancelling_hangs_up(kind: str, asked: Any) -> None:
    """Before the head, and while a whole reply is still coming."""
    half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    for sent in (b"", half):
        async with connected(kind, says(sent)) as (provider, server):
            waiting = asyncio.create_task(provider.send(asked()))
            async with asyncio.timeout(2):
                while not server.requests:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)
                waiting.cancel()
                await server.hung_up.wait()
            with pytest.raises(asyncio.CancelledError):
                await waiting


@BOTH
async def test_an_error_inside_a_stream_is_its_end_and_hangs_up(kind: str) -> None:
    broken = (GOLDEN / "streams" / f"error.{KINDS[kind]}.txt").read_bytes()
    async with connected(kind, events(broken, ended=False), idle_timeout_s=30.0) as (provider, server):
        reply = await provider.send(streamed())
        async with asyncio.timeout(2):
            told = await read(reply)
            await server.hung_up.wait()
    assert b'data: {"error":' in told
    assert b"[DONE]" not in told


@BOTH
async def test_a_silent_stream_is_idle(kind: str) -> None:
    async with connected(kind, says(CHUNKED), idle_timeout_s=0.05) as (provider, _):
        reply = await provider.send(streamed())
        with pytest.raises(UpstreamError) as failed:
            await read(reply)
    assert classify(failed.value) is ErrorCategory.STREAM_IDLE


@BOTH
@pytest.mark.parametrize(
    ("body", "content_type", "category"),
    [
        (b"<html>hello</html>", "text/html", ErrorCategory.CONTENT_TYPE_WRONG),
        (b"", "application/json", ErrorCategory.RESPONSE_MALFORMED),
        (b"{", "application/json", ErrorCategory.RESPONSE_MALFORMED),
        (b"[]", "application/json", ErrorCategory.RESPONSE_MALFORMED),
        (b"{}", "application/json", ErrorCategory.RESPONSE_MALFORMED),
        (b'{"a":' * 2000, "application/json", ErrorCategory.RESPONSE_MALFORMED),
        (b"\xff\x00", "application/json", ErrorCategory.RESPONSE_MALFORMED),
    ],
)
async def test_what_is_no_reply_is_none(kind: str, body: bytes, content_type: str, category: ErrorCategory) -> None:
    async with connected(kind, whole("200 OK", body, kind=content_type)) as (provider, _):
        for asked in (request(), streamed()):
            with pytest.raises(UpstreamError) as failed:
                await provider.send(asked)
            assert classify(failed.value) is category


@BOTH
async def test_events_that_nobody_asked_for_are_no_reply(kind: str) -> None:
    async with connected(kind, events(_text(kind))) as (provider, _):
        with pytest.raises(UpstreamError, match=r"not application/json") as failed:
            await provider.send(request())
    assert classify(failed.value) is ErrorCategory.CONTENT_TYPE_WRONG


@BOTH
async def test_a_refusal_that_never_ends_is_told_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.gateway.providers.translated.REFUSAL_S", 0.05)
    head = b"HTTP/1.1 503 No\r\ncontent-type: text/html\r\ncontent-length: 100\r\n\r\n<html>later"
    async with connected(kind, says(head)) as (provider, server):
        reply = await provider.send(request())
        assert (reply.status, json.loads(await read(reply))["error"]["message"]) == (503, "<html>later")
        async with asyncio.timeout(2):
            await server.hung_up.wait()


@BOTH
async def test_a_reply_without_end_is_left(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.gateway.providers.translated.MOST_WHOLE_BYTES", 1000)
    async with connected(kind, whole("200 OK", b" " * 5000)) as (provider, _):
        with pytest.raises(UpstreamError, match="more than 1000 bytes"):
            await provider.send(request())


@BOTH
async def test_a_redirect_is_not_followed(kind: str) -> None:
    async with connected(kind, whole("200 OK", b"{}")) as (_, other):
        moved = whole("307 Temporary Redirect", b"", f"location: {other.url}/messages")
        async with connected(kind, moved) as (provider, _):
            assert (await provider.send(request())).status == 307
        assert other.requests == []


@BOTH
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"reasoning_effort": "gigantic"}, "reasoning_effort"),
    ],
)
async def test_what_cannot_go_up_is_refused_and_not_sent(kind: str, fields: dict[str, Any], param: str) -> None:
    async with connected(kind, whole("200 OK", b"{}")) as (provider, server):
        reply = await provider.send(request(**fields))
        error = json.loads(await read(reply))["error"]
        assert (reply.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert server.requests == []


@BOTH
async def test_fields_that_are_left_out_are_named(kind: str) -> None:
    body = (GOLDEN / "replies" / f"text.{KINDS[kind]}.json").read_bytes()
    async with connected(kind, whole("200 OK", body)) as (provider, _):
        reply = await provider.send(request(verbosity="low", unheard_of=1))
        assert "verbosity" in reply.headers["x-windlass-dropped"]


@BOTH
async def test_the_key_is_in_one_header_and_nowhere_else(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with connected(kind, says(b"HTTP/1.1 nonsense\r\n\r\n")) as (provider, server):
        with pytest.raises(UpstreamError) as failed:
            await provider.send(streamed())
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if KEY.encode() in line]
        assert lines in ([f"x-api-key: {KEY}".encode()], [f"x-goog-api-key: {KEY}".encode()])
        assert KEY.encode() not in body
        assert KEY not in repr(failed.value) + str(failed.value.__cause__) + caplog.text + repr(provider)


@BOTH
async def test_usage_survives(kind: str) -> None:
    """Cached and reasoning tokens, plain and streamed alike; without being asked for, a stream tells none."""
    feature = "reasoning" if kind == "gemini" else "tools"
    told = []
    reply = (GOLDEN / "replies" / f"{feature}.{KINDS[kind]}.json").read_bytes()
    stream = (GOLDEN / "streams" / f"{feature}.{KINDS[kind]}.txt").read_bytes()
    for asked, answer in ((request(), whole("200 OK", reply)), (streamed(), events(stream))):
        tally = Tally(stream=asked.chat.stream)
        async with connected(kind, answer) as (provider, _):
            tally.feed(await read(await provider.send(asked)))
        tally.end()
        told.append(tally.usage)
    for usage in told:
        assert usage.prompt_tokens == 120
        assert usage.cache_read_tokens in (90, 100)
        assert usage.reasoning_tokens == 30
    async with connected(kind, events(stream)) as (provider, _):
        assert b'"usage"' not in await read(await provider.send(request(stream=True)))


def _outcome(runtime: Runtime) -> Outcome:
    (found,) = [one.record for one in runtime.ledger.read(Scope()) if isinstance(one.record, Outcome)]
    return found


@BOTH
async def test_a_streamed_chat_is_recorded_and_paid_to_the_token(kind: str, tmp_path: Path) -> None:
    """The client asked for no usage and sees none; the ledger has the provider's own count, and its cost."""
    model = {"name": "m", "prompt_usd_per_million": 10, "completion_usd_per_million": 100}
    async with upstream(events(_text(kind))) as server:
        up = {"name": "up", "kind": kind, "base_url": server.url, "models": [model]}
        async with opened(tmp_path, upstreams=[up]) as runtime:
            response = await Client(Windlass(runtime)).post("/v1/chat/completions", chat(model="m", stream=True))
            await runtime.caught_up()
            outcome = _outcome(runtime)
    assert (response.status, response.ended) == (200, True)
    assert response.body.endswith(b"data: [DONE]\n\n")
    assert b'"usage":{' not in response.body
    counted = Tally(stream=True)
    counted.feed(as_chat(GOLDEN / "streams" / f"text.{KINDS[kind]}.txt").read_bytes())
    expected = counted.usage.prompt_tokens, counted.usage.completion_tokens
    assert (outcome.prompt_tokens, outcome.completion_tokens) == expected
    assert (outcome.error, outcome.cost_nusd > 0) == ("", True)


@BOTH
async def test_a_cut_stream_is_shown_and_recorded_as_cut(kind: str, tmp_path: Path) -> None:
    sent = _text(kind)[: _text(kind).rstrip().rfind(b"\n\n") + 2]
    async with upstream(_hanging_up(sent)) as server:
        up = {"name": "up", "kind": kind, "base_url": server.url, "models": [{"name": "m"}]}
        async with opened(tmp_path, upstreams=[up]) as runtime:
            response = await Client(Windlass(runtime)).post("/v1/chat/completions", chat(model="m", stream=True))
            await runtime.caught_up()
            outcome = _outcome(runtime)
    assert b'{"error":' in response.body, "in the stream, or with 502 where it broke before the first words left"
    assert b"[DONE]" not in response.body
    assert b'"finish_reason":"' not in response.body
    assert outcome.error


@_all("streams")
@pytest.mark.parametrize("size", [1, 2, 5])
async def test_not_even_single_bytes_make_a_difference(kind: str, path: Path, size: int) -> None:
    """Without a network between, which would put small packets together."""
    body = path.read_bytes()

    async def arriving() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async def post(model: str, _body: bytes) -> ProviderReply:
        assert model == "sent"
        return ProviderReply(200, "Text/Event-Stream;charset=utf-8", arriving())

    dialect: Any = KINDS[kind]
    reply = await translated.answer(translation("chat", dialect, at_s=1), streamed(), post)
    assert await read(reply) == as_chat(path).read_bytes()
