"""`turbo`: an HTTP/1.1 client on bare sockets, for a fraction of the work of a general one.

It does what a call to a model takes: one request in one write, one answer, connections kept. It asks for answers that
are not compressed, and reads them if they are.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from aiohappyeyeballs import start_connection

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.options import ProviderOptions
from windlass.gateway.provider import Chunks, ProviderReply
from windlass.gateway.transport.http import content_type, failure
from windlass.gateway.transport.inflate import ENCODINGS, Inflated
from windlass.gateway.transport.turbo_connection import TurboChunks, TurboConnection

KEPT_S = 15.0
"""How long a connection is kept that nobody uses; as long as aiohttp keeps it."""
RESOLVED_S = 10.0
"""How long the addresses of a host are remembered."""
STAGGER_S = 0.25
"""After so long the next address is tried beside the last (RFC 8305, 8)."""
MOST_HEADS = 64
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent twice (RFC 9110, 9.2.2)."""
_BODILESS = ("GET", "HEAD", "OPTIONS", "TRACE")
_METHOD = re.compile(r"[A-Z]+")
_HOST = re.compile(r"[!-~]+")
# No control character: none that ends a line stands in a header (RFC 9110, 5.5).
_VALUE = re.compile(r"[\t -~\x80-\U0010ffff]*")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
AddressInfos = Sequence[tuple[int, int, int, str, Any]]
_OWN = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "windlass"}


class TurboClient:
    """Keeps the contract of `HttpClient`. All its connections lead to one host."""

    def __init__(self, options: ProviderOptions, headers: Mapping[str, str], url: str):
        self._name = options.name
        self._url = url
        self._given = dict(headers)
        self._connect_s = options.connect_timeout_s
        self._first_byte_s = options.first_byte_timeout_s
        self._idle_s = options.idle_timeout_s
        self._origin: Origin | None = None
        self._heads: dict[tuple[str, str, str], bytes] = {}
        self._addresses: tuple[float, AddressInfos] = (0.0, ())
        self._resolving = asyncio.Lock()
        self._idle: list[TurboConnection] = []
        self._live: set[TurboConnection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._all_lost: asyncio.Future[None] | None = None

    async def request(self, method: str, path: str, body: bytes, kind: str) -> ProviderReply:
        head = self._heads.get((method, path, kind if body else "")) or self._head(method, path, kind if body else "")
        if body:
            head = b"%b%d\r\n\r\n" % (head, len(body))
        loop = asyncio.get_running_loop()
        now = loop.time()
        until = now + self._first_byte_s
        kept = self._take(now)
        answer = await self._ask(kept or await self._connect(loop, until), method, head, body, until)
        if answer.unanswered and kept is not None and method in REPEATABLE:
            answer = await self._ask(await self._connect(loop, until), method, head, body, until)
        if not answer.status:
            await answer.head(until)  # tells what went wrong
        return self._reply(answer)

    async def close(self) -> None:
        for connection in tuple(self._live):
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._live:
            self._all_lost = self._all_lost or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._all_lost)

    async def _ask(
        self, connection: TurboConnection, method: str, head: bytes, body: bytes, until: float
    ) -> TurboChunks:
        """Send it and wait for the head of the answer, or for the end of the connection."""
        answer = TurboChunks(connection, self._idle_s, self._failed, without_body=method == "HEAD")
        connection.send(head, body, answer)
        try:
            await answer.head(until)
        except UpstreamError:
            pass  # the answer knows
        except BaseException:
            connection.abort()
            raise
        return answer

    def _reply(self, answer: TurboChunks) -> ProviderReply:
        chunks: Chunks = answer
        if answer.encoding not in (b"", b"identity"):
            if answer.encoding not in ENCODINGS:
                answer.abort()
                why = f"content-encoding {answer.encoding!r} was not asked for"
                raise self._failed(why, ErrorCategory.RESPONSE_MALFORMED)
            chunks = Inflated(answer, answer.encoding, self._failed)
        said = content_type(answer.content_type.decode("utf-8", "surrogateescape"))
        return ProviderReply(answer.status, said, chunks, answer.kept)

    def _failed(self, why: BaseException | str, category: ErrorCategory | None = None) -> UpstreamError:
        return failure(self._name, why, category)

    # --- what is sent

    def _head(self, method: str, path: str, kind: str) -> bytes:
        """The head of a request; of one with a body, up to its length. kind: of the body, "" where there is none."""
        if self._origin is None:
            self._origin = self._read_url()
        origin = self._origin
        headers = {"host": origin.host_header, **_OWN, **origin.headers, **self._given}
        if kind:
            headers["content-type"] = kind
        if _METHOD.fullmatch(method) is None:
            raise self._failed(f"no method: {method[:20]!r}", ErrorCategory.URL_INVALID)
        for name, value in headers.items():
            if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
                # Its name alone: the value may be the key.
                raise self._failed(f"no header can hold what {name[:40]!r} is set to", ErrorCategory.URL_INVALID)
        lines = [f"{method} {origin.prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        end = "content-length: " if kind else "\r\n" if method in _BODILESS else "content-length: 0\r\n\r\n"
        head = ("\r\n".join(lines) + "\r\n" + end).encode()
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        self._heads[method, path, kind] = head
        return head

    def _read_url(self) -> Origin:
        try:
            return Origin.of(self._url, has_key="authorization" in {name.lower() for name in self._given})
        except ValueError as exc:  # `from None`: the URL may hold a password
            raise self._failed(str(exc), ErrorCategory.URL_INVALID) from None

    # --- connections

    def _take(self, now: float) -> TurboConnection | None:
        """The connection that was used last, if one is kept."""
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < KEPT_S and not connection.transport.is_closing():
                return connection
            connection.abort()
        return None

    def back(self, connection: TurboConnection) -> None:
        """It can carry the next request."""
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(KEPT_S, self._expire, connection.loop)

    def lost(self, connection: TurboConnection) -> None:
        """It has ended."""
        self._live.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._all_lost is not None and not self._live:
            self._all_lost.set_result(None)
            self._all_lost = None

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those that nobody has used for so long; come again for the others."""
        self._sweep = None
        now = loop.time()
        for connection in [one for one in self._idle if now - one.idle_since >= KEPT_S]:
            self._idle.remove(connection)
            connection.abort()
        if self._idle:
            self._sweep = loop.call_at(self._idle[0].idle_since + KEPT_S, self._expire, loop)

    async def _connect(self, loop: asyncio.AbstractEventLoop, until: float) -> TurboConnection:
        """A new connection, TLS included."""
        assert self._origin is not None, "the head of the request was made first"
        origin, connect_until = self._origin, loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(min(connect_until, until)) as limit:
                plain = await start_connection(
                    await self._resolve(loop, origin), happy_eyeballs_delay=STAGGER_S, interleave=1, loop=loop
                )
                _, connection = await loop.create_connection(
                    lambda: TurboConnection(loop, self),
                    sock=plain,
                    ssl=trusted() if origin.secure else None,
                    server_hostname=origin.host.rstrip(".") if origin.secure else None,
                )
        except (OSError, ValueError) as exc:
            if not limit.expired():
                raise self._failed(exc) from exc
            late = ErrorCategory.CONNECT_TIMEOUT if connect_until <= until else ErrorCategory.FIRST_BYTE_TIMEOUT
            raise self._failed("no connection in time", late) from exc
        self._live.add(connection)
        return connection

    async def _resolve(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> AddressInfos:
        """The host's addresses, asked for once by all who wait for them."""
        async with self._resolving:
            known_until, found = self._addresses
            if loop.time() >= known_until:
                found = await loop.getaddrinfo(
                    origin.host, origin.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
                self._addresses = loop.time() + RESOLVED_S, found
            return found


class Origin:
    """Where a base URL leads. prefix: what its paths begin with; headers: what a password in it adds."""

    def __init__(self, host: str, port: int, prefix: str, headers: Mapping[str, str], *, secure: bool):
        self.secure = secure
        self.host = host
        self.port = port
        self.prefix = prefix
        self.headers = headers
        named = f"[{host}]" if ":" in host else host
        self.host_header = named if port == (443 if secure else 80) else f"{named}:{port}"

    @classmethod
    def of(cls, url: str, *, has_key: bool) -> Origin:
        """Read a base URL. ValueError, without the URL, says what is wrong with it."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode() if parts.hostname else "", parts.port
        except ValueError:
            raise ValueError("base_url has a host or a port that cannot be") from None
        if not _HOST.fullmatch(host) or port == 0:
            raise ValueError("base_url names no host that can be called up")
        headers = _password(parts)
        if headers and has_key:
            raise ValueError("base_url holds a password, and there is a key as well; which is it?")
        secure = parts.scheme == "https"
        prefix = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        return cls(host, port or (443 if secure else 80), prefix, headers, secure=secure)


def _password(parts: SplitResult) -> dict[str, str]:
    """The header that stands for a password in a URL (RFC 7617, 2); none where there is no password."""
    if not parts.username and not parts.password:
        return {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}


@functools.cache
def trusted() -> ssl.SSLContext:
    """What Python trusts. The same for all, for it takes 10 ms to read."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
