"""What carries requests to an upstream: the contract of an HTTP client, and what all of them do alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.options import ProviderOptions
from windlass.gateway.provider import ProviderReply

KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "request-id", "content-disposition")
"""Of an answer's headers those that are handed on, the type of its content aside."""


class HttpClient(Protocol):
    """The connections to one upstream, kept open between calls.

    Made from the options of a provider, what every request carries (the key among it), and the URL that paths begin at.

    Promises, kept by `tests/unit/gateway/transport/test_clients.py` for each:
    - No redirect is followed, no proxy is taken from the environment, no cookie is kept, any number of requests run
      side by side. Certificates are checked against those that Python trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
    - `connect_timeout_s` bounds the way to a connection, `first_byte_timeout_s` that and the wait for the head of the
      answer, `idle_timeout_s` each wait for more of the body; the whole is bounded by who reads.
    - A body without its end ends in an error, after all that came (`STRICT` in the tests: what aiohttp misses).
    - A connection that was kept and is found closed is replaced, once, where the method may be repeated (RFC 9110,
      9.2.2); a POST fails and is left to `[resilience]`.
    - What nobody reads waits in the sockets, not in memory.
    """

    async def request(self, method: str, path: str, body: bytes, content_type: str) -> ProviderReply:
        """The answer, of any status, as soon as its head is there; its chunks decompressed.

        path: what may stand in the first line of a request, from its slash on. UpstreamError, with the category of
        what went wrong, where no answer arrives; its chunks raise the same where they break off. Cancelled, or its
        chunks closed early, the connection is broken off, so that the upstream stops.
        """
        ...

    async def close(self) -> None:
        """End the connections; a later request opens new ones."""
        ...


class MakesClient(Protocol):
    """Makes the client of one provider."""

    def __call__(self, options: ProviderOptions, headers: Mapping[str, str], url: str) -> HttpClient: ...


def failure(provider: str, why: BaseException | str, category: ErrorCategory | None = None) -> UpstreamError:
    """What is told of a request that failed. category: that of `why`, if it is an exception, unless given."""
    if category is None:
        category = classify(why) if isinstance(why, BaseException) else ErrorCategory.UPSTREAM_FAILED
    remedy = f"is it up, and is base_url of {provider} right in windlass.toml?"
    return UpstreamError(f"provider {provider} failed: {category.value} ({why!s:.200}); {remedy}", category=category)


def content_type(said: str | None) -> str:
    """The type of an answer's content, in characters that a header can hold."""
    return (said or "application/octet-stream").encode("latin-1", "replace").decode("latin-1")
