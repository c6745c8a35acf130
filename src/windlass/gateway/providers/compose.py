"""Replies in OpenAI's dialect that we write ourselves: for models that run in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderReply, ProviderRequest
from windlass.gateway.wire import DONE, Chat


def estimate_tokens(text: str) -> int:
    """About four characters a token: a marked estimate for replies without usage (OpenAI help, "What are tokens")."""
    return (len(text) + 3) // 4


def completion(
    request: ProviderRequest, text: str, created: int, *, tokens: tuple[int, int] | None = None
) -> ProviderReply:
    """`text` as a chat completion, streamed by lines where the request asks for it.

    tokens: (of the prompt, of the completion) as whoever answered has counted them; without them estimates, which are
    billed as such only where the provider is `local`.
    """
    if tokens is None:
        tokens = sum(estimate_tokens(message.text) for message in request.chat.messages), estimate_tokens(text)
    prompt, counted = tokens
    usage = {"prompt_tokens": prompt, "completion_tokens": counted, "total_tokens": prompt + counted}
    head = {"id": f"chatcmpl-{request.call}", "created": created, "model": request.model}
    if request.chat.stream:
        return ProviderReply(200, EVENT_STREAM, _events(head, text, usage, apart=_wants_usage(request.chat)))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
    return ProviderReply(200, JSON, _once(msgspec.json.encode(whole)))


def _wants_usage(chat: Chat) -> bool:
    """Whether `stream_options.include_usage` is set."""
    try:
        wanted = msgspec.json.decode(chat.fields.get("stream_options", b"null"))
    except msgspec.DecodeError:
        return False
    return isinstance(wanted, dict) and wanted.get("include_usage") is True


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _events(
    head: dict[str, Any], text: str, usage: dict[str, int], *, apart: bool
) -> AsyncGenerator[bytes, None]:
    """The pieces of a stream; usage in a chunk of its own where the client asked for it, as OpenAI sends it."""
    kind = {**head, "object": "chat.completion.chunk"}
    for number, line in enumerate(text.splitlines(keepends=True) or [""]):
        delta = {"content": line} if number else {"role": "assistant", "content": line}
        yield _event({**kind, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    last = {**kind, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if apart:
        yield _event(last)
        yield _event({**kind, "choices": [], "usage": usage})
    else:
        yield _event({**last, "usage": usage})
    yield b"data: " + DONE + b"\n\n"


def _event(part: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(part) + b"\n\n"
