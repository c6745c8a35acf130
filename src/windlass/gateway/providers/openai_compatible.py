"""Any upstream that speaks OpenAI's dialect: vLLM, Ollama, llama.cpp, OpenRouter, OpenAI itself."""

from __future__ import annotations

import re
from collections.abc import Container

from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import EmbeddingRequest, ProviderReply, ProviderRequest, RawRequest
from windlass.gateway.transport.transport import Transport

NATIVE = ("responses", "messages")
"""Endpoints that are translated into chats unless the provider is said to speak them."""
_OPENAI = re.compile(r"https://(api|eu\.api|us\.api)\.openai\.com(/|$)")


def speaks(endpoint: str, endpoints: Container[str]) -> bool:
    """Does an upstream of OpenAI's dialect serve this endpoint? endpoints: those of NATIVE that it speaks."""
    family = endpoint.partition(".")[0]  # messages.count_tokens
    return family not in NATIVE or family in endpoints


class OpenAICompatible:
    """A provider behind a base URL. Each of its models may be asked for vectors; the upstream says which makes any."""

    local = False

    def __init__(self, options: ProviderOptions, api_key: str = ""):
        self.name = options.name
        self.models: tuple[ModelOptions, ...] = options.models
        self.embedding_models = options.models
        self._endpoints = frozenset(options.endpoints or (("responses",) if _OPENAI.match(options.base_url) else ()))
        self._transport = Transport(options, {"authorization": f"Bearer {api_key}"} if api_key else {})

    async def send(self, request: ProviderRequest) -> ProviderReply:
        return await self._transport.request("POST", "/chat/completions", request.body)

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        return await self._transport.request("POST", "/embeddings", request.body)

    def serves(self, endpoint: str) -> bool:
        return speaks(endpoint, self._endpoints)

    async def relay(self, request: RawRequest) -> ProviderReply:
        return await self._transport.request(request.method, request.path, request.body, request.content_type)

    async def close(self) -> None:
        await self._transport.close()
