"""The page of providers: whether each model answers, how fast, what fails, since when, and what recovered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from windlass.gateway.access.admission import Caller
from windlass.gateway.resilience.breaker import BreakerState
from windlass.server.dashboard import charts, words
from windlass.server.dashboard.charts import Slot
from windlass.server.dashboard.ranges import RANGES, Range, address, asked, chosen
from windlass.server.dashboard.site import Site
from windlass.server.providers import CATCH_UP, Pattern, Upheld, pattern, quantiles, standings
from windlass.watch.outcomes.store import Episode, ProviderHour
from windlass.watch.overview import Totals

PAGE = 12
MOST_DIGITS = 18
"""Of a place in the ledger, which is a number of 63 bits."""
STANDS = {
    "answers": ("answers", "good"),
    "fails": ("fails", "bad"),
    "left_alone": ("left alone", "bad"),
    "on_probation": ("on probation", "warn"),
    "unused": ("not used", ""),
}
"""The word and the tone of each standing."""
BY = {
    "retry": "a retry was answered",
    "probe": "the probe of its breaker was answered, which closed it",
    "call": "another call was answered",
}
MENDED = {
    "client": "the caller's to mend",
    "operator": "the operator's to mend",
    "developer": "ours to mend",
    "nobody": "",
}


@dataclass(frozen=True)
class Charted:
    """One model with its drawings."""

    upheld: Upheld
    calls: Markup
    latency: Markup
    first_byte: Markup
    axis: tuple[Slot, ...]
    first: dict[int, Totals]


@dataclass(frozen=True)
class Told:
    """An episode in sentences. calls: where its failed calls are listed."""

    pattern: Pattern
    became: str
    recovered: str
    mended: str
    calls: str


async def page(site: Site, request: Request) -> Response:
    """All models; one of them drawn by the hour."""
    caller = site.access.caller(request)
    picked = chosen(request)
    wanted = asked(request, "provider"), asked(request, "model")
    before = asked(request, "before", MOST_DIGITS)
    breakers = site.runtime.gateway.resilience.breakers.state()  # on the loop, which changes them

    def drawn() -> Response:
        earlier = int(before) if before.isascii() and before.isdecimal() else 0
        return site.page(request, "providers.html", _view(site, caller, picked, wanted, breakers, earlier))

    return await asyncio.to_thread(drawn)


def _view(
    site: Site,
    caller: Caller,
    picked: Range,
    wanted: tuple[str, str],
    breakers: Sequence[BreakerState],
    before: int,
) -> dict[str, Any]:
    runtime = site.runtime
    head, now = runtime.overview.cursor, runtime.clock()
    runtime.watch.catch_up(CATCH_UP)
    since = picked.since(now)
    tables = runtime.watch.outcomes
    every = tables.hours(caller.scope, min(since, picked.axis(now, now)[0]))
    failing = tables.going_on(caller.scope)
    over = tables.over(caller.scope, limit=PAGE, before=before)
    stands = standings(runtime, [hour for hour in every if hour.hour > since - 3_600], failing, breakers)
    one = next((known for known in stands if (known.provider, known.model) == wanted), None)
    one = one or max(stands, key=lambda known: known.answered + known.failed, default=None)
    return {
        "head": head,
        "now": now,
        "chosen": picked,
        "ranges": [
            (other, address("/providers", {"range": other.name, "provider": wanted[0], "model": wanted[1]}))
            for other in RANGES
        ],
        "stands": [(known, *STANDS[known.standing], _link(known, picked), _breaker(known, now)) for known in stands],
        "one": _charted(every, one, picked, now) if one is not None else None,
        "failing": [_told(pattern(episode)) for episode in failing],
        "over": [_told(pattern(episode)) for episode in over],
        **_leafing(over, picked, before),
        "behind": max(0, runtime.learner.cursor - tables.cursor),
    }


def _leafing(over: Sequence[Episode], picked: Range, before: int) -> dict[str, str]:
    """Where the page of episodes before these is, and the newest; '' where there is none, or this is it."""
    here = {"range": picked.name}
    return {
        "older": address("/providers", {**here, "before": str(over[-1].place)}, "over") if len(over) >= PAGE else "",
        "newest": address("/providers", here, "over") if before else "",
    }


def _link(known: Upheld, picked: Range) -> str:
    fields = {"range": picked.name, "provider": known.provider, "model": known.model}
    return address("/providers", fields, "hours")


def _breaker(known: Upheld, now: float) -> str:
    """What the breaker of this process holds against a model."""
    breaker = known.breaker
    if breaker is None:
        return ""
    cause = breaker.last.replace("_", " ")
    match breaker.state:
        case "open":
            return f"left alone for {words.lasting(breaker.opens_until - now)} more after {cause}"
        case "half_open":
            return f"the next call tries it, after {cause}"
        case _:
            return f"{words.plural(breaker.failures, 'failure')} held against it, the last: {cause}"


def _charted(every: Sequence[ProviderHour], one: Upheld, picked: Range, now: float) -> Charted:
    hours = [hour for hour in every if (hour.provider, hour.model) == (one.provider, one.model)]
    first, last = picked.axis(hours[0].hour if hours else now, now)
    hours = [hour for hour in hours if hour.hour > first - 3_600 and hour.answered + hour.failed]
    axis = charts.slots([(hour.hour, _totals(hour)) for hour in hours], first=first, last=last, since=picked.since(now))
    quick = [(hour.hour, _totals(hour, first_byte=True)) for hour in hours]
    quick_axis = charts.slots(quick, first=first, last=last, since=picked.since(now))
    return Charted(
        upheld=one,
        calls=charts.calls_by_hour(axis, what="attempt"),
        latency=charts.latency_by_hour(axis),
        first_byte=charts.latency_by_hour(quick_axis, ident="first-byte", title="First byte by hour"),
        axis=tuple(axis),
        first=dict(quick),
    )


def _totals(hour: ProviderHour, *, first_byte: bool = False) -> Totals:
    """An hour in the shape that the charts draw: attempts as calls."""
    times = quantiles([hour.first_byte if first_byte else hour.latency])
    return Totals(
        calls=hour.answered + hour.failed,
        errors=hour.failed,
        cost_nusd=0,
        prompt_tokens=0,
        completion_tokens=0,
        p50_ms=times.p50_ms,
        p95_ms=times.p95_ms,
        p99_ms=times.p99_ms,
    )


def _told(one: Pattern) -> Told:
    parts = [
        f"{words.count(one.failed_over)} answered by another model" if one.failed_over else "",
        f"{words.count(one.retried)} answered by a retry" if one.retried else "",
        f"{words.count(one.lost)} failed" if one.lost else "",
    ]
    said = [f"Of {words.plural(one.calls, 'call')}: {', '.join(filter(None, parts))}." if one.calls else ""]
    said += [f"Its breaker kept {words.plural(one.skipped, 'attempt')} away." if one.skipped else ""]
    return Told(
        pattern=one,
        became=" ".join(filter(None, said)),
        recovered=BY.get(one.recovered_by, ""),
        mended=MENDED.get(one.whose, ""),
        calls=address("/calls", {"error": one.error, "provider": one.provider, "model": one.model}) if one.lost else "",
    )
