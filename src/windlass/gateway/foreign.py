"""Requests in another dialect than chat: OpenAI Responses and Anthropic Messages.

A provider that speaks the dialect gets the request as it came. For any other it becomes a chat, and the reply is
written back while it arrives, so that everything else of the call path sees the client's dialect alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from windlass.errors import ErrorCategory, RequestError, UpstreamError
from windlass.gateway.dialects import Dialect, Head, StreamTranslation, Translation, head, renamed
from windlass.gateway.dialects import tally as reading
from windlass.gateway.dialects import translation as between
from windlass.gateway.dialects.failures import as_anthropic, as_openai
from windlass.gateway.dialects.fields import decoded
from windlass.gateway.dialects.hub import Failure
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.unstreamed import unstreamed
from windlass.gateway.endpoints import RESPONSES, Raw, read_raw, whole_json
from windlass.gateway.money.overhead import prompt_tokens
from windlass.gateway.opening import MOST_WHOLE_BYTES
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import (
    EVENT_STREAM,
    JSON,
    Chunks,
    Provider,
    ProviderReply,
    ProviderRequest,
    RawRequest,
    Relays,
)
from windlass.gateway.relay import Once
from windlass.gateway.wire import Message, ReplyTally, parse_chat


def read(dialect: Dialect, body: bytes, at: float) -> Foreign | Raw:
    """Read a request. RequestError (400) says which field is at fault.

    Responses may leave the model to what is stored with the provider (`prompt`, `conversation`): such a request goes
    up as it came.
    """
    try:
        return Foreign(head(dialect, body), at)
    except RequestError as exc:
        if dialect != "responses" or exc.param != "model":
            raise
        raw = read_raw(body, "POST", RESPONSES, JSON)
        if raw.model:
            raise
        return raw


def in_events(
    client: Dialect, upstream: Dialect, reply: ProviderReply, call: str, model: str, *, include_usage: bool = True
) -> ProviderReply:
    """A reply that came whole though a stream was asked for, as the stream that the client waits for.

    include_usage: the stream shall tell its usage, as those of all dialects but chat do anyway.
    """

    async def written() -> AsyncGenerator[bytes, None]:
        body = await _all(reply.chunks)
        yield unstreamed(client, upstream, body, Identity(model, call), include_usage=include_usage)

    return replace(reply, content_type=EVENT_STREAM, chunks=_Rewritten(reply.chunks, written()))


class Foreign:
    """A request in the dialect of its client. at: when it came, UTC seconds."""

    tokens = 0

    def __init__(self, wanted: Head, at: float):
        self.dialect: Dialect = wanted.dialect
        self.raw = wanted.raw
        self.model = wanted.model
        self.stream = wanted.stream
        self.user = wanted.user
        self.messages: tuple[Message, ...] = wanted.messages
        self.most_tokens = wanted.max_tokens
        self.choices = wanted.n
        self.dropped: tuple[str, ...] = ()
        self._fields = wanted.fields
        self._at = at

    @property
    def said(self) -> Iterator[str]:
        """Every text that goes in."""
        return (message.text for message in self.messages)

    def tally(self, *, stream: bool) -> ReplyTally:
        """What reads along with the reply, which is in the client's dialect by then."""
        return reading(self.dialect, stream=stream)

    async def send(self, call: str, provider: Provider, model: ModelOptions) -> ProviderReply:
        """The provider's reply in the client's dialect. RequestError for what its own dialect cannot hold."""
        name = model.upstream or model.name
        if isinstance(provider, Relays) and provider.serves(self.dialect):
            body = renamed(self._fields, name)
            reply = await provider.relay(RawRequest(call, model.name, "POST", f"/{self.dialect}", body, JSON))
            late = self.stream and whole_json(reply)
            return in_events(self.dialect, self.dialect, reply, call, self.model) if late else reply
        way = between(self.dialect, "chat", call=call, at_s=int(self._at))
        translated = way.request(self.raw, name, stream=self.stream)
        self.dropped = translated.dropped
        chat = parse_chat(translated.body)
        reply = await provider.send(ProviderRequest(call, model.name, translated.body, chat))
        if self.stream and whole_json(reply):
            return in_events(self.dialect, "chat", reply, call, self.model)
        return replace(reply, chunks=self._written(reply, way))

    def error_event(self, category: str) -> bytes:
        """How a stream of this dialect says that it broke off."""
        failure = Failure(f"the stream ended early: {category}", "upstream_error", category, status=502)
        said = as_anthropic(failure) if self.dialect == "messages" else as_openai(failure)
        return b"event: error\ndata: " + msgspec.json.encode(said) + b"\n\n"

    def _written(self, reply: ProviderReply, way: Translation) -> Chunks:
        if reply.status < 300 and self.stream and reply.content_type.startswith(EVENT_STREAM):
            return _Rewritten(reply.chunks, _streamed(reply.chunks, way.stream(self.model)))
        return _Rewritten(reply.chunks, _whole(reply, way, self.model))


class _Rewritten:
    """A reply in another dialect; closing it closes the one that it is made of."""

    def __init__(self, source: Chunks, written: AsyncGenerator[bytes, None]):
        self._source = source
        self._written = written

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._written

    async def aclose(self) -> None:
        await self._source.aclose()
        await self._written.aclose()


async def _streamed(source: Chunks, way: StreamTranslation) -> AsyncGenerator[bytes, None]:
    async for chunk in source:
        written = way.feed(chunk)
        if written:
            yield written
    last = way.end()
    if last:
        yield last


async def _whole(reply: ProviderReply, way: Translation, model: str) -> AsyncGenerator[bytes, None]:
    yield way.reply(reply.status, await _all(reply.chunks), model)


async def _all(chunks: Chunks) -> bytes:
    """All of a reply; UpstreamError where there is no end to it."""
    parts, size = [], 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MOST_WHOLE_BYTES:
            message = f"the reply has more than {MOST_WHOLE_BYTES} bytes; the rest is left"
            raise UpstreamError(message, category=ErrorCategory.RESPONSE_MALFORMED)
    return b"".join(parts)


class _Counting(msgspec.Struct):
    messages: Any = None
    system: Any = None
    tools: Any = None


async def counted(raw: bytes, model: str) -> ProviderReply:
    """The answer to `count_tokens` where the provider has none: an estimate, made off the event loop.

    RequestError (400) for a number that nobody can hold.
    """
    asked = decoded(raw, _Counting, "Messages")
    said = [*(asked.messages if isinstance(asked.messages, list) else ()), {"role": "system", "content": asked.system}]
    tokens = await asyncio.to_thread(prompt_tokens, said, asked.tools, model=model)
    return ProviderReply(
        200, JSON, Once(msgspec.json.encode({"input_tokens": tokens})), {"x-windlass-estimated": "true"}
    )
