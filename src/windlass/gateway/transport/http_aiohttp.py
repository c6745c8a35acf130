"""The default HTTP client: aiohttp, the one file that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from windlass.gateway.transport.certificates import loaded_late

with loaded_late():
    import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.options import ProviderOptions
from windlass.gateway.provider import ProviderReply
from windlass.gateway.transport.http import KEPT_HEADERS, Patience, content_type, failure

MOST_URLS = 64


class AiohttpClient:
    """Keeps the contract of `HttpClient`."""

    def __init__(self, options: ProviderOptions, headers: Mapping[str, str], url: str):
        self._name = options.name
        self._url = url
        self._headers = dict(headers)
        self._first_byte_s = options.first_byte_timeout_s
        self._idle_s = options.idle_timeout_s
        self._timeout = aiohttp.ClientTimeout(total=None, connect=options.connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    async def request(self, method: str, path: str, body: bytes, kind: str) -> ProviderReply:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(), connector=CleanConnector(limit=0)
            )
        headers = self._headers | ({"content-type": kind} if body else {})
        patience, until = Patience(), asyncio.get_running_loop().time() + self._first_byte_s
        try:
            url = self._urls.get(path) or self._called(path)
            asking = self._session.request(method, url, data=body or None, headers=headers, allow_redirects=False)
            response = await patience.wait(asking, until)
        except BaseException as exc:  # however it ends, also for whoever leaves, no timer is left
            patience.close()
            if isinstance(exc, aiohttp.ClientError | TimeoutError | OSError | ValueError):
                raise _failed(self._name, exc, ErrorCategory.FIRST_BYTE_TIMEOUT) from exc
            raise
        kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        said = content_type(response.headers.get("content-type"))
        return ProviderReply(response.status, said, AiohttpChunks(response, self._name, self._idle_s, patience), kept)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _called(self, path: str) -> URL:
        """The address of a path; most calls have the same few."""
        if len(self._urls) >= MOST_URLS:
            self._urls.clear()
        self._urls[path] = URL(self._url + path, encoded=True)
        return self._urls[path]


class CleanConnector(aiohttp.TCPConnector):
    """Ends a kept connection that has said something nobody asked for.

    aiohttp 3.14 would hand it over as the answer to the next request, whoever makes it: the 408 with which a proxy
    closes an idle connection, or an answer that was sent twice.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (kept := await super()._get(key, traces)) is not None:
            if kept.protocol is not None and not kept.protocol.should_close:
                return kept
            kept.close()
        return None


class AiohttpChunks:
    """The body as it arrives. Closed early, begun or not, the connection is broken off, so that the upstream stops."""

    def __init__(self, response: aiohttp.ClientResponse, name: str, idle_s: float, patience: Patience):
        self._response = response
        self._name = name
        self._idle_s = idle_s
        self._patience = patience

    def __aiter__(self) -> AiohttpChunks:
        return self

    async def __anext__(self) -> bytes:
        content = self._response.content
        try:
            if content.is_eof() or content._buffer:  # nothing is waited for
                chunk = await content.readany()
            else:
                until = asyncio.get_running_loop().time() + self._idle_s
                chunk = await self._patience.wait(content.readany(), until)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            # What came before the connection broke is still the client's; aiohttp would drop it. The next read fails.
            chunk = content._read_nowait(-1)
            if chunk:
                return chunk
            self._response.close()
            raise _failed(self._name, exc, ErrorCategory.STREAM_IDLE) from exc
        if not chunk:
            self._patience.close()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._patience.close()
        self._response.close()


def _failed(name: str, exc: BaseException, late: ErrorCategory) -> UpstreamError:
    """What a failure stands for; a plain time-out is the one that was being waited for: `late`."""
    return failure(name, exc, late if type(exc) is TimeoutError else None)
