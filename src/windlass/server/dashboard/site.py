"""What every page shares: templates that always escape, security headers, and errors as pages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from windlass.runtime import Runtime
from windlass.server import asgi
from windlass.server.dashboard import words
from windlass.server.dashboard.access import Access
from windlass.server.dashboard.answers import Answers
from windlass.server.dashboard.assets import Assets
from windlass.server.dashboard.store import Visits

PARTIAL = "x-partial"
SAFE = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    # `no-referrer` would make browsers send `Origin: null` with our own forms, which the application refuses; with
    # `same-origin` other sites are told nothing either.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Site:
    """The dashboard's parts, handed to every page."""

    def __init__(self, runtime: Runtime, secret: bytes):
        self.runtime = runtime
        self.assets = Assets()
        self.answers = Answers(runtime.ledger, runtime.clock)
        self.access = Access(runtime.gateway.admission, Visits(runtime.db), clock=runtime.clock, secret=secret)
        self._templates = Environment(
            loader=PackageLoader("windlass.server.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(asset=self.assets.url, version=version("windlass"))
        for name in (
            "usd",
            "ms",
            "count",
            "plural",
            "percent",
            "clock",
            "day",
            "stamp",
            "plain",
            "sentence",
            "lasting",
        ):
            self._templates.filters[name] = getattr(words, name)

    def page(self, request: Request, template: str, view: Mapping[str, Any], status: int = 200) -> Response:
        """A template as a response: whole, or only its <main> where the script asks for that."""
        partial = request.headers.get(PARTIAL) == "1"
        signed_in = self.access.required and self.access.signed_in(request)
        shared = {
            "partial": partial,
            "path": request.url.path,
            "token": self.access.token(request),
            "owner": self.access.caller(request).scope if signed_in else None,
        }
        body = self._templates.get_template(template).render({**shared, **view})
        headers = {"cache-control": "no-store", "vary": PARTIAL}
        if partial:
            headers[PARTIAL] = "1"
        return HTMLResponse(body, status, headers)

    def problem(self, request: Request, status: int, title: str, advice: str, kept: str = "") -> Response:
        """An error as a page that says what happened and what to do. `kept` is what the visitor had written."""
        view = {"status": status, "title": title, "advice": advice, "kept": kept}
        return self.page(request, "problem.html", view, status)


class Safe:
    """Puts the security headers on every response of `app`."""

    def __init__(self, app: asgi.App):
        self._app = app

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        async def sending(event: asgi.Event) -> None:
            if event["type"] == "http.response.start":
                headers = MutableHeaders(scope=event)
                for name, value in SAFE.items():
                    headers[name] = value
            await send(event)

        await self._app(scope, receive, sending)
