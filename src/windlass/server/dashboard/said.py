"""The feedback page: what people and checks said, how it moved from day to day, and each of it with its target."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from windlass.ledger.ledger import FeedbackFilter
from windlass.records import Feedback, FeedbackKind, FeedbackSource, Scope
from windlass.server import lookback
from windlass.server.dashboard import rows, stacks, words
from windlass.server.dashboard.ranges import EVERYTHING, RANGES, Range, address, asked, chosen
from windlass.server.dashboard.site import Site
from windlass.watch.store import FeedbackHour

PAGE = 50
DAY_S = 86_400
DAYS_SHOWN = 60
LEAST_DAYS = 14
FIELDS = ("kind", "source", "metric", "target", "text")
KINDS: tuple[str, ...] = get_args(FeedbackKind)
SOURCES: tuple[str, ...] = get_args(FeedbackSource)


@dataclass(frozen=True)
class Count:
    """How often a kind, a source or a metric occurred, and the mean of what came with a number."""

    name: str
    given: int
    mean: float | None
    link: str


@dataclass(frozen=True)
class Line:
    """One feedback as the list shows it. link: to its target, '' where there is no page of it."""

    feedback: Feedback
    words: str
    link: str


async def page(site: Site, request: Request) -> Response:
    """The whole page, or its live parts where the script asks for them."""
    caller = site.access.caller(request)
    picked, before = chosen(request, EVERYTHING), asked(request, "before")
    wanted = {name: asked(request, name) for name in FIELDS}

    def drawn() -> Response:
        return site.page(request, "feedback.html", _view(site, caller.scope, picked, wanted, before))

    return await asyncio.to_thread(drawn)


def _view(site: Site, scope: Scope, picked: Range, wanted: dict[str, str], before: str) -> dict[str, Any]:
    runtime = site.runtime
    head, now = runtime.overview.cursor, runtime.clock()
    since = picked.since(now)
    hours = [hour for hour in runtime.rollups.feedback(scope, since) if _counts(hour, wanted)]
    asked_for = msgspec.convert({**wanted, "since": since or None}, FeedbackFilter)
    found, further = lookback.feedback(runtime.ledger, scope, asked_for, limit=PAGE + 1, before=before)
    here = {"range": picked.name, **wanted}
    days = _days(hours, since, now)
    metrics = sorted({hour.metric for hour in hours})
    return {
        "head": head,
        "chosen": picked,
        "ranges": [(one, address("/feedback", {**wanted, "range": one.name})) for one in RANGES],
        "wanted": wanted,
        "filtered": any(wanted.values()) or bool(picked.hours),
        "kinds": KINDS,
        "sources": SOURCES,
        "metrics": metrics,
        "by_kind": _counted(hours, "kind", KINDS, here),
        "by_source": _counted(hours, "source", SOURCES, here),
        "given_chart": _by_day(hours, days),
        "rating_chart": _ratings_by_day(hours, days),
        "days": _table(hours, days),
        "listed": [Line(one, rows.said(one), _target(one.target)) for one in found[:PAGE]],
        "before": before,
        "older": address("/feedback", {**here, "before": found[PAGE - 1].id}, "list") if len(found) > PAGE else "",
        "further": address("/feedback", {**here, "before": further}, "list") if further else "",
        "searched": lookback.SEARCHED,
        "newest": address("/feedback", here),
        "unparted": bool(wanted["target"] or wanted["text"]),
    }


def _counts(hour: FeedbackHour, wanted: dict[str, str]) -> bool:
    """Whether the filter holds for an hour's sum; targets and words are not in the sums."""
    return all(wanted[name] in ("", getattr(hour, name)) for name in ("kind", "source", "metric"))


def _counted(hours: Sequence[FeedbackHour], field: str, names: Sequence[str], here: dict[str, str]) -> list[Count]:
    found: list[Count] = []
    for name in names:
        mine = [hour for hour in hours if getattr(hour, field) == name]
        again = "" if here[field] == name else name
        link = address("/feedback", {**here, field: again})
        found.append(Count(name, sum(hour.given for hour in mine), _mean(mine), link))
    return found


def _mean(hours: Sequence[FeedbackHour]) -> float | None:
    valued = sum(hour.valued for hour in hours)
    return sum(hour.value_sum for hour in hours) / valued if valued else None


def _days(hours: Sequence[FeedbackHour], since: float, now: float) -> range:
    """The days of the chart: two weeks at least, sixty at most."""
    last = int(now // DAY_S) * DAY_S
    first = int((since or (hours[0].hour if hours else now)) // DAY_S) * DAY_S
    first = min(max(first, last - (DAYS_SHOWN - 1) * DAY_S), last - (LEAST_DAYS - 1) * DAY_S)
    return range(first, last + DAY_S, DAY_S)


def _split(hours: Sequence[FeedbackHour]) -> dict[tuple[int, str], list[FeedbackHour]]:
    """The hours by day and kind, and by day under the kind ''."""
    split: dict[tuple[int, str], list[FeedbackHour]] = defaultdict(list)
    for hour in hours:
        day = hour.hour // DAY_S * DAY_S
        split[day, hour.kind].append(hour)
        split[day, ""].append(hour)
    return split


def _by_day(hours: Sequence[FeedbackHour], days: range) -> str:
    split = _split(hours)
    parts = [
        stacks.Part(kind, [float(sum(hour.given for hour in split[day, kind])) or None for day in days])
        for kind in KINDS
    ]
    given = {kind: sum(hour.given for hour in hours if hour.kind == kind) for kind in KINDS}
    told = ", ".join(words.plural(count, kind) for kind, count in given.items() if count) or "No feedback"
    return stacks.stacked("given", "Feedback per day by kind", f"{told}.", days, parts, shares=False)


def _ratings_by_day(hours: Sequence[FeedbackHour], days: range) -> str:
    split = _split(hours)
    means = [_mean(split[day, "rating"]) for day in days]
    known = [mean for mean in means if mean is not None]
    told = f"Daily means from {min(known):.2f} to {max(known):.2f}." if known else "No ratings."
    return stacks.levels("ratings", "Mean rating per day", told, days, [stacks.Part("rating", means)], 1.0)


def _table(hours: Sequence[FeedbackHour], days: range) -> list[tuple[int, list[int], float | None]]:
    """(day, how much of each kind, mean rating), newest first, without the days of which nothing was said."""
    split = _split(hours)
    return [
        (day, [sum(hour.given for hour in split[day, kind]) for kind in KINDS], _mean(split[day, "rating"]))
        for day in reversed(days)
        if split[day, ""]
    ]


def _target(target: str) -> str:
    """Where a target can be looked at."""
    kind = target.partition("_")[0]
    if kind == "call":
        return f"/calls/{target}"
    return address("/calls", {"text": target}) if kind in ("answer", "run", "step") else ""
