"""The overview page: what came in, what it cost, how long it took, what was learned, the newest calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from windlass.gateway.gateway import POINT as MODEL_POINT
from windlass.ledger.ledger import CallTrace
from windlass.policies.policy import Arm
from windlass.records import Decision, Feedback, Scope
from windlass.server.dashboard import charts
from windlass.server.dashboard.learned import Lesson, lessons, reason
from windlass.server.dashboard.site import Site
from windlass.watch.overview import HOUR_S, Totals

PAGE = 20
AXIS_HOURS = 24
AXIS_HOURS_MAX = 24 * 7


@dataclass(frozen=True)
class Range:
    """A stretch of time that ends now; `hours` 0 is everything."""

    name: str
    label: str
    words: str
    hours: int


RANGES = (
    Range("1h", "1 h", "the last hour", 1),
    Range("24h", "24 h", "the last 24 hours", 24),
    Range("7d", "7 d", "the last 7 days", 24 * 7),
    Range("all", "All", "all time", 0),
)
DEFAULT_RANGE = RANGES[1]


@dataclass(frozen=True)
class CallRow:
    """One call as the table shows it."""

    trace: CallTrace
    decision: Decision | None
    why: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class ArmRow:
    """One action of a point with its drawing."""

    arm: Arm
    drawing: Markup | None
    leads: bool


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
    axis = _axis(runtime.overview.by_hour(scope), since, now)
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


def _axis(hours: Sequence[tuple[int, Totals]], since: float, now: float) -> list[charts.Slot]:
    """The hours of the chart: those of the range, at least a day so that there is something to compare with, at most
    a week so that a bar stays a bar."""
    earliest = hours[0][0] if hours else now
    first = since or max(earliest, now - AXIS_HOURS_MAX * HOUR_S)
    first = min(first, now - (AXIS_HOURS - 1) * HOUR_S)
    return charts.slots(hours, first=first, last=now, since=since)


def _arms(lesson: Lesson) -> list[ArmRow]:
    """The actions of a lesson with their drawings, all on one scale."""
    edges = [
        (arm.mean - arm.sd, arm.mean + arm.sd) for arm in lesson.arms if arm.mean is not None and arm.sd is not None
    ]
    low = min([0.0, *(left for left, _ in edges)])
    high = max([1.0, *(right for _, right in edges)])
    rows: list[ArmRow] = []
    for place, arm in enumerate(lesson.arms):
        leads, drawing = arm.action == lesson.leader, None
        if arm.mean is not None and arm.sd is not None:
            ident = f"arm-{lesson.point}-{place}"
            drawing = charts.interval(ident, arm.action, arm.mean, arm.sd, low=low, high=high, leads=leads)
        rows.append(ArmRow(arm, drawing, leads))
    return rows


def _row(trace: CallTrace) -> CallRow:
    decision = next((made for made in trace.decisions if made.point == MODEL_POINT and made.live), None)
    return CallRow(trace, decision, reason(decision) if decision else "", tuple(map(_said, trace.feedback)))


def _said(feedback: Feedback) -> str:
    """One feedback in a few words."""
    if feedback.kind != "rating" or feedback.value is None:
        return feedback.kind
    if feedback.source == "user":
        return "helpful" if feedback.value >= 0.5 else "not helpful"
    name = {"citation_verified": "quotes verified"}.get(feedback.metric, feedback.metric)
    return f"{name} {feedback.value * 100:.0f} %"


def _link(chosen: Range, before: str) -> str:
    query = {"range": chosen.name} | ({"before": before} if before else {})
    return f"/?{urlencode(query)}#calls-heading"
