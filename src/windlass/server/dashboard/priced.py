"""The page of prices: what the models of the settings cost, and what is published for all others."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from windlass.gateway.money.pricelist import SOURCES
from windlass.server.dashboard.ranges import address, asked
from windlass.server.dashboard.site import Site
from windlass.server.pricing import configured, look
from windlass.server.reading import PricesAsked

PAGE = 50
MAIN = ("input", "output", "cache_read")
BATCHED = ("batch.input", "batch.output")
FIELDS = ("text", "provider", "differ", "after")


async def page(site: Site, request: Request) -> Response:
    """The models of the settings, and a page of what is published."""
    site.access.caller(request)
    wanted = {name: asked(request, name) for name in FIELDS}
    return await asyncio.to_thread(lambda: site.page(request, "prices.html", _view(site, wanted)))


def _view(site: Site, wanted: dict[str, str]) -> dict[str, Any]:
    runtime = site.runtime
    asked_for = PricesAsked(
        model=wanted["text"],
        provider=wanted["provider"],
        differ=bool(wanted["differ"]),
        limit=PAGE,
        after=wanted["after"],
    )
    found = look(runtime, asked_for, everything=True)
    here = {"text": wanted["text"], "provider": wanted["provider"], "differ": "1" if wanted["differ"] else ""}
    last = found["prices"][-1] if found["prices"] else None
    further = found["begin"] + len(found["prices"]) < found["found"]
    own = [_row(price) for price in configured(runtime)]
    return {
        "wanted": wanted,
        "filtered": any(here.values()),
        "own": own,
        "unpriced": [row["price"]["name"] for row in own if not row["price"]["priced"]],
        "about": found,
        "rows": [_row(price) for price in found["prices"]],
        "second": SOURCES["g"],
        "older": address("/prices", {**here, "after": f"{last['provider']}/{last['model']}"}, "list")
        if further and last is not None
        else "",
        "newest": address("/prices", here, "list") if found["begin"] else "",
    }


def _row(price: dict[str, Any]) -> dict[str, Any]:
    """A price as a line of the table: the usual figures in columns, the rest in words. differs: (what, by us, by the
    second source)."""
    usd = dict(price["usd"])
    main = [usd.pop(name, "") for name in MAIN]
    batch = [usd.pop(name, "") for name in BATCHED]
    return {
        "price": price,
        "main": main,
        "batch": " / ".join(one or "–" for one in batch) if any(batch) else "",
        "more": [(named(path), value) for path, value in usd.items()],
        "differs": [(named(path), price["usd"].get(path, ""), value) for path, value in price["differs"].items()],
    }


def named(path: str) -> str:
    """A figure's name in words.

    >>> named("200000.batch.cache_read"), named("image")
    ('batch cache read above 200,000 tokens', 'image')
    """
    above, _, rest = path.partition(".")
    if not above.isdigit():
        return path.replace(".", " ").replace("_", " ")
    return f"{named(rest)} above {int(above):,} tokens"
