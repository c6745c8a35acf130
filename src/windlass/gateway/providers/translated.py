"""Chats with an upstream that speaks another dialect: the request translated on its way up, the reply on its way down.

What a provider of such an upstream adds is where the request goes, and with which headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import msgspec

from windlass.errors import ErrorCategory, RequestError, UpstreamError
from windlass.gateway.dialects import StreamTranslation, Translation
from windlass.gateway.dialects.failures import as_openai
from windlass.gateway.dialects.hub import Failure
from windlass.gateway.opening import MOST_REFUSAL_BYTES, MOST_WHOLE_BYTES, REFUSAL_S
from windlass.gateway.provider import EVENT_STREAM, JSON, Chunks, ProviderReply, ProviderRequest
from windlass.gateway.relay import Once

DROPPED = "x-windlass-dropped"
"""The header that names the fields of a chat which the upstream has nothing for."""
_ERROR = b'{"error":'
_EVENT_ERROR = b"data: " + _ERROR

Post = Callable[[str, bytes], Awaitable[ProviderReply]]
"""Sends a body to the upstream, for the model of that name."""
Told = Callable[[int, bytes], tuple[int, Mapping[str, str]]]
"""The status and the headers that the body of a refusal adds to its own status."""


async def answer(way: Translation, request: ProviderRequest, post: Post, told: Told | None = None) -> ProviderReply:
    """The upstream's reply as a chat. A chat that its dialect cannot hold is answered with 400, and nothing is sent.

    told: what else the body of a refusal says. UpstreamError where no answer arrives, or one that is none.
    """
    stream = request.chat.stream
    model = msgspec.json.decode(request.body, type=TranslatedModel).model
    try:
        asked = way.request(request.body, model, stream=stream)
        reply = await post(model, asked.body)
    except RequestError as exc:
        return refused(exc)
    if asked.dropped:
        reply = replace(reply, headers={**reply.headers, DROPPED: ", ".join(asked.dropped)})
    kind = reply.content_type.partition(";")[0].strip().lower()
    if reply.status >= 300:
        return await _refusal(way, reply, request.model, told)
    if stream and kind == EVENT_STREAM:
        down = TranslatedChunks(reply.chunks, way.stream(request.model, include_usage=asked.include_usage))
        return replace(reply, content_type=EVENT_STREAM, chunks=down)
    if kind != JSON:
        await reply.chunks.aclose()
        raise UpstreamError(
            f"the upstream answered status {reply.status} with {reply.content_type[:80]!r}, "
            f"not {EVENT_STREAM if stream else JSON}; is base_url right in windlass.toml?",
            category=ErrorCategory.CONTENT_TYPE_WRONG,
        )
    body = way.reply(reply.status, await _whole(reply.chunks), request.model)
    # The upstream failed and said 200; who reads only the status must not take that for an answer.
    return replace(reply, status=502 if body.startswith(_ERROR) else reply.status, content_type=JSON, chunks=Once(body))


def refused(exc: RequestError) -> ProviderReply:
    """The answer to a chat that cannot go up, as the upstream itself would give it."""
    failure = Failure(str(exc), "invalid_request_error", exc.code, exc.param, exc.status)
    return ProviderReply(exc.status, JSON, Once(msgspec.json.encode(as_openai(failure))))


class TranslatedModel(msgspec.Struct):
    model: str


class TranslatedChunks:
    """A stream as it comes down. A failure that it tells of is its end: then the upstream is broken off."""

    def __init__(self, source: Chunks, way: StreamTranslation):
        self._source = source
        self._arriving = aiter(source)
        self._way = way
        self._over = False

    def __aiter__(self) -> TranslatedChunks:
        return self

    async def __anext__(self) -> bytes:
        while not self._over:
            try:
                written = self._way.feed(await anext(self._arriving))
            except StopAsyncIteration:
                self._over = True
                written = self._way.end()
            if written:
                if _failed(written):
                    await self.aclose()
                return written
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._over = True
        await self._source.aclose()


def _failed(written: bytes) -> bool:
    """Is the last of these events an error? No other event that we write begins so."""
    return written.startswith(_EVENT_ERROR) or b"\n\n" + _EVENT_ERROR in written


async def _whole(chunks: Chunks) -> bytes:
    """All of a reply; UpstreamError where there is no end to it."""
    parts, size = [], 0
    try:
        async for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > MOST_WHOLE_BYTES:
                raise UpstreamError(
                    f"the reply has more than {MOST_WHOLE_BYTES} bytes; the rest is left",
                    category=ErrorCategory.RESPONSE_MALFORMED,
                )
    finally:
        await chunks.aclose()
    return b"".join(parts)


async def _refusal(way: Translation, reply: ProviderReply, model: str, told: Told | None) -> ProviderReply:
    """A refusal in chat's envelope: what of it came at once, for its status is known by then."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(REFUSAL_S):
            async for chunk in reply.chunks:
                parts.append(chunk)
                size += len(chunk)
                if size > MOST_REFUSAL_BYTES:
                    break
    except (TimeoutError, UpstreamError):
        pass
    finally:
        await reply.chunks.aclose()
    body = b"".join(parts)
    status, headers = told(reply.status, body) if told is not None else (reply.status, {})
    written = way.reply(status, body, model)
    return replace(reply, status=status, headers={**headers, **reply.headers}, content_type=JSON, chunks=Once(written))
