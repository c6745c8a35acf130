"""The dashboard as one ASGI application: pages, their forms, the event stream, the login, the files of `static/`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from windlass.errors import AccessError, LimitReached, RequestError, WindlassError, classify
from windlass.runtime import Runtime
from windlass.server import asgi
from windlass.server.dashboard import (
    asking,
    calls,
    deciding,
    keyring,
    onecall,
    overview,
    priced,
    routing,
    said,
    trying,
    upheld,
)
from windlass.server.dashboard.events import Streams
from windlass.server.dashboard.forms import form_of
from windlass.server.dashboard.site import Safe, Site

LOGIN = "/login"


def dashboard(runtime: Runtime, *, secret: str = "", stopping: Callable[[], bool] = lambda: False) -> asgi.App:
    """The pages over `runtime`. `stopping` turns true when the server is about to end, so that streams end first.

    secret: what the form tokens are keyed with; the workers of one server have one in common.
    """
    site = Site(runtime, secret.encode() or secrets.token_bytes(32))
    app = Starlette(
        routes=[
            Route("/", partial(overview.page, site)),
            Route("/calls", partial(calls.page, site)),
            Route("/calls/{id}", partial(onecall.page, site)),
            Route("/calls/{id}/feedback", partial(onecall.feedback, site), methods=["POST"]),
            Route("/decisions", partial(deciding.page, site)),
            Route("/decisions/{point}", partial(deciding.point, site)),
            Route("/decisions/{point}/change", partial(deciding.confirm, site)),
            Route("/decisions/{point}/change", partial(deciding.make, site), methods=["POST"]),
            Route("/routing", partial(routing.page, site)),
            Route("/experiments", partial(trying.page, site)),
            Route("/experiments/{name}", partial(trying.one, site)),
            Route("/experiments/{name}/report.{kind}", partial(trying.report, site)),
            Route("/experiments/{name}/step", partial(trying.confirm, site)),
            Route("/experiments/{name}/step", partial(trying.take, site), methods=["POST"]),
            Route("/feedback", partial(said.page, site)),
            Route("/keys", partial(keyring.page, site)),
            Route("/providers", partial(upheld.page, site)),
            Route("/prices", partial(priced.page, site)),
            Route("/ask", partial(asking.page, site)),
            Route("/feedback", partial(asking.feedback, site), methods=["POST"]),
            Route("/events", _Events(site, Streams(runtime, stopping)), methods=["GET"]),
            Route(LOGIN, partial(_login, site)),
            Route(LOGIN, partial(_sign_in, site), methods=["POST"]),
            Route("/logout", partial(_sign_out, site), methods=["POST"]),
            Route("/static/{name}", site.assets.serve),
        ],
        exception_handlers={
            HTTPException: partial(_refused, site),
            AccessError: partial(_locked, site),
            RequestError: partial(_wrong, site),
            WindlassError: partial(_unable, site),
            Exception: partial(_broken, site),
        },
    )
    return Safe(app)


class _Events:
    """The event stream as raw ASGI; it ends when the session does."""

    def __init__(self, site: Site, streams: Streams):
        self._site = site
        self._streams = streams

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        request = Request(scope)
        caller = self._site.access.caller(request)
        last_id = request.headers.get("last-event-id", "")
        welcome = partial(self._site.access.signed_in, request)
        await self._streams.send(caller.scope, last_id, receive, send, welcome=welcome)


async def _login(site: Site, request: Request) -> Response:
    if site.access.signed_in(request):
        return RedirectResponse("/", 303)
    view = {"next": _inside(request.query_params.get("next", "/")), "failure": "", "workspace": ""}
    return site.page(request, "login.html", view)


async def _sign_in(site: Site, request: Request) -> Response:
    form = await form_of(request)
    onward, workspace = _inside(form.get("next", "/")), form.get("workspace", "").strip()
    view = {"next": onward, "workspace": workspace[:100]}
    if not site.access.vouches(request, form.get("token", "")):
        return site.page(request, "login.html", {**view, "failure": "This form was out of date; try again."}, 403)
    response = RedirectResponse(onward, 303)
    try:
        site.access.sign_in(request, response, form.get("key", "").strip(), workspace)
    except AccessError as exc:
        await site.runtime.refused(asgi.peer(request.scope), form.get("key", "").strip(), exc)
        return site.page(request, "login.html", {**view, "failure": str(exc)}, 401)
    return response


async def _sign_out(site: Site, request: Request) -> Response:
    form = await form_of(request)
    if not site.access.vouches(request, form.get("token", "")):
        raise RequestError("the form is out of date; open the page again", status=403)
    response = RedirectResponse(LOGIN, 303)
    site.access.sign_out(request, response)
    return response


def _inside(target: str) -> str:
    """`target` where it is a path of this site, else the overview: a login never leads elsewhere."""
    plain = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if plain and len(target) < 20_000 else "/"


async def _refused(site: Site, request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 400
    if status == 404:
        advice = f"There is no page {request.url.path[:200]}. The overview and the questions are one click away."
        return site.problem(request, 404, "Nothing here", advice)
    response = site.problem(request, status, "Not possible", f"{request.method} is not what this address is for.")
    if isinstance(exc, HTTPException):
        response.headers.update(exc.headers or {})
    return response


async def _locked(site: Site, request: Request, exc: Exception) -> Response:
    if request.url.path == "/events":
        return Response(str(exc), 401, media_type="text/plain")
    if request.method == "GET":
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN}?{urlencode({'next': target})}" if target != "/" else LOGIN, 303)
    return site.problem(request, 401, "Your session has ended", "Sign in again; what you wrote was not recorded.")


async def _wrong(site: Site, request: Request, exc: Exception) -> Response:
    status = exc.status if isinstance(exc, RequestError) else 400
    if isinstance(exc, LimitReached):
        caller = site.access.caller(request)
        site.runtime.watch.spending.refuse(caller.scope, exc.limit, caller.key, site.runtime.clock())
    return site.problem(request, status, "That could not be used", f"{exc}")


async def _unable(site: Site, request: Request, exc: Exception) -> Response:
    category = classify(exc).value.replace("_", " ")
    return site.problem(request, 503, "Not available right now", f"{exc} ({category}). Try again in a moment.")


async def _broken(site: Site, request: Request, _exc: Exception) -> Response:
    advice = "It is our mistake, not yours, and the server's log has the details. Nothing that was recorded is lost."
    return site.problem(request, 500, "Something broke", advice)
