"""Any upstream that speaks OpenAI's dialect: vLLM, Ollama, llama.cpp, OpenRouter, OpenAI itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import aiohttp
from yarl import URL

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import JSON, EmbeddingRequest, ProviderReply, ProviderRequest, RawRequest

NATIVE = ("responses", "messages")
"""Endpoints that are translated into chats unless the provider is said to speak them."""
_OPENAI = re.compile(r"https://(api|eu\.api|us\.api)\.openai\.com(/|$)")
_KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "content-disposition")


class OpenAICompatible:
    """A provider behind a base URL. Connections are kept open; no redirect is followed, no proxy is guessed.

    Each of its models may be asked for vectors; the upstream says which of them makes any.
    """

    local = False

    def __init__(self, options: ProviderOptions, api_key: str = ""):
        self.name = options.name
        self.models: tuple[ModelOptions, ...] = options.models
        self.embedding_models = options.models
        self._url = options.base_url.rstrip("/")
        self._endpoints = frozenset(options.endpoints or (NATIVE if _OPENAI.match(self._url) else ()))
        self._first_byte_s = options.first_byte_timeout_s
        self._idle_s = options.idle_timeout_s
        self._timeout = aiohttp.ClientTimeout(total=None, connect=options.connect_timeout_s)
        self._headers = dict[str, str]()
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: ProviderRequest) -> ProviderReply:
        return await self._request("POST", "/chat/completions", request.body, JSON)

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        return await self._request("POST", "/embeddings", request.body, JSON)

    def serves(self, endpoint: str) -> bool:
        return endpoint not in NATIVE or endpoint in self._endpoints

    async def relay(self, request: RawRequest) -> ProviderReply:
        return await self._request(request.method, request.path, request.body, request.content_type)

    async def _request(self, method: str, path: str, body: bytes, content_type: str) -> ProviderReply:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
            )
        headers = self._headers | ({"content-type": content_type} if body else {})
        try:
            url = URL(self._url + path, encoded=True)
            async with asyncio.timeout(self._first_byte_s):
                response = await self._session.request(
                    method, url, data=body or None, headers=headers, allow_redirects=False
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            raise self._failed(exc, ErrorCategory.FIRST_BYTE_TIMEOUT) from exc
        kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        said = response.headers.get("content-type") or "application/octet-stream"
        kind = said.encode("latin-1", "replace").decode("latin-1")
        return ProviderReply(response.status, kind, _Chunks(response, self._idle_s, self._failed), kept)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _failed(self, exc: BaseException, late: ErrorCategory) -> UpstreamError:
        """What a failure stands for; a plain time-out is the one that was being waited for: `late`."""
        category = late if type(exc) is TimeoutError else classify(exc)
        remedy = f"is it up, and is base_url of {self.name} right in windlass.toml?"
        return UpstreamError(
            f"provider {self.name} failed: {category.value} ({exc!s:.200}); {remedy}", category=category
        )


class _Chunks:
    """The body as it arrives. Closed early, begun or not, the connection is broken off, so that the upstream stops."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        idle_s: float,
        failed: Callable[[BaseException, ErrorCategory], UpstreamError],
    ):
        self._response = response
        self._idle_s = idle_s
        self._failed = failed

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                chunk = await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self._response.close()
            raise self._failed(exc, ErrorCategory.STREAM_IDLE) from exc
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._response.close()
