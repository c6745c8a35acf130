"""The few ASGI moves that the hot endpoints need, without a framework in between (ASGI 3.0, HTTP & WebSocket)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

import msgspec

from windlass.errors import ErrorCategory, RequestError, WindlassError

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = "application/json"


class ClientGone(WindlassError):
    """The client left before its body was complete."""


def header(scope: Scope, name: bytes) -> str:
    """The first value of a header, '' where it is absent."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


def bearer(scope: Scope) -> str:
    """The key in `Authorization: Bearer <key>`, or in `x-api-key` as Anthropic's clients send it; '' for none."""
    kind, _, key = header(scope, b"authorization").partition(" ")
    return key.strip() if kind.lower() == "bearer" else header(scope, b"x-api-key").strip()


def peer(scope: Scope) -> str:
    """The address that the request came from, as the server saw it; '' where it saw none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The request's body; RequestError (413) as soon as it is larger than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone("the client left before its request was complete", category=ErrorCategory.CLIENT_GONE)
        part = event.get("body", b"")
        size += len(part)
        if size > limit:
            more = "raise gateway.max_body_bytes or send less"
            raise RequestError(f"the body has more than {limit} bytes; {more}", status=413, code="body_too_large")
        parts.append(part)
        if not event.get("more_body", False):
            return b"".join(parts)


async def start(send: Send, status: int, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
    """Send status and headers; no browser may take the content for another type than it is said to be."""
    pairs = [(b"content-type", _clean(content_type)), (b"x-content-type-options", b"nosniff")]
    pairs += [(name.encode("latin-1"), _clean(value)) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def respond(
    send: Send, status: int, body: bytes, content_type: str = JSON, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """Send a whole response."""
    await start(send, status, content_type, (*headers, ("content-length", str(len(body)))))
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, value: Any, status: int = 200) -> None:
    """Send `value` as JSON."""
    await respond(send, status, msgspec.json.encode(value))


def _clean(value: str) -> bytes:
    """A header value without line breaks, whatever an upstream put there."""
    return value.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace")
