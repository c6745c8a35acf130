"""Anthropic, and servers that speak its dialect: chats are translated into Messages, Messages go up as they came.

Source: Anthropic API reference, "API overview", "Create a Message", "Count tokens in a Message".
"""

from __future__ import annotations

import time
from collections.abc import Callable

from windlass.gateway.dialects import translation
from windlass.gateway.options import AnthropicOptions, ModelOptions, ProviderOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest, RawRequest
from windlass.gateway.providers import translated
from windlass.gateway.transport.transport import Transport

ENDPOINTS = ("messages", "messages.count_tokens")
"""Those that it serves in the words of its own clients."""


class Anthropic:
    """A provider behind Anthropic's API. clock: UTC seconds, for replies, which do not say when they were made."""

    local = False

    def __init__(self, options: ProviderOptions, api_key: str = "", *, clock: Callable[[], float] = time.time):
        given = options.of_kind(AnthropicOptions)
        self.name = options.name
        self.models: tuple[ModelOptions, ...] = options.models
        self._max_tokens = given.max_tokens
        self._adaptive = given.adaptive
        self._clock = clock
        headers = {"anthropic-version": given.version}
        if given.beta:
            headers["anthropic-beta"] = ",".join(given.beta)
        if api_key:
            headers["x-api-key"] = api_key
        self._transport = Transport(options, headers)

    async def send(self, request: ProviderRequest) -> ProviderReply:
        way = translation(
            "chat",
            "messages",
            call=request.call,
            at_s=int(self._clock()),
            max_tokens=self._max_tokens,
            adaptive=self._adaptive,
        )
        return await translated.answer(way, request, self._post)

    def serves(self, endpoint: str) -> bool:
        return endpoint in ENDPOINTS

    async def relay(self, request: RawRequest) -> ProviderReply:
        return await self._transport.request(request.method, request.path, request.body, request.content_type)

    async def close(self) -> None:
        await self._transport.close()

    async def _post(self, _model: str, body: bytes) -> ProviderReply:
        return await self._transport.request("POST", "/messages", body)
