"""The decision pages: each point with its mode, its policies and what they earned; the changes that people make there.

A change is confirmed on a page of its own and then recorded as a decision; who may only look sees no form.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from windlass.errors import RequestError
from windlass.gateway.access.admission import RANK, Caller, require
from windlass.ledger.ledger import DecisionFilter
from windlass.policies.points import NAMED
from windlass.policies.rollout import MODES, RollBack, SetMode
from windlass.policies.score import Score, foremost
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import control
from windlass.server.dashboard import charts, stacks, words
from windlass.server.dashboard.forms import form_of
from windlass.server.dashboard.learned import QUESTIONS
from windlass.server.dashboard.ranges import RANGES, Range, address, asked, chosen
from windlass.server.dashboard.site import Site
from windlass.server.points import Standing, Taken, standings, taken, turns
from windlass.watch.store import HOUR_S, DecisionHour, hour_of

PAGE = 50
SHOWN_PARTS = stacks.TONES
ENOUGH = 30
"""Below so many matched decisions an interval is worth little."""
MEANT = {
    "off": "The default action is taken, and nothing is learned.",
    "shadow": "The default action is taken; the policy is recorded beside it and learns, but never acts.",
    "live": "The policy acts, and learns from what comes of it.",
    "settings": "Back to the mode of the settings, whatever they say.",
}


@dataclass(frozen=True)
class Drawn:
    """A point with its drawings. parts: (tone, action) of the key; hours: the rows of the table beside it."""

    standing: Standing
    question: str
    shares: Markup
    rewards: Markup
    parts: tuple[tuple[int, str], ...]
    hours: tuple[tuple[int, tuple[str, ...]], ...]
    scores: tuple[tuple[Score, Markup], ...]
    verdict: str


async def page(site: Site, request: Request) -> Response:
    """All points."""
    caller = site.access.caller(request)
    picked = chosen(request)

    def drawn() -> Response:
        head, now = site.runtime.overview.cursor, site.runtime.clock()
        found = standings(site.runtime, caller.scope, picked.since(now))
        view = {
            "head": head,
            "chosen": picked,
            "ranges": [(one, address("/decisions", {"range": one.name})) for one in RANGES],
            "points": [_drawn(site.runtime, caller.scope, one, picked, now) for one in found],
        }
        return site.page(request, "decisions.html", view)

    return await asyncio.to_thread(drawn)


async def point(site: Site, request: Request) -> Response:
    """One point: its drawings, its policies, what people changed, its newest decisions, and the forms to change it."""
    caller = site.access.caller(request)
    picked, before = chosen(request), asked(request, "before")
    wanted = {name: asked(request, name) for name in ("action", "policy", "live")}

    def drawn() -> Response:
        name = request.path_params["point"]
        head, now = site.runtime.overview.cursor, site.runtime.clock()
        found = standings(site.runtime, caller.scope, picked.since(now), name)
        if not found:
            return site.problem(request, 404, "No such decision point", f"Nothing was ever decided at {name[:100]}")
        view = _listed(site.runtime, caller.scope, name, picked, wanted, before)
        view |= {
            "head": head,
            "chosen": picked,
            "ranges": [(one, address(request.url.path, {"range": one.name})) for one in RANGES],
            "point": _drawn(site.runtime, caller.scope, found[0], picked, now),
            "turns": turns(site.runtime, caller.scope, name),
            "meant": MEANT,
            **_changeable(site.runtime, caller, found[0]),
        }
        return site.page(request, "point.html", view)

    return await asyncio.to_thread(drawn)


async def confirm(site: Site, request: Request) -> Response:
    """Say what a change would do, before it is done."""
    caller = site.access.caller(request)
    require(caller, "operator")
    change = _change(site.runtime, request.path_params["point"], dict(request.query_params))
    view = {"change": change, "told": _told(change), "rolls_back": isinstance(change, RollBack)}
    return await asyncio.to_thread(site.page, request, "change.html", view)


async def make(site: Site, request: Request) -> Response:
    """Record the change; it holds from then on, in every worker."""
    caller = site.access.caller(request)
    require(caller, "operator")
    form = await form_of(request)
    if not site.access.vouches(request, form.get("token", "")):
        advice = "The server has started anew, or you have signed in again, since this page was made. Nothing changed."
        return site.problem(request, 403, "This form is out of date", advice, kept=form.get("reason", ""))
    change = _change(site.runtime, request.path_params["point"], form)
    arguments: dict[str, Any] = {"point": change.point, "reason": form.get("reason", "").strip()[:1_000]}
    match change:
        case SetMode():
            await control.set_mode(site.runtime, caller, {**arguments, "mode": change.mode})
        case RollBack():
            await control.roll_back(site.runtime, caller, {**arguments, "snapshot": change.cursor})
        case _ as other:
            assert_never(other)
    return RedirectResponse(address(f"/decisions/{change.point}", {"changed": "1"}, "changes"), 303)


def _change(runtime: Runtime, name: str, fields: dict[str, str]) -> SetMode | RollBack:
    """The change that a form asks for. RequestError for one that cannot be."""
    if name not in runtime.loop.points:
        raise RequestError(f"{name[:100]} is no decision point of the settings", status=404)
    mode, cursor = fields.get("mode", ""), fields.get("cursor", "")
    for known in MODES:
        if mode == known:
            return SetMode(name, known)
    if not mode and cursor.isascii() and cursor.isdecimal() and len(cursor) < 19:
        return RollBack(name, int(cursor))
    raise RequestError("choose a mode or a snapshot and send it once more")


def _told(change: SetMode | RollBack) -> str:
    match change:
        case SetMode():
            return MEANT[change.mode]
        case RollBack(cursor=0):
            return "The policy forgets everything it has learned and starts anew."
        case _:
            return (
                f"The policy becomes what it was after ledger entry {change.cursor:,}; what it has learned since is "
                "dropped, and it learns on from there."
            )


def _changeable(runtime: Runtime, caller: Caller, standing: Standing) -> dict[str, Any]:
    """What the forms offer; nothing for who may only look, or where the settings know no such point."""
    if RANK[caller.role] < RANK["operator"] or not standing.mode:
        return {"modes": (), "snapshots": ()}
    kept = sorted(runtime.projections.snapshots(), key=lambda snapshot: -snapshot.cursor)
    return {"modes": MODES, "snapshots": kept}


def _listed(
    runtime: Runtime, scope: Scope, name: str, picked: Range, wanted: dict[str, str], before: str
) -> dict[str, Any]:
    """The newest decisions of the point for which the filter holds."""
    live = {"live": True, "shadow": False}.get(wanted["live"])
    fields = {"point": name, "action": wanted["action"], "policy": wanted["policy"], "live": live}
    asked_for = msgspec.convert(fields, DecisionFilter)
    found = runtime.ledger.decisions(scope, limit=PAGE + 1, before=before, wanted=asked_for)
    here, path = {"range": picked.name, **wanted}, f"/decisions/{name}"
    return {
        "wanted": wanted,
        "before": before,
        "filtered": any(wanted.values()),
        "decisions": found[:PAGE],
        "older": address(path, {**here, "before": found[PAGE - 1].id}, "newest") if len(found) > PAGE else "",
        "newest": address(path, here, "newest"),
    }


def _drawn(runtime: Runtime, scope: Scope, standing: Standing, picked: Range, now: float) -> Drawn:
    """The live choices of a point by the hour."""
    point_name = standing.point
    first = min(picked.axis(0.0, now))
    hours = runtime.rollups.decisions(scope, first, point=point_name)
    live = [hour for hour in hours if hour.live and hour.policy != NAMED]
    start, end = map(hour_of, picked.axis(live[0].hour if live else now, now))
    live = [hour for hour in live if hour.hour >= start]
    times = range(start, end + HOUR_S, HOUR_S)
    everything = taken(live)
    names = [one.action for one in everything[:SHOWN_PARTS]]
    chosen_parts, reward_parts = _parts(live, times, names)
    return Drawn(
        standing=standing,
        question=QUESTIONS.get(point_name, ""),
        shares=stacks.stacked(
            f"shares-{point_name}",
            f"Share of each action at {point_name} by hour",
            "; ".join(f"{one.action} {words.percent(one.share)}" for one in everything) or "Nothing was decided.",
            times,
            chosen_parts,
            shares=True,
        ),
        rewards=stacks.levels(
            f"rewards-{point_name}",
            f"Mean reward of each action at {point_name} by hour",
            _rewards_told(everything) or "No rewards yet.",
            times,
            reward_parts,
            _top(reward_parts),
        ),
        parts=tuple(enumerate(names)),
        hours=_table(times, chosen_parts, reward_parts),
        scores=_scored(standing.scores, point_name),
        verdict=verdict(standing.scores),
    )


def _parts(
    live: Sequence[DecisionHour], times: Sequence[int], names: Sequence[str]
) -> tuple[list[stacks.Part], list[stacks.Part]]:
    """How often each action was chosen by the hour, and what it earned on average."""
    by_place: dict[tuple[int, str], list[DecisionHour]] = defaultdict(list)
    for hour in live:
        by_place[hour.hour, hour.action].append(hour)
    chosen = [stacks.Part(name, [_chosen(by_place[at, name]) for at in times]) for name in names]
    return chosen, [stacks.Part(name, [_reward(by_place[at, name]) for at in times]) for name in names]


def _rewards_told(everything: Sequence[Taken]) -> str:
    rewarded = [one for one in everything if one.reward is not None]
    return "; ".join(f"{one.action} {one.reward:.2f} over {words.plural(one.rewarded, 'reward')}" for one in rewarded)


def _top(reward_parts: Sequence[stacks.Part]) -> float:
    """The end of the scale: 1, or more where a reward is higher."""
    return charts.nice(max([1.0, *(value for part in reward_parts for value in part.values if value is not None)]))


def _table(
    times: Sequence[int], chosen_parts: Sequence[stacks.Part], reward_parts: Sequence[stacks.Part]
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """(hour, what each action did in it), newest first, without the hours in which nothing was decided."""
    rows: list[tuple[int, tuple[str, ...]]] = []
    for place, at in reversed(tuple(enumerate(times))):
        cells: list[str] = []
        for chosen_part, reward_part in zip(chosen_parts, reward_parts, strict=True):
            count, reward = chosen_part.values[place], reward_part.values[place]
            earned = "" if reward is None else f", {reward:.2f}"
            cells.append(f"{count:,.0f}{earned}" if count else words.NONE)
        if any(cell != words.NONE for cell in cells):
            rows.append((at, tuple(cells)))
    return tuple(rows)


def _scored(scores: Sequence[Score], point_name: str) -> tuple[tuple[Score, Markup], ...]:
    """Each policy's value with its interval, all on one scale."""
    edges = [(one.value, one.half_width) for one in scores if one.value is not None and one.half_width is not None]
    low = min([0.0, *(value - half for value, half in edges)])
    high = max([1.0, *(value + half for value, half in edges)])
    drawn: list[tuple[Score, Markup]] = []
    for place, one in enumerate(scores):
        drawing = Markup("")
        if one.value is not None and one.half_width is not None:
            name = one.shadow or one.policy
            ident = f"score-{point_name}-{place}"
            drawing = charts.interval(ident, name, one.value, one.half_width, low=low, high=high)
        drawn.append((one, drawing))
    return tuple(drawn)


def verdict(scores: Sequence[Score]) -> str:
    """Live against shadow in one sentence that claims no more than the intervals."""
    valued = [one for one in scores if one.value is not None]
    live = foremost(valued)
    rivals = [one for one in valued if not one.live]
    if live is None:
        return "No reward is known yet, so nothing can be compared."
    if not rivals:
        return f"What was live earned {live.value:.2f} on average; no policy in shadow can be compared with it yet."
    return _compared(live, max(rivals, key=lambda one: one.value or 0.0))


def _compared(live: Score, best: Score) -> str:
    name = best.shadow or best.policy
    if best.matched < ENOUGH or best.half_width is None or live.half_width is None:
        count = words.plural(best.matched, "decision")
        return f"{name} in shadow agreed with what was live in only {count}: too few to compare."
    gap, doubt = (best.value or 0.0) - (live.value or 0.0), best.half_width + live.half_width
    if gap > doubt:
        return f"{name} in shadow would have earned {gap:.2f} more than what was live; the intervals lie apart."
    if gap < -doubt:
        return f"What was live earned {-gap:.2f} more than {name} in shadow would have; the intervals lie apart."
    return f"Too close to tell: {name} in shadow and what was live are {abs(gap):.2f} apart, and the intervals overlap."


def _chosen(hours: Sequence[DecisionHour]) -> float | None:
    return float(sum(hour.chosen for hour in hours)) if hours else None


def _reward(hours: Sequence[DecisionHour]) -> float | None:
    rewarded = sum(hour.rewarded for hour in hours)
    return sum(hour.reward_sum for hour in hours) / rewarded if rewarded else None
