"""The calls page: filter, search, and page through them all, newest first."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from windlass.errors import HANDLING
from windlass.ledger.ledger import CallFilter
from windlass.records import Scope
from windlass.server import lookback
from windlass.server.dashboard.ranges import DAY_HOURS, EVERYTHING, RANGES, Range, address, asked, chosen
from windlass.server.dashboard.rows import row
from windlass.server.dashboard.site import Site
from windlass.watch.store import HOUR_S

PAGE = 50
FIELDS = ("text", "model", "provider", "error", "endpoint", "user")


async def page(site: Site, request: Request) -> Response:
    """The list, or its live parts where the script asks for them."""
    caller = site.access.caller(request)
    picked, before = chosen(request, EVERYTHING), asked(request, "before")
    wanted = {name: asked(request, name) for name in FIELDS}

    def drawn() -> Response:
        return site.page(request, "calls.html", _view(site, caller.scope, picked, wanted, before))

    return await asyncio.to_thread(drawn)


def _view(site: Site, scope: Scope, picked: Range, wanted: dict[str, str], before: str) -> dict[str, Any]:
    runtime = site.runtime
    now = runtime.clock()
    head = runtime.overview.cursor
    since = picked.since(now) if picked.hours else None
    asked_for = msgspec.convert({**wanted, "since": since}, CallFilter)
    traces, further = lookback.calls(runtime.ledger, scope, asked_for, limit=PAGE + 1, before=before)
    here = {"range": picked.name, **wanted}
    names = runtime.gateway.providers.names()
    known = {*names, *(hour.model for hour in runtime.rollups.outcomes(scope, now - DAY_HOURS * HOUR_S))}
    return {
        "head": head,
        "chosen": picked,
        "ranges": [(one, address("/calls", {**wanted, "range": one.name})) for one in RANGES],
        "wanted": wanted,
        "filtered": any(wanted.values()) or bool(picked.hours),
        "models": sorted(known),
        "providers": sorted({runtime.gateway.providers.owner(name) for name in names}),
        "errors": [category.value for category in HANDLING],
        "calls": [row(trace) for trace in traces[:PAGE]],
        "before": before,
        "older": address("/calls", {**here, "before": traces[PAGE - 1].call.id}, "list") if len(traces) > PAGE else "",
        "further": address("/calls", {**here, "before": further}, "list") if further else "",
        "searched": lookback.SEARCHED,
        "newest": address("/calls", here),
    }
