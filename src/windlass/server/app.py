"""One ASGI application: the hot endpoints as they are, `/api` for operations, the dashboard for people.

Requests that a web page of another site makes the browser send are refused (`Origin`), and so are host names that are
not ours (DNS rebinding), because the server on loopback may run without a key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog

from windlass.errors import AccessError, LimitReached, RequestError, WindlassError, classify
from windlass.gateway.access.admission import Caller
from windlass.records import DEFAULT_TENANT, DEFAULT_WORKSPACE
from windlass.records import Scope as Owner
from windlass.runtime import Runtime
from windlass.server import asgi
from windlass.server.asgi import App, Receive, Scope, Send
from windlass.server.envelope import envelope, headers, spoken
from windlass.server.metrics import SCOPE, Metrics, allow
from windlass.server.peer import instance
from windlass.server.readiness import Readiness
from windlass.server.reading import ARGUMENTS, Query
from windlass.server.routed import endpoints
from windlass.server.traffic import CALLS, PAGES, Traffic
from windlass.settings import LOOPBACK

if TYPE_CHECKING:
    from windlass.server.operations import Operation

log = structlog.get_logger(__name__)
API = "/api/"
OPENAI = "/v1/"
LOCAL_ONLY = frozenset({"ingest", "history", "reload"})


class Windlass:
    """The application. `token` is the state folder's own key, for the command line on the same machine.

    stopping: whether the server was told to stop.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        token: str = "",
        dashboard: App | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self._runtime = runtime
        self._token = token
        self._dashboard = dashboard
        self._openai = endpoints(runtime)
        self._operations: Mapping[str, Operation] = {}
        self._traffic = Traffic()
        self._readiness = Readiness(runtime, stopping)
        self._metrics = Metrics(runtime, self._traffic, self._readiness)
        self._routes = self._openai.routes | {
            ("GET", "/healthz"): self._health,
            ("GET", "/readyz"): self._ready,
            ("GET", "/metrics"): self._scrape,
            ("GET", "/openapi.json"): self._api,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        started = streams = False
        traffic, kind = self._traffic, CALLS if scope["path"].startswith(OPENAI) else PAGES

        async def sending(event: asgi.Event) -> None:
            nonlocal started, streams
            if not started:
                started = True
                streams = traffic.answered(event)
                traffic.streams[kind] += streams
            await send(event)

        traffic.in_flight += kind is CALLS

        try:
            await self._route(scope, receive, sending)
        except asgi.ClientGone:
            return
        except Exception as exc:
            status, body = envelope(exc)
            if status >= 500:
                unexpected = None if isinstance(exc, WindlassError) else exc
                reason = str(exc) if unexpected is None else type(exc).__name__
                error = classify(exc).value
                log.error("request_failed", path=scope.get("path"), error=error, reason=reason, exc_info=unexpected)
            if isinstance(exc, AccessError):
                await self._runtime.refused(asgi.peer(scope), asgi.bearer(scope), exc)
            if isinstance(exc, LimitReached):
                traffic.refuse(exc.limit)
                self._turned_away(scope, exc.limit)
            if not started:
                said = spoken(scope.get("path", ""), status, body)
                await asgi.respond(sending, status, said, headers=headers(exc).items())
        finally:
            traffic.in_flight -= kind is CALLS
            traffic.streams[kind] -= streams

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refuse_strangers(scope)
        method, path = scope["method"], scope["path"]
        endpoint = self._routes.get((method, path))
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif path.startswith(API):
            await self._operate(path.removeprefix(API), scope, receive, send)
        elif allowed := [known for known, where in self._routes if where == path]:
            raise RequestError(
                f"{method} {path[:200]} is not served here; use {allowed[0]}", status=405, code="not_found"
            )
        elif path.startswith(OPENAI):
            await self._openai.rest(scope, receive, send)
        elif self._dashboard is not None:
            await self._dashboard(scope, receive, send)
        else:
            raise RequestError(f"{method} {path[:200]} is not served here", status=404, code="not_found")

    async def _operate(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._operations:
            self._operations = await asyncio.to_thread(_operations)
        operation = self._operations.get(name)
        reads = scope["method"] == "GET" and name in ARGUMENTS
        if operation is None or not (reads or scope["method"] == "POST"):
            raise RequestError(f"POST one of {', '.join(API + known for known in self._operations)}", status=404)
        caller = self._caller(name, scope)
        arguments = _query(scope) if reads else await self._body(receive)
        await asgi.respond_json(send, await operation(self._runtime, caller, arguments))

    async def _body(self, receive: Receive) -> dict[str, Any]:
        body = await asgi.read_body(receive, self._runtime.gateway.admission.max_body_bytes)
        try:
            found: dict[str, Any] = msgspec.json.decode(body or b"{}", type=dict)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise RequestError(f"the body is not a JSON object: {exc}", code="invalid_json") from exc
        return found

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await asgi.respond_json(send, {"status": "ok", "instance": instance(self._token) if self._token else ""})

    async def _api(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        from windlass.server.openapi import written  # brings all dialects: 0.07 s that most processes never need

        await asgi.respond(send, 200, await asyncio.to_thread(written, frozenset(self._routes)))

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        failing = await self._readiness.reasons()
        told = {"status": "not ready" if failing else "ready", "reasons": failing}
        await asgi.respond_json(send, told, 503 if failing else 200)

    async def _scrape(self, scope: Scope, _receive: Receive, send: Send) -> None:
        allow(self._caller(SCOPE, scope))
        content_type, text = await self._metrics.text(asgi.header(scope, b"accept"))
        await asgi.respond(send, 200, text, content_type)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        telling: asyncio.Task[None] | None = None
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                telling = asyncio.create_task(self._metrics.tell())
            elif telling is not None:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return

    def _turned_away(self, scope: Scope, limit: str) -> None:
        """Count a call that a limit refused; its key was good a moment ago."""
        with contextlib.suppress(AccessError):
            caller = self._caller("", scope)
            self._runtime.watch.spending.refuse(caller.scope, limit, caller.key, self._runtime.clock())

    def _caller(self, operation: str, scope: Scope) -> Caller:
        """The folder's token speaks for its owner; otherwise a key does. Reading local files takes the token."""
        token = asgi.header(scope, b"x-windlass-token")
        if token and self._token and hmac.compare_digest(token.encode(), self._token.encode()):
            return Caller(Owner(DEFAULT_TENANT, DEFAULT_WORKSPACE), "admin", "")
        if operation in LOCAL_ONLY:
            raise AccessError(f"{API}{operation} reads files of this machine; run `windlass {operation}` on it")
        key, workspace = asgi.bearer(scope), asgi.header(scope, b"x-windlass-workspace")
        return self._runtime.gateway.admission.identify(key, workspace)

    def _refuse_strangers(self, scope: Scope) -> None:
        host, origin = asgi.header(scope, b"host"), asgi.header(scope, b"origin")
        ours = (*LOOPBACK, self._runtime.settings.server.host)
        if self._runtime.gateway.admission.open and _name(host) not in ours:
            raise RequestError(f"host {host[:100]!r} is not served; use 127.0.0.1", status=403, code="wrong_host")
        if origin and _netloc(origin) != host:
            raise RequestError(f"requests from {origin[:100]!r} are not served", status=403, code="wrong_origin")


def _operations() -> Mapping[str, Operation]:
    """All that can be asked: loaded when somebody asks, since a gateway that is only called needs none of it."""
    from windlass.server.operations import OPERATIONS

    return OPERATIONS


def _query(scope: Scope) -> Query:
    """The arguments in an address. Where another site made the browser send it, RequestError."""
    if asgi.header(scope, b"sec-fetch-site") in ("cross-site", "same-site"):
        raise RequestError("requests from another site are not served", status=403, code="wrong_origin")
    try:
        return Query(
            parse_qsl(scope["query_string"].decode(), keep_blank_values=True, errors="strict", max_num_fields=50)
        )
    except ValueError as exc:
        raise RequestError(f"the query cannot be read: {exc}") from exc


def _name(host: str) -> str:
    """The host without its port; '' where there is none, or it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """Host and port of an origin; '' where it cannot be read, as for `null`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
