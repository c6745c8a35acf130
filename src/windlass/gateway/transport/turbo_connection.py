"""One connection of the `turbo` client, and the answer that is on its way over it.

A connection carries one request at a time: RFC 9112 without pipelining. What of an answer is read, and what ends it,
follows its section 6.3; the parser is llhttp's, in its strict mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.transport.http import KEPT_HEADERS

MOST_WAITING_BYTES = 128 * 1024
"""Of a body nobody reads so much is taken from the socket, and what one read of it gives; then it is left there."""
MOST_NO_BODY_BYTES = 64 * 1024
"""So much may come without any of it being body: heads, interim answers, trailers, the extensions of chunks."""
_KEPT = {name.encode(): name for name in KEPT_HEADERS}
_FRAMES = (b"content-length", b"transfer-encoding")
# The clock of uvloop goes by milliseconds: a timer may come that much before its time.
_CLOCK_S = 0.002
_HUNG_UP = "the upstream hung up before it answered", ErrorCategory.CONNECTION_RESET
_CUT = "the upstream hung up before the end of the body", ErrorCategory.STREAM_CUT
_BROKEN_OFF = "the connection was broken off", ErrorCategory.CONNECTION_RESET

Failed = Callable[[str, ErrorCategory], UpstreamError]


class Home(Protocol):
    """Where connections are kept between two requests."""

    def back(self, connection: TurboConnection) -> None:
        """It can carry the next one."""
        ...

    def lost(self, connection: TurboConnection) -> None:
        """It has ended."""
        ...


class TurboChunks:
    """One answer as it arrives: its head, then the chunks of its body.

    idle_s: how long to wait for each of them. failed: makes what is raised. without_body: none follows the head, even
    if it tells of one (HEAD).
    """

    __slots__ = (
        "_connection",
        "_failed",
        "_failure",
        "_idle_s",
        "_waiter",
        "content_type",
        "encoding",
        "kept",
        "parts",
        "status",
        "to_eof",
        "unanswered",
        "waiting_bytes",
        "without_body",
    )

    def __init__(self, connection: TurboConnection, idle_s: float, failed: Failed, *, without_body: bool = False):
        self.status = 0
        self.content_type = b""
        self.encoding = b""
        self.kept: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.to_eof = False
        """The end of the connection is the end of the body."""
        self.unanswered = False
        """The connection ended before a byte of an answer."""
        self.waiting_bytes = 0
        self.without_body = without_body
        self._connection: TurboConnection | None = connection
        self._failed = failed
        self._failure: tuple[str, ErrorCategory] | None = None
        self._idle_s = idle_s
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> TurboChunks:
        return self

    async def __anext__(self) -> bytes:
        """All that has come since the last one."""
        parts = self.parts
        while not parts:
            connection = self._connection
            if connection is None:
                if self._failure is not None:
                    raise self._failed(*self._failure)
                raise StopAsyncIteration
            await self._arrival(connection, connection.loop.time() + self._idle_s)
        chunk = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.waiting_bytes = 0
        if self._connection is not None:
            self._connection.resume()
        return chunk

    async def head(self, until: float) -> None:
        """Wait for the head. until: of the event loop's clock. UpstreamError where it does not come."""
        while not self.status:
            if self._connection is None:
                raise self._failed(*(self._failure or _BROKEN_OFF))
            await self._arrival(self._connection, until)

    async def aclose(self) -> None:
        """Break it off, unless all of it is there."""
        self.abort()

    def abort(self) -> None:
        """The same."""
        self.parts.clear()
        if self._connection is not None:
            self._connection.abort()

    async def _arrival(self, connection: TurboConnection, until: float) -> None:
        connection.watch(until)
        self._waiter = waiter = connection.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    # --- what the connection tells

    @property
    def waited_for(self) -> bool:
        """Is somebody waiting for what comes?"""
        return self._waiter is not None

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head is there."""
        self.status = status
        self.to_eof = status not in (204, 304)
        for name, value in headers:
            name = name.lower()
            if name in _FRAMES:
                self.to_eof = name != b"content-length" and not value.lower().endswith(b"chunked")
            elif name == b"content-type":
                self.content_type = self.content_type or value
            elif name == b"content-encoding":
                self.encoding = value.strip().lower()
            elif name in _KEPT:
                self.kept.setdefault(_KEPT[name], value.decode("utf-8", "surrogateescape"))

    def end(self, failure: tuple[str, ErrorCategory] | None = None) -> None:
        """Nothing more comes: it is whole, or this went wrong."""
        self._failure = failure
        self._connection = None
        self.wake()

    def wake(self) -> None:
        """Let who waits look."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class TurboConnection(asyncio.Protocol):
    """One connection: requests out, answers in, the next when the last is whole."""

    __slots__ = (
        "_answer",
        "_headers",
        "_home",
        "_keep",
        "_no_body_bytes",
        "_parser",
        "_paused",
        "_timer",
        "_timer_at",
        "_until",
        "idle_since",
        "loop",
        "transport",
    )
    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, home: Home):
        self.loop = loop
        self.idle_since = 0.0
        self._home = home
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._answer: TurboChunks | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._no_body_bytes = 0
        self._keep = False
        self._paused = False
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def send(self, head: bytes, body: bytes, answer: TurboChunks) -> None:
        """Send a request; `answer` is fed from now on."""
        if self._parser is None:
            answer.unanswered = True
            answer.end(_HUNG_UP)
            return
        self._answer = answer
        self._no_body_bytes = 0
        self.transport.writelines((head, body))

    def abort(self) -> None:
        """Break it off now, so that the other side sees it end."""
        self._fail(*_BROKEN_OFF)

    def watch(self, until: float) -> None:
        """Fail if nothing comes before `until`. One timer serves all waits: it looks again when it comes too early."""
        self._until = until
        if self._timer is None or until < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = until
            self._timer = self.loop.call_at(until, self._late)

    def resume(self) -> None:
        """What waited has been read."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _late(self) -> None:
        self._timer = None
        answer = self._answer
        if answer is None or not answer.waited_for:
            return
        if self.loop.time() + _CLOCK_S < self._until:
            self.watch(self._until)
            return
        late = ErrorCategory.STREAM_IDLE if answer.status else ErrorCategory.FIRST_BYTE_TIMEOUT
        self._fail("nothing came in time", late)

    def _fail(self, why: str, category: ErrorCategory) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end((why, category))
        self.transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        answer, parser = self._answer, self._parser
        if answer is None or parser is None:  # nobody has asked
            self.transport.abort()
            return
        self._no_body_bytes += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as exc:
            category = ErrorCategory.CHUNK_MALFORMED if answer.status else ErrorCategory.RESPONSE_MALFORMED
            self._fail(f"no HTTP: {exc.__context__ or exc!s}", category)
            return
        if answer.status:
            answer.wake()  # once for all that came together
        if self._no_body_bytes > MOST_NO_BODY_BYTES:
            self._fail(f"more than {MOST_NO_BODY_BYTES} bytes that are no body", ErrorCategory.RESPONSE_MALFORMED)
        elif answer.waiting_bytes > MOST_WAITING_BYTES and self._answer is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """The other side is done, and over TLS says so: only then is a body whole that has no other end."""
        answer = self._answer
        if answer is not None and answer.to_eof:
            self._answer = None
            answer.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = None  # it holds on to this one
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.unanswered = not self._no_body_bytes and not answer.status
            answer.end(_CUT if answer.status else (str(exc or _HUNG_UP[0]), _HUNG_UP[1]))
        self._home.lost(self)

    # --- llhttp

    def on_message_begin(self) -> None:
        if self._answer is None:
            raise ValueError("more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        assert answer is not None, "no message begins without one who asked"
        assert parser is not None, "and none after the end"
        headers, self._headers = self._headers, []
        status = parser.get_status_code()
        if status < 200:  # not yet the answer (RFC 9110, 15.2)
            return
        # What came may hold some of the body too; only if it is much, the headers are counted.
        if self._no_body_bytes > MOST_NO_BODY_BYTES < sum(len(name) + len(value) for name, value in headers):
            raise ValueError(f"more than {MOST_NO_BODY_BYTES} bytes of headers")
        answer.begin(status, headers)
        self._keep = not answer.to_eof and parser.should_keep_alive()
        if answer.without_body:
            self._answer = None
            answer.end()
            self.transport.abort()

    def on_body(self, part: bytes) -> None:
        answer = self._answer
        if answer is not None:
            self._no_body_bytes = 0
            answer.parts.append(part)
            answer.waiting_bytes += len(part)

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None or not answer.status:
            return
        self._answer = None
        self._headers.clear()
        answer.end()
        if self._keep and not self.transport.get_write_buffer_size():
            self.resume()
            self._home.back(self)
        else:
            self.transport.abort()
