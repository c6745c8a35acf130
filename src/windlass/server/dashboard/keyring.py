"""The page of keys and budgets: what keys were used for, how far each limit is used up, whom it turned away."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from windlass.gateway.access.admission import RANK
from windlass.server.budgets import BudgetCount, standing
from windlass.server.dashboard import burning, words
from windlass.server.dashboard.ranges import RANGES, address, asked, chosen
from windlass.server.dashboard.site import Site
from windlass.server.gatewaylist import whom
from windlass.server.keyring import visible
from windlass.watch.spending.store import Refused

PER_LIMIT = 5
"""Counts of one limit that are shown before somebody asks for that limit alone."""
ALONE = 50
DRAWN = 6
"""Budgets with a drawing on one page; the others have their bars."""
KEYS = 50
DEFAULT = RANGES[2]


@dataclass(frozen=True)
class CountShown:
    """One count of a limit as the page shows it. drawing: '' beyond the first few, and for what is no budget."""

    count: BudgetCount
    whose: str
    bar: Markup
    figures: tuple[str, str, str, str]
    outlook: str
    drawing: Markup
    points: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Limit:
    """One limit: its counts, the fullest first, and what it turned away."""

    name: str
    of_key: str
    about: str
    counts: tuple[CountShown, ...]
    refused: int
    more: str


async def page(site: Site, request: Request) -> Response:
    """Keys, limits and refusals; only one limit, with more of its counts, where it is asked for."""
    caller = site.access.caller(request)
    picked, name, after = chosen(request, DEFAULT), asked(request, "name"), asked(request, "after")
    runtime = site.runtime
    now = runtime.clock()
    since = picked.since(now)
    head = runtime.overview.cursor
    keys = [] if name else await visible(runtime, caller, since)
    counts, refused = await standing(runtime, caller, name=name, most=ALONE + 1 if name else PER_LIMIT + 1, since=since)

    def drawn() -> Response:
        begin = next((place for place, key in enumerate(keys, start=1) if key["name"] == after), 0)
        shown = keys[begin : begin + KEYS]
        view = {
            "head": head,
            "chosen": picked,
            "ranges": [(one, address("/keys", {"range": one.name, "name": name})) for one in RANGES],
            "name": name,
            "keys": shown,
            "older": address("/keys", {"range": picked.name, "after": shown[-1]["name"]}, "keys")
            if begin + KEYS < len(keys)
            else "",
            "first": address("/keys", {"range": picked.name}) if begin else "",
            "limits": _limits(counts, refused, picked.name, now, ALONE if name else PER_LIMIT),
            "refused": refused,
            "admin": RANK[caller.role] >= RANK["admin"],
            "open": runtime.gateway.admission.open,
            "now": now,
            "all": address("/keys", {"range": picked.name}),
        }
        return site.page(request, "keys.html", view)

    return await asyncio.to_thread(drawn)


def _limits(
    counts: list[BudgetCount], refused: Any, range_name: str, now: float, most: int
) -> tuple[list[Limit], list[Limit]]:
    """(budgets, rates): the limits in dollars have drawings, the others a line each."""
    budgets: list[Limit] = []
    rates: list[Limit] = []
    left = DRAWN
    for (name, of_key, measure), group in groupby(counts, key=lambda one: (one.name, one.of_key, one.measure)):
        found = list(group)
        drawings = min(left, len(found)) if measure == "usd" else 0
        left -= drawings
        one = Limit(
            name=name,
            of_key=of_key,
            about=_about(found[0]),
            counts=tuple(
                _counted(count, f"{len(budgets)}-{place}", now, drawn=place < drawings)
                for place, count in enumerate(found[:most])
            ),
            refused=_refused(refused, name, of_key),
            more=address("/keys", {"range": range_name, "name": name}) if len(found) > most else "",
        )
        (budgets if measure == "usd" else rates).append(one)
    return budgets, rates


def _refused(refused: list[Refused], name: str, of_key: str) -> int:
    return sum(one.refused for one in refused if one.limit == name and (not of_key or one.key == of_key))


def _about(count: BudgetCount) -> str:
    """What the limit says: `$10.00 a month for each user of team core`."""
    said = f"{_amount(count, count.most)}"
    if count.measure == "concurrent":
        said += " calls at once"
    elif count.measure != "usd":
        said += f" {count.measure}"
    if count.window:
        said += " in all" if count.window == "total" else f" a {count.window}"
    if count.per != "all" and not count.of_key:
        said += f" for each {count.per}"
    if count.of_key:
        said += f" for the key {count.of_key}"
    about = " and ".join(f"{name} {value}" for name, value in count.about.items())
    return f"{said}, about {about}" if about else said


def _counted(count: BudgetCount, ident: str, now: float, *, drawn: bool) -> CountShown:
    shown = drawn and count.used is not None and len(count.series) > 1
    return CountShown(
        count=count,
        whose=whom({"of_key": "", "group": count.group, "per": count.per, "about": {}}),
        bar=burning.bar(count),
        figures=(
            _amount(count, count.used),
            _amount(count, count.held),
            _amount(count, count.left),
            _amount(count, count.most),
        ),
        outlook=burning.outlook(count, now) if count.measure == "usd" and count.used is not None else "",
        drawing=burning.burn_down(f"burn-{ident}", count, now) if shown else Markup(""),
        points=tuple((at, words.usd(count.most - used)) for at, used in reversed(count.series)) if shown else (),
    )


def _amount(count: BudgetCount, value: int | None) -> str:
    if value is None:
        return words.NONE
    return words.usd(value) if count.measure == "usd" else words.count(value)
