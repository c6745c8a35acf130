"""What one can ask about graders: how they stand, a run over past calls, how far they agree with people."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import InputError
from windlass.gateway.access.admission import Caller, require
from windlass.improve.grading.answers import Known, KnownAnswers
from windlass.ledger.ledger import CallFilter
from windlass.runtime import Runtime
from windlass.server.reading import Moment, moment, read

if TYPE_CHECKING:
    from windlass.improve.grading.grading import Given, Grading
    from windlass.improve.grading.panel import Seat

Arguments = dict[str, Any]
MOST_ROWS = 10_000
NONE_SET = "the settings have no graders; add one, such as [graders.exact], and restart the server"


class GradersAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `graders`."""


class GradeAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `grade`: which calls, newest first, and by which graders; all of the settings without any.

    answers: what is expected, for calls that bring nothing themselves. dry: say what they would say, and keep nothing;
    judges ask their models, and cost, all the same. before: a call id, for the next page.
    """

    graders: Annotated[list[str], Meta(max_length=100)] = []
    call: str = ""
    user: str = ""
    model: str = ""
    since: Moment | None = None
    until: Moment | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    before: str = ""
    answers: Annotated[list[Known], Meta(max_length=MOST_ROWS)] = []
    dry: bool = False


class AgreementAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `agreement`."""

    graders: Annotated[list[str], Meta(max_length=100)] = []


async def graders(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The graders of the settings: what each is and costs, and what it has done since this server began."""
    require(caller, "operator")
    read(arguments, GradersAsked)
    if runtime.grading is None:
        return {"graders": [], "since_start": False}
    grading = runtime.grading
    spent = await asyncio.to_thread(lambda: {seat.metric: grading.spent_nusd(seat.metric) for seat in grading.seats})
    counted = not caller.key  # the counts are of all tenants
    return {
        "graders": [_standing(seat, spent[seat.metric], counted=counted) for seat in grading.seats],
        "since_start": counted,
    }


async def grade(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Ask graders about past calls of the caller's workspace; what they said before is not said twice."""
    require(caller, "operator")
    asked, grading = read(arguments, GradeAsked), _grading(runtime)
    grading.require(asked.graders)
    if "\x00" in asked.call + asked.before + asked.user + asked.model:
        raise InputError("an id, a user or a model holds no NUL character")
    calls = await asyncio.to_thread(_calls, runtime, caller, asked)
    answers = KnownAnswers(asked.answers) if asked.answers else None
    given: list[Given] = []
    for call in calls:
        given += await grading.grade(caller.scope, call, wanted=asked.graders, answers=answers, dry=asked.dry)
    full = not asked.call and len(calls) == asked.limit
    return {"calls": len(calls), "before": calls[-1] if full else "", "given": msgspec.to_builtins(given)}


async def agreement(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """How far each grader agrees with what people of the caller's workspace said of the same calls."""
    require(caller, "operator")
    asked, grading = read(arguments, AgreementAsked), _grading(runtime)
    seats = [seat for seat in grading.require(asked.graders) if seat.grader.on == "reply" or asked.graders]
    found = [await asyncio.to_thread(grading.measuring.measure, caller.scope, seat) for seat in seats]
    told = []
    for seat, one in zip(seats, found, strict=True):
        curve = one.curve
        told.append(
            {
                "grader": seat.metric,
                "id": seat.id,
                "raw": one.raw._asdict() if one.raw else None,
                "given": one.given._asdict() if one.given else None,
                "curve": {"kind": curve.kind, "labels": curve.labels, "held_out": curve.held_out} if curve else None,
                "calibrates": seat.grader.needs_model,
                "labels_wanted": one.wanted,
            }
        )
    return {"agreement": told}


def _grading(runtime: Runtime) -> Grading:
    if runtime.grading is None:
        raise InputError(NONE_SET)
    return runtime.grading


def _calls(runtime: Runtime, caller: Caller, asked: GradeAsked) -> list[str]:
    if asked.call:
        if runtime.ledger.trace(caller.scope, asked.call) is None:
            raise InputError(f"there is no call {asked.call[:100]!r} here; `windlass calls` lists those there are")
        return [asked.call]
    now = runtime.clock()
    wanted = CallFilter(
        error="none",
        user=asked.user,
        model=asked.model,
        since=moment(asked.since, now),
        until=moment(asked.until, now),
    )
    found = runtime.ledger.calls(caller.scope, limit=asked.limit, before=asked.before, wanted=wanted)
    return [trace.call.id for trace in found]


def _standing(seat: Seat, spent_today_nusd: int, *, counted: bool) -> dict[str, Any]:
    grader = seat.grader
    told = {
        "grader": seat.metric,
        "id": seat.id,
        "source": grader.source,
        "asked_on": grader.on,
        "needs_model": grader.needs_model,
        "cost_nusd": grader.cost_nusd,
        "share": seat.options.share,
        "answers": len(seat.answers) if seat.answers is not None else 0,
        "daily_nusd": round(seat.options.daily_usd * 1e9),
    }
    if counted:
        told |= {
            "spent_today_nusd": spent_today_nusd,
            "given": seat.given,
            "skipped": dict(seat.skipped),
            "failed": seat.failed,
            "last_failure": seat.last_failure,
        }
    return told
