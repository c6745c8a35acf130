"""The OpenAI-compatible wire as raw ASGI: each endpoint below `/v1` takes the same walk through the gateway."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial

from windlass.errors import ModelUnknown, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.endpoints import FOREIGN, FORM, RELAYED, family
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Answer, Request
from windlass.gateway.relay import Once
from windlass.runtime import Runtime
from windlass.server import asgi, models
from windlass.server.asgi import Receive, Scope, Send
from windlass.server.connection import connection_of

PREFIX = "/v1"
BODILESS = (204, 304)
"""Statuses that no body follows, and no length of one (RFC 9110, 8.6)."""
_QUERY = re.compile(r"[!\"$-~]*")


class OpenAI:
    """The hot endpoints. `routes` maps (method, path) to them; `rest` takes every other path below `/v1`."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        named = {"/chat/completions": "chat", "/embeddings": "embeddings", **RELAYED}
        named |= {f"/{dialect}": dialect for dialect in FOREIGN}
        self.routes: dict[tuple[str, str], Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            ("POST", PREFIX + path): partial(self._complete, endpoint) for path, endpoint in named.items()
        }
        self.routes |= {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/feedback"): self._feedback,
        }
        if runtime.settings.gateway.pass_through:  # the list of stored chats; a wrong method everywhere else
            self.routes["GET", "/v1/chat/completions"] = self.rest

    async def rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An endpoint without a model, which goes to the provider of `gateway.pass_through`."""
        path = scope["path"].removeprefix(PREFIX)
        model = path.removeprefix("/models/")
        if scope["method"] == "GET" and model != path:
            await self._model(model, scope, send)
            return
        await self._complete(family(path), scope, receive, send)

    async def _complete(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = await self._request(endpoint, scope, receive)
        await _until_gone(scope, receive, self._answer(request, send))

    async def _request(self, endpoint: str, scope: Scope, receive: Receive) -> Request:
        """What came in for the gateway; a wrong key is refused before its body is read."""
        admission = self._runtime.gateway.admission
        key, workspace = asgi.bearer(scope), asgi.header(scope, b"x-windlass-workspace")
        caller = admission.identify(key, workspace)
        again = [value for name, value in scope["headers"] if name == b"idempotency-key"]
        idempotency_key = _checked(again) if again and scope["method"] != "GET" else ""
        content_type = _content_type(scope)
        form = content_type.lower().startswith(FORM)
        body = await asgi.read_body(receive, admission.max_upload_bytes if form else admission.max_body_bytes)
        return Request(
            body,
            endpoint,
            method=scope["method"],
            path=scope["path"].removeprefix(PREFIX),
            query=_query(scope),
            content_type=content_type,
            key=key,
            workspace=workspace,
            caller=caller,
            parent=asgi.header(scope, b"x-windlass-parent")[:100],
            idempotency_key=idempotency_key,
        )

    async def _answer(self, request: Request, send: Send) -> None:
        try:
            answer = await self._runtime.gateway.complete(request)
        except ModelUnknown as exc:
            raise exc if request.caller is None else models.unknown(request.caller, exc) from None
        try:
            if isinstance(answer.chunks, Once) and answer.status not in BODILESS and request.method != "HEAD":
                # Its length is known, so it goes out in two pieces and not in four.
                body = answer.chunks.take()
                await asgi.respond(send, answer.status, body, answer.content_type, answer.headers.items())
            else:
                await _relay(answer, send)
        finally:
            await answer.chunks.aclose()

    async def _models(self, scope: Scope, _receive: Receive, send: Send) -> None:
        caller, gateway = self._caller(scope), self._runtime.gateway
        owned = models.listed(gateway.providers, self._runtime.settings.gateway.auto, caller)
        await asgi.respond_json(send, {"object": "list", "data": [_described(*one) for one in owned]})

    async def _model(self, name: str, scope: Scope, send: Send) -> None:
        caller, gateway = self._caller(scope), self._runtime.gateway
        owner = models.owner(gateway.providers, self._runtime.settings.gateway.auto, caller, name)
        await asgi.respond_json(send, _described(name, owner))

    def _caller(self, scope: Scope) -> Caller:
        admission = self._runtime.gateway.admission
        return admission.identify(asgi.bearer(scope), asgi.header(scope, b"x-windlass-workspace"))

    async def _feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._caller(scope)
        body = await asgi.read_body(receive, self._runtime.gateway.admission.max_body_bytes)
        kept = await self._runtime.feedback(caller.scope, FeedbackRequest.read(body).said_by(caller))
        await asgi.respond_json(send, {"id": kept.id, "object": "feedback", "target": kept.target})


def _checked(values: list[bytes]) -> str:
    from windlass.gateway.idempotency import key_of  # brings the cipher: 0.05 s that most processes never need

    return key_of(values)


def _content_type(scope: Scope) -> str:
    """The content type, which may go up as it is. RequestError (400) for what no header may hold (RFC 9110, 5.5)."""
    found = asgi.header(scope, b"content-type")
    if not (found.isascii() and found.isprintable()):
        raise RequestError(f"the content type {found[:100]!r} is none; send application/json", param="content-type")
    return found


def _query(scope: Scope) -> str:
    """The query, to go up as it is. RequestError (400) for what cannot stand in the first line of a request."""
    query: str = scope["query_string"].decode("latin-1")
    if not _QUERY.fullmatch(query):
        raise RequestError(f"the query {query[:100]!r} is no part of an address; percent-encode it (RFC 3986, 3.4)")
    return query


def _described(name: str, owner: str) -> dict[str, str | int]:
    """A model as the API lists it; when it was made is not known."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


async def _relay(answer: Answer, send: Send) -> None:
    await asgi.start(send, answer.status, answer.content_type, answer.headers.items())
    bare = answer.status in BODILESS
    async for chunk in answer.chunks:  # to the end in any case: with it the call is recorded
        if not bare:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(scope: Scope, receive: Receive, work: Awaitable[None]) -> None:
    """Do `work`, but stop it as soon as the client has left, so that the upstream is stopped too."""
    working = asyncio.current_task()
    assert working is not None, "a request is answered in a task"
    over = left = False

    def stop(_leaving: object = None) -> None:
        nonlocal left
        if not over:
            left = True
            working.cancel()

    unwatch: Callable[[], object]
    connection = connection_of(scope)
    if connection is not None:
        connection.watch(stop)
        unwatch = partial(connection.unwatch, stop)
    else:
        # Only the watch is a task of its own: with the work in another, making and joining both took 0.1 ms of a call.
        leaving = asyncio.ensure_future(_gone(receive))
        leaving.add_done_callback(stop)
        unwatch = leaving.cancel
    try:
        await work
    except asyncio.CancelledError:
        # The server may end while the client leaves.
        if not left or working.cancelling() > 1:
            raise
    finally:
        over = True
        unwatch()
        if left:
            working.uncancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
