"""What one can read of a running Windlass: calls, decisions, points and feedback, by filter and page by page.

The same answers for the command line, for `POST /api/<name>` and for `GET /api/<name>?...`; docs/reference/api.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from windlass.errors import InputError
from windlass.gateway.access.admission import Caller
from windlass.ledger.ledger import Body, CallFilter, DecisionFilter, FeedbackFilter
from windlass.records import FeedbackKind, FeedbackSource
from windlass.runtime import Runtime
from windlass.server import lookback
from windlass.server.arguments import wrong
from windlass.server.points import standings, turns

Arguments = dict[str, Any]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Moment = float | str
"""UTC seconds, an ISO 8601 time, or how long ago: `90m`, `24h`, `7d`."""
T = TypeVar("T", bound=msgspec.Struct)
F = TypeVar("F", CallFilter, DecisionFilter, FeedbackFilter)
MOST_S = 1e12
_AGO = re.compile(r"([0-9]{1,6})([smhd])\Z")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class Query(dict[str, Any]):
    """Arguments from an address, where everything is text: `5` may be a number, `true` a truth."""


class CallsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `calls`."""

    limit: Limit = 20
    before: str = ""
    model: str = ""
    provider: str = ""
    error: str = ""
    endpoint: str = ""
    user: str = ""
    text: str = ""
    since: Moment | None = None
    until: Moment | None = None


class CallAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `call`."""

    call: str
    bodies: bool = False


class DecisionsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `decisions`."""

    limit: Limit = 20
    before: str = ""
    point: str = ""
    action: str = ""
    policy: str = ""
    live: bool | None = None
    since: Moment | None = None
    until: Moment | None = None


class PointsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `points`."""

    point: str = ""
    since: Moment | None = None


class FeedbackAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `feedback`."""

    limit: Limit = 20
    before: str = ""
    kind: FeedbackKind | None = None
    source: FeedbackSource | None = None
    metric: str = ""
    target: str = ""
    text: str = ""
    since: Moment | None = None
    until: Moment | None = None


class BudgetsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `budgets`."""

    name: str = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 20
    since: Moment | None = None


class ProvidersAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `providers`."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 20
    before: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    provider: str = ""
    model: str = ""
    since: Moment | None = None


class ClustersAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `clusters`. tenant, workspace: whose prompts; without, the caller's."""

    tenant: str = ""
    workspace: str = ""


class ExperimentsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiments`."""

    point: str = ""
    state: str = ""
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class ExperimentAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiment`. name: of the plan, or its id; the one under way, else the newest."""

    name: str
    point: str = ""


class PricesAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `prices`."""

    model: str = ""
    provider: str = ""
    differ: bool = False
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 50
    after: str = ""


ARGUMENTS: dict[str, type[msgspec.Struct]] = {
    "calls": CallsAsked,
    "call": CallAsked,
    "decisions": DecisionsAsked,
    "points": PointsAsked,
    "feedback": FeedbackAsked,
    "budgets": BudgetsAsked,
    "providers": ProvidersAsked,
    "prices": PricesAsked,
    "clusters": ClustersAsked,
    "experiments": ExperimentsAsked,
    "experiment": ExperimentAsked,
}
"""The operations that only read, which GET serves too."""


async def calls(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The newest calls that are wanted, with their decisions, outcome and feedback; `further` where a search by words
    stopped before it had looked at all."""
    page = read(arguments, CallsAsked)
    wanted = _wanted(page, CallFilter, runtime.clock())
    found, further = await asyncio.to_thread(
        lookback.calls, runtime.ledger, caller.scope, wanted, limit=page.limit, before=page.before
    )
    return {"calls": [msgspec.to_builtins(trace) for trace in found], **_further(further)}


async def call(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """One call with all that belongs to it; what was sent and received too where that is asked for and kept."""
    wanted = read(arguments, CallAsked)
    if "\x00" in wanted.call:
        raise InputError("the id of a call holds no NUL character")
    trace = await asyncio.to_thread(runtime.ledger.trace, caller.scope, wanted.call)
    if trace is None:
        raise InputError(f"there is no call {wanted.call[:100]!r} here; `windlass calls` lists those there are")
    kept = await asyncio.to_thread(runtime.ledger.bodies, caller.scope, wanted.call) if wanted.bodies else ()
    return {**msgspec.to_builtins(trace), "bodies": [_body(body) for body in kept]}


async def decisions(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The newest decisions that are wanted."""
    page = read(arguments, DecisionsAsked)
    wanted = _wanted(page, DecisionFilter, runtime.clock())
    found = await asyncio.to_thread(
        runtime.ledger.decisions, caller.scope, limit=page.limit, before=page.before, wanted=wanted
    )
    return {"decisions": [msgspec.to_builtins(decision) for decision in found]}


async def points(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Every decision point: its mode and policies, what was chosen how often, what it earned, what people changed."""
    wanted = read(arguments, PointsAsked)
    since = moment(wanted.since, runtime.clock()) or 0.0

    def found() -> list[dict[str, Any]]:
        standing = standings(runtime, caller.scope, since, wanted.point)
        return [
            {**msgspec.to_builtins(one), "changes": msgspec.to_builtins(turns(runtime, caller.scope, one.point))}
            for one in standing
        ]

    return {"points": await asyncio.to_thread(found)}


async def feedback(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The newest feedback that is wanted; `further` as in `calls`."""
    page = read(arguments, FeedbackAsked)
    wanted = _wanted(page, FeedbackFilter, runtime.clock())
    found, further = await asyncio.to_thread(
        lookback.feedback, runtime.ledger, caller.scope, wanted, limit=page.limit, before=page.before
    )
    return {"feedback": [msgspec.to_builtins(said) for said in found], **_further(further)}


def read(arguments: Arguments, kind: type[T]) -> T:
    """The arguments as `kind`. InputError says what is wrong with them."""
    try:
        return msgspec.convert(arguments, kind, strict=not isinstance(arguments, Query))
    except msgspec.ValidationError as exc:
        raise InputError(wrong(arguments, kind, exc)) from exc


def moment(value: Moment | None, now: float) -> float | None:
    """A time as UTC seconds.

    >>> moment("90m", 10_000.0), moment("1970-01-02", 0.0), moment(5.0, 0.0), moment(None, 0.0)
    (4600.0, 86400.0, 5.0, None)
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        ago = _AGO.match(value)
        at = now - int(ago[1]) * _UNIT_S[ago[2]] if ago else _written(value)
    else:
        at = float(value)
    if not math.isfinite(at) or abs(at) > MOST_S:
        raise InputError(f"{value} is no time in seconds since 1970")
    return at


def _written(text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as exc:
        raise InputError(f"{text[:60]!r} is no time; write 90m, 24h, 7d, 2026-05-01T12:00 or seconds") from exc


def _wanted(page: CallsAsked | DecisionsAsked | FeedbackAsked, kind: type[F], now: float) -> F:
    """The filter among the arguments, its times as seconds."""
    fields = {name: getattr(page, name) for name in kind.__struct_fields__}
    fields |= {name: moment(fields[name], now) for name in ("since", "until")}
    fields |= {name: fields[name] or "" for name in ("kind", "source") if name in fields}
    return msgspec.convert(fields, kind)


def _further(further: str) -> dict[str, str]:
    return {"further": further} if further else {}


def _body(body: Body) -> dict[str, Any]:
    text = body.data.decode(errors="replace")
    return {"role": body.role, "bytes": len(body.data), "expires_at": body.expires_at, "text": text}
