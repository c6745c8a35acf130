"""A browser without a window: cookies, redirects, forms and HTML, over the whole application in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.golden.application import HOST, chat, inline_ingest, opened

from windlass.gateway.gateway import Request
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.server.dashboard.pages import dashboard


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append((tag, named))
        if tag == "form":
            self.forms.append({"": named["action"]})
        if tag == "input" and "name" in named:
            self.forms[-1][named["name"]] = named.get("value", "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@dataclass
class Page:
    """One response as a browser sees it."""

    status: int
    headers: dict[str, str]
    body: str

    def __post_init__(self) -> None:
        reader = _Reader()
        reader.feed(self.body)
        self.tags = reader.tags
        self.forms = reader.forms
        self.text = " ".join(" ".join(reader.text).replace("\N{NO-BREAK SPACE}", " ").split())

    @property
    def location(self) -> str:
        return self.headers["location"]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [named for name, named in self.tags if name == tag]

    def form(self, action: str, **fields: str) -> dict[str, str]:
        """The hidden fields of the form that goes to `action` and holds `fields`."""
        return next(form for form in self.forms if form[""] == action and fields.items() <= form.items())


@dataclass
class Visitor:
    """One browser. Redirects are not followed, so that a test sees them."""

    app: Windlass
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, address: str, method: str = "GET", **headers: str) -> Page:
        return await self.send(method, address, b"", headers)

    async def post(self, address: str, fields: dict[str, str], **headers: str) -> Page:
        sent = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://{HOST}"} | headers
        return await self.send("POST", address, urlencode({k: v for k, v in fields.items() if k}).encode(), sent)

    async def send(self, method: str, address: str, body: bytes, headers: dict[str, str]) -> Page:
        parts = urlsplit(address)
        named = {"host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            named["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
            "server": ("127.0.0.1", 8321),
        }
        events: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: Any) -> None:
            events.append(event)

        await self.app(scope, receive, send)
        return self._page(events)

    def _page(self, events: list[Any]) -> Page:
        pairs = [(name.decode(), value.decode("latin-1")) for name, value in events[0]["headers"]]
        for name, value in pairs:
            if name == "set-cookie":
                crumb, _, rest = value.partition(";")
                ident, _, content = crumb.partition("=")
                self.cookies[ident] = content
                if "max-age=0" in rest.lower():
                    del self.cookies[ident]
        sent = b"".join(event.get("body", b"") for event in events[1:])
        return Page(events[0]["status"], dict(pairs), sent.decode())


@asynccontextmanager
async def visiting(home: Path, *files: Path, **changes: Any) -> AsyncIterator[tuple[Visitor, Runtime]]:
    """A visitor of a runtime that has taken `files` in."""
    async with opened(home, **changes) as runtime:
        if files:
            ingest, _ = inline_ingest(runtime)
            ingest.submit(Scope(), files)
        yield Visitor(Windlass(runtime, dashboard=dashboard(runtime))), runtime


def query(address: str) -> dict[str, str]:
    """The query of an address."""
    return dict(parse_qsl(urlsplit(address).query))


async def folded(runtime: Runtime) -> None:
    """Return once the overview has seen all that is committed now."""
    async with asyncio.timeout(5):
        while runtime.overview.cursor < runtime.ledger.head():
            await asyncio.sleep(0.005)


async def called(runtime: Runtime, text: str = "hello", model: str = "echo", key: str = "") -> str:
    """One call through the gateway, folded into the overview; its id."""
    answer = await runtime.gateway.complete(Request(json.dumps(chat(text, model)).encode(), key=key))
    async for _ in answer.chunks:
        pass
    await folded(runtime)
    return answer.transit.call.id
