"""What carries requests to an upstream: the contract of an HTTP client, and what all of them do alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Protocol, TypeVar

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.options import ProviderOptions
from windlass.gateway.provider import ProviderReply

T = TypeVar("T")
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


class Patience:
    """One timer for many waits, one after another: `asyncio.timeout` around each took a third of a chunk's way.

    A wait only says until when it may last; the timer looks, when it rings, whether that time has come. `expired`: of
    the last wait. Close it when nothing more is waited for.
    """

    __slots__ = ("_rings_at", "_task", "_timer", "_until", "expired")

    def __init__(self) -> None:
        self.expired = False
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = self._until = 0.0

    async def wait(self, coming: Awaitable[T], until: float) -> T:
        """What `coming` gives. TimeoutError where it gives nothing until then, by the event loop's clock."""
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        if self._timer is None or until < self._rings_at:
            self._ring(task.get_loop(), until)
        cancelling = task.cancelling()
        self._task, self._until, self.expired = task, until, False
        try:
            return await coming
        except asyncio.CancelledError as exc:
            if self.expired and task.uncancel() <= cancelling:
                raise TimeoutError from exc
            raise
        finally:
            self._task = None

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self.close()
        self._rings_at = at
        self._timer = loop.call_at(at, self._rang, loop)

    def _rang(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._task is None:  # nobody waits now; the next wait sets it again
            return
        if loop.time() < self._until:
            self._ring(loop, self._until)
        else:
            self.expired = True
            self._task.cancel()


def failure(provider: str, why: BaseException | str, category: ErrorCategory | None = None) -> UpstreamError:
    """What is told of a request that failed. category: that of `why`, if it is an exception, unless given."""
    if category is None:
        category = classify(why) if isinstance(why, BaseException) else ErrorCategory.UPSTREAM_FAILED
    remedy = f"is it up, and is base_url of {provider} right in windlass.toml?"
    return UpstreamError(f"provider {provider} failed: {category.value} ({why!s:.200}); {remedy}", category=category)


def content_type(said: str | None) -> str:
    """The type of an answer's content, in characters that a header can hold."""
    return (said or "application/octet-stream").encode("latin-1", "replace").decode("latin-1")
