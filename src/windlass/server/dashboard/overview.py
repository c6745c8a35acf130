"""The overview page: what came in, what it cost, how long it took, what was learned, the newest calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from windlass.gateway.gateway import POINT as MODEL_POINT
from windlass.ledger.ledger import CallTrace
from windlass.policies.policy import Arm
from windlass.records import Feedback, Scope
from windlass.server.dashboard import charts, words
from windlass.server.dashboard.learned import Lesson, lessons, reason
from windlass.server.dashboard.site import Site
from windlass.watch.overview import Overview
from windlass.watch.store import HOUR_S

PAGE = 20
DAY_HOURS = 24
WEEK_HOURS = 7 * DAY_HOURS


@dataclass(frozen=True)
class Range:
    """A stretch of time that ends now; `hours` 0 is everything."""

    name: str
    label: str
    words: str
    hours: int


RANGES = (
    Range("1h", "1 h", "the last hour", 1),
    Range("24h", "24 h", "the last 24 hours", DAY_HOURS),
    Range("7d", "7 d", "the last 7 days", WEEK_HOURS),
    Range("all", "All", "all time", 0),
)
DEFAULT_RANGE = RANGES[1]


@dataclass(frozen=True)
class CallRow:
    """One call as the table shows it: why it went where it went, and the policy's own account of that."""

    trace: CallTrace
    why: str
    account: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class ArmRow:
    """One action of a point with its drawing."""

    arm: Arm
    drawing: Markup
    leads: bool
    taken: int


async def page(site: Site, request: Request) -> Response:
    """The whole page, or its live parts where the script asks for them."""
    caller = site.access.caller(request)
    chosen = next((known for known in RANGES if known.name == request.query_params.get("range")), DEFAULT_RANGE)
    before = request.query_params.get("before", "")[:200]

    def drawn() -> Response:
        return site.page(request, "overview.html", _view(site, request, caller.scope, chosen, before))

    return await asyncio.to_thread(drawn)


def _view(site: Site, request: Request, scope: Scope, chosen: Range, before: str) -> dict[str, Any]:
    runtime = site.runtime
    now = runtime.clock()
    since = now - chosen.hours * HOUR_S if chosen.hours else 0.0
    # The cursor is read first: what is folded in afterwards rings again and is fetched again, never missed.
    head = runtime.overview.cursor
    totals = runtime.overview.totals(scope, since)
    decisions, feedback = runtime.overview.counted(scope)
    traces = runtime.ledger.calls(scope, limit=PAGE + 1, before=before)
    axis = _axis(runtime.overview, scope, since, now)
    models = [
        (name, one, one.calls / max(1, totals.calls), charts.share(one.calls / max(1, totals.calls)))
        for name, one in runtime.overview.by_model(scope, since).items()
    ]
    return {
        "head": head,
        "chosen": chosen,
        "ranges": RANGES,
        "totals": totals,
        "decisions": decisions,
        "feedback": feedback,
        "models": models,
        "axis": axis,
        "calls_chart": charts.calls_by_hour(axis),
        "latency_chart": charts.latency_by_hour(axis),
        "lessons": [(lesson, _arms(lesson)) for lesson in lessons(runtime, scope)],
        "calls": [_row(trace) for trace in traces[:PAGE]],
        "before": before,
        "older": _link(chosen, traces[PAGE - 1].call.id) if len(traces) > PAGE else "",
        "newest": _link(chosen, ""),
        "never": not totals.calls and not traces and not before,
        "base_url": str(request.base_url),
        "keyed": site.access.required,
    }


def _axis(overview: Overview, scope: Scope, since: float, now: float) -> list[charts.Slot]:
    """The hours of the chart: those of the range, at least a day so that there is something to compare with, at most
    a week so that a bar stays a bar."""
    day, week = now - (DAY_HOURS - 1) * HOUR_S, now - (WEEK_HOURS - 1) * HOUR_S
    hours = overview.by_hour(scope, min(max(since, week), day))
    first = since or max(week, hours[0][0] if hours else now)
    return charts.slots(hours, first=min(max(first, week), day), last=now, since=since)


def _arms(lesson: Lesson) -> list[ArmRow]:
    """The actions of a lesson with their drawings, all on one scale."""
    edges = [
        (arm.mean - arm.sd, arm.mean + arm.sd) for arm in lesson.arms if arm.mean is not None and arm.sd is not None
    ]
    low = min([0.0, *(left for left, _ in edges)])
    high = max([1.0, *(right for _, right in edges)])
    rows: list[ArmRow] = []
    for place, arm in enumerate(lesson.arms):
        leads, taken = arm.action == lesson.leader, lesson.taken.get(arm.action, 0)
        drawing = charts.share(taken / lesson.cases)
        if arm.mean is not None and arm.sd is not None:
            ident = f"arm-{lesson.point}-{place}"
            drawing = charts.interval(ident, arm.action, arm.mean, arm.sd, low=low, high=high)
        rows.append(ArmRow(arm, drawing, leads, taken))
    return rows


def _row(trace: CallTrace) -> CallRow:
    decision = next((made for made in trace.decisions if made.point == MODEL_POINT and made.live), None)
    why = reason(decision) if decision else ""
    account = words.plain(str(decision.extra.get("why", ""))) if decision else ""
    return CallRow(trace, why, account, tuple(map(_said, trace.feedback)))


def _said(feedback: Feedback) -> str:
    """One feedback in a few words."""
    if feedback.kind != "rating" or feedback.value is None:
        return feedback.kind
    if feedback.source == "user":
        return "helpful" if feedback.value >= 0.5 else "not helpful"
    name = {"citation_verified": "quotes verified"}.get(feedback.metric, feedback.metric)
    return f"{name} {words.percent(feedback.value)}"


def _link(chosen: Range, before: str) -> str:
    query = {"range": chosen.name} | ({"before": before} if before else {})
    return f"/?{urlencode(query)}#calls-heading"
