"""The OpenAI-compatible wire as raw ASGI: `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`,
`/v1/feedback`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import AUTO, Answer, Request
from windlass.runtime import Runtime
from windlass.server import asgi
from windlass.server.asgi import Receive, Scope, Send


class OpenAI:
    """The hot endpoints. `routes` maps (method, path) to them."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self.routes: dict[tuple[str, str], Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/feedback"): self._feedback,
        }

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _until_gone(receive, self._answer(await self._request("chat", scope, receive), send))

    async def _embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _until_gone(receive, self._answer(await self._request("embeddings", scope, receive), send))

    async def _request(self, endpoint: str, scope: Scope, receive: Receive) -> Request:
        """What came in for the gateway; a wrong key is refused before its body is read."""
        admission = self._runtime.gateway.admission
        key, workspace = asgi.bearer(scope), asgi.header(scope, b"x-windlass-workspace")
        admission.identify(key, workspace)
        body = await asgi.read_body(receive, admission.max_body_bytes)
        parent = asgi.header(scope, b"x-windlass-parent")[:100]
        return Request(body, endpoint, key=key, workspace=workspace, parent=parent)

    async def _answer(self, request: Request, send: Send) -> None:
        answer = await self._runtime.gateway.complete(request)
        try:
            await _relay(answer, send)
        finally:
            await answer.chunks.aclose()

    async def _models(self, scope: Scope, _receive: Receive, send: Send) -> None:
        gateway = self._runtime.gateway
        gateway.admission.identify(asgi.bearer(scope), asgi.header(scope, b"x-windlass-workspace"))
        providers = gateway.providers
        owned = [(AUTO, "windlass"), *((name, providers.owner(name)) for name in providers.names())]
        named = {name for name, _ in owned}
        owned += [(name, providers.embedding(name)[0].name) for name in providers.embedders() if name not in named]
        models = [{"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in owned]
        await asgi.respond_json(send, {"object": "list", "data": models})

    async def _feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        admission = self._runtime.gateway.admission
        caller = admission.identify(asgi.bearer(scope), asgi.header(scope, b"x-windlass-workspace"))
        body = await asgi.read_body(receive, admission.max_body_bytes)
        kept = await self._runtime.feedback(caller.scope, FeedbackRequest.read(body).said_by(caller))
        await asgi.respond_json(send, {"id": kept.id, "object": "feedback", "target": kept.target})


async def _relay(answer: Answer, send: Send) -> None:
    await asgi.start(send, answer.status, answer.content_type, answer.headers.items())
    async for chunk in answer.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Do `work`, but stop it as soon as the client has left, so that the upstream is stopped too."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
        await working
    except asyncio.CancelledError:
        if not leaving.done():
            raise
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
