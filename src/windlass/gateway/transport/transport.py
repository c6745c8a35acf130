"""HTTP to one upstream, for every provider that has one, by the client that its settings name.

The host comes from the settings: callers name a path below the base URL, and no path leads out of it.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping
from typing import Any

from windlass.errors import ErrorCategory
from windlass.gateway.options import ProviderOptions
from windlass.gateway.provider import JSON, ProviderReply
from windlass.gateway.transport.http import HttpClient, MakesClient, failure

# What may stand in the first line of a request; a path that begins otherwise could become a part of the host's name.
_PATH = re.compile(r"/[!-~]*")


class Transport:
    """The way to one upstream. headers: what every request carries, the key among it."""

    def __init__(self, options: ProviderOptions, headers: Mapping[str, str], *, base_url: str = ""):
        """base_url: where paths begin, if it is not the settings' own."""
        self._name = options.name
        self._client = CLIENTS[options.transport](options, headers, (base_url or options.base_url).rstrip("/"))

    def request(
        self, method: str, path: str, body: bytes, content_type: str = JSON
    ) -> Coroutine[Any, Any, ProviderReply]:
        """The answer, of any status, as soon as its head is there. UpstreamError where none arrives."""
        if _PATH.fullmatch(path) is None:
            raise failure(self._name, f"no path: {path[:200]!r}", ErrorCategory.URL_INVALID)
        return self._client.request(method, path, body, content_type)

    async def close(self) -> None:
        """End the connections; a later request opens new ones."""
        await self._client.close()


# Each is imported when it is asked for: aiohttp alone is 8 MB.


def _aiohttp(options: ProviderOptions, headers: Mapping[str, str], url: str) -> HttpClient:
    from windlass.gateway.transport.http_aiohttp import AiohttpClient

    return AiohttpClient(options, headers, url)


def _turbo(options: ProviderOptions, headers: Mapping[str, str], url: str) -> HttpClient:
    from windlass.gateway.transport.turbo import TurboClient

    return TurboClient(options, headers, url)


CLIENTS: dict[str, MakesClient] = {"aiohttp": _aiohttp, "turbo": _turbo}
"""Every client by the name that `transport` in the settings gives it."""
