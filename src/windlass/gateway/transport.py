"""HTTP to one upstream, for every provider that has one: time-outs, failures, early close and headers exist here once.

The host comes from the settings: callers name a path below the base URL. No redirect is followed, no proxy is guessed,
no cookie is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

import aiohttp
from yarl import URL

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.options import ProviderOptions
from windlass.gateway.provider import JSON, ProviderReply

_KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "request-id", "content-disposition")
# What may stand in the first line of a request; a path that begins otherwise could become a part of the host's name.
_PATH = re.compile(r"/[!-~]*")


class Transport:
    """The connections to one upstream, kept open. headers: what every request carries, the key among it."""

    def __init__(self, options: ProviderOptions, headers: Mapping[str, str], *, base_url: str = ""):
        """base_url: where paths begin, if it is not the settings' own."""
        self._name = options.name
        self._url = (base_url or options.base_url).rstrip("/")
        self._headers = dict(headers)
        self._first_byte_s = options.first_byte_timeout_s
        self._idle_s = options.idle_timeout_s
        self._timeout = aiohttp.ClientTimeout(total=None, connect=options.connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, path: str, body: bytes, content_type: str = JSON) -> ProviderReply:
        """The answer, of any status, as soon as its head is there. UpstreamError where none arrives."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
            )
        headers = self._headers | ({"content-type": content_type} if body else {})
        try:
            if _PATH.fullmatch(path) is None:
                raise aiohttp.InvalidURL(path[:200], "no path")
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
        """End the connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _failed(self, exc: BaseException, late: ErrorCategory) -> UpstreamError:
        """What a failure stands for; a plain time-out is the one that was being waited for: `late`."""
        category = late if type(exc) is TimeoutError else classify(exc)
        remedy = f"is it up, and is base_url of {self._name} right in windlass.toml?"
        return UpstreamError(
            f"provider {self._name} failed: {category.value} ({exc!s:.200}); {remedy}", category=category
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
            # What came before the connection broke is still the client's; aiohttp would drop it. The next read fails.
            chunk = self._response.content._read_nowait(-1)
            if chunk:
                return chunk
            self._response.close()
            raise self._failed(exc, ErrorCategory.STREAM_IDLE) from exc
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._response.close()
