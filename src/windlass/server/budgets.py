"""How limits stand: what is used, held and left of each, how a budget burns down, when it will be spent, and whom it
turned away.

A limit that several tenants share shows its figures to nobody who may not see them all: what is left of it would tell
what the others do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from windlass.gateway.access.admission import RANK, Caller
from windlass.gateway.access.keys import VirtualKey
from windlass.gateway.access.limits import USD, Place, Used, window
from windlass.gateway.options import LimitOptions
from windlass.runtime import Runtime
from windlass.server.reading import BudgetsAsked, moment, read
from windlass.watch.spending.forecast import Forecast, exhaustion
from windlass.watch.spending.store import Refused

Arguments = dict[str, Any]
Counted: TypeAlias = Literal["usd", "requests", "tokens", "concurrent"]
DAY_S = 86_400.0
_UNITS: Mapping[Counted, str] = {"usd": "nusd", "requests": "requests", "tokens": "tokens", "concurrent": "concurrent"}


class BudgetCount(msgspec.Struct, frozen=True, kw_only=True):
    """One count of a limit. measure: `usd` (figures in nano-dollars), `requests`, `tokens` or `concurrent`.

    group: who has this count, '' where it is one for all it is about. of_key: the key whose own limit it is. about:
    whom the limit is about. used and held are None where the count is shared with other tenants. since, ends: of the
    window, UTC seconds; None: it has none. series: (UTC seconds, used) through the window, of a budget.
    """

    name: str
    measure: Counted
    window: str
    per: str
    about: dict[str, str]
    group: str
    of_key: str
    most: int
    used: int | None
    held: int | None
    left: int | None
    since: float | None
    ends: float | None
    series: tuple[tuple[float, int], ...]
    forecast: Forecast | None


@dataclass(frozen=True)
class _View:
    """What one caller may see of limits. counts: of this process. alone: there is no other tenant."""

    runtime: Runtime
    caller: Caller
    now: float
    counts: Mapping[Place, Used]
    most: int
    keys: tuple[VirtualKey, ...]
    names: frozenset[str]
    alone: bool

    @property
    def tenant(self) -> str:
        return self.caller.scope.tenant

    @property
    def admin(self) -> bool:
        return RANK[self.caller.role] >= RANK["admin"]


async def budgets(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Every limit that the caller may see, each with the counts that are used up most, and what each refused."""
    asked = read(arguments, BudgetsAsked)
    since = moment(asked.since, runtime.clock())
    found, refused = await standing(runtime, caller, name=asked.name, most=asked.limit, since=since)
    return {"budgets": msgspec.to_builtins(found), "refused": msgspec.to_builtins(refused)}


async def standing(
    runtime: Runtime, caller: Caller, *, name: str = "", most: int = 20, since: float | None = None
) -> tuple[list[BudgetCount], Sequence[Refused]]:
    """(the counts, `most` of each limit; what was refused since then, or in the last day)."""
    now = runtime.clock()
    counts = {used.place: used for used in runtime.gateway.limits.counts()}  # on the loop, which changes them

    def look() -> tuple[list[BudgetCount], Sequence[Refused]]:
        view = _seen(runtime, caller, now, counts, most)
        found = [one for limit, key in _limits(view) if name in ("", limit.name) for one in _counts(view, limit, key)]
        runtime.watch.spending.flush()
        refused = runtime.watch.spending.refused(caller.scope, now - DAY_S if since is None else since)
        mine = [one for one in refused if view.admin or one.key == caller.key]
        return found, [one for one in mine if name in ("", one.limit)]

    return await asyncio.to_thread(look)


def reach(runtime: Runtime, caller: Caller) -> tuple[VirtualKey, ...]:
    """The virtual keys that a caller may see: an admin those whose workspaces are all its own, others their own."""
    mine = [key for key in runtime.keys.all() if key.tenant == caller.scope.tenant]
    if RANK[caller.role] < RANK["admin"]:
        return tuple(key for key in mine if key.id == caller.virtual)
    if not caller.key:
        return tuple(mine)
    within = set(runtime.gateway.admission.workspaces(caller))
    return tuple(key for key in mine if within.issuperset(key.workspaces))


def _seen(runtime: Runtime, caller: Caller, now: float, counts: Mapping[Place, Used], most: int) -> _View:
    keys = reach(runtime, caller)
    within = set(runtime.gateway.admission.workspaces(caller))
    settings = runtime.settings.keys
    admin = RANK[caller.role] >= RANK["admin"]
    named = {
        key.name
        for key in settings
        if key.tenant == caller.scope.tenant and admin and (not caller.key or within.issuperset(key.workspaces))
    }
    tenants = {key.tenant for key in settings} | {key.tenant for key in runtime.keys.all()}
    return _View(
        runtime=runtime,
        caller=caller,
        now=now,
        counts=counts,
        most=most,
        keys=keys,
        names=frozenset({caller.key, *named, *(key.name for key in keys)}),
        alone=not caller.key or tenants <= {caller.scope.tenant},
    )


def _limits(view: _View) -> Iterator[tuple[LimitOptions, VirtualKey | None]]:
    """The limits that are about the caller's tenant, and those that its keys carry."""
    caller = view.caller
    for limit in view.runtime.settings.limits:
        mine = limit.tenant in ("", view.tenant) and (not limit.key or limit.key in view.names)
        if mine and (view.admin or (limit.team in ("", caller.team) and not limit.user)):
            yield limit, None
    for key in view.keys:
        if key.good(view.now):
            for limit in key.limits:
                yield limit, key


def _counts(view: _View, limit: LimitOptions, key: VirtualKey | None) -> Iterator[BudgetCount]:
    """Each measure of a limit, for each group that the caller may see."""
    usd = limit.usd if limit.usd is not None and math.isfinite(limit.usd) else None
    mosts: dict[Counted, int | None] = {
        "usd": None if usd is None else round(usd * USD),
        "requests": limit.requests,
        "tokens": limit.tokens,
        "concurrent": limit.concurrent,
    }
    for measure, most in mosts.items():
        if most is not None:
            yield from _groups(view, limit, key, measure, most)


def _groups(
    view: _View, limit: LimitOptions, key: VirtualKey | None, measure: Counted, most: int
) -> Iterator[BudgetCount]:
    since, ends = (0, math.inf) if measure == "concurrent" else window(limit.window, view.now)
    shape = _shape(limit, key, measure, since, ends) | {"most": most}
    prefix, exact = _prefix(view, limit, key)
    if prefix is None:
        nothing: dict[str, Any] = dict.fromkeys(("used", "held", "left", "forecast"))
        yield BudgetCount(**shape, group="", series=(), **nothing)
        return
    used = _used(view, limit.name, measure, since, prefix, exact)
    if key is None and not exact:
        used = _visible(view, limit, prefix, used)
    used = used or {prefix: (0, 0)}  # nobody has a count yet
    ranked = sorted(used.items(), key=lambda pair: (-pair[1][0] - pair[1][1], pair[0]))
    for group, (spent, held) in ranked[: view.most]:
        series = _series(view, limit, group, since, spent) if measure == "usd" else ()
        yield BudgetCount(
            **shape,
            group=group.removeprefix(prefix) if not exact else _named(limit, group),
            used=spent,
            held=held,
            left=max(0, most - spent - held),
            series=series,
            forecast=exhaustion([(at, float(nusd)) for at, nusd in series], float(most), ends) if series else None,
        )


def _visible(
    view: _View, limit: LimitOptions, prefix: str, used: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """The groups that the caller may see."""
    return {group: both for group, both in used.items() if _may_see(view, limit, group.removeprefix(prefix))}


def _shape(limit: LimitOptions, key: VirtualKey | None, measure: Counted, since: int, ends: float) -> dict[str, Any]:
    """What all groups of a measure have in common."""
    about = {name: getattr(limit, name) for name in ("tenant", "team", "key", "user", "model")}
    return {
        "name": limit.name,
        "measure": measure,
        "window": "" if measure == "concurrent" else limit.window,
        "per": limit.per,
        "about": {name: value for name, value in about.items() if value},
        "of_key": key.name if key is not None else "",
        "since": float(since) if since else None,
        "ends": None if math.isinf(ends) else ends,
    }


def _prefix(view: _View, limit: LimitOptions, key: VirtualKey | None) -> tuple[str | None, bool]:
    """(how the groups begin that are the caller's business, whether that is the whole of it); None: not his to see."""
    if key is not None:
        inner = f"/{key.tenant}/{key.name}/"
        own = {"tenant": key.tenant, "team": f"{key.tenant}/{key.team}", "key": f"{key.tenant}/{key.name}", "all": ""}
        return (inner + own[limit.per], True) if limit.per in own else (inner, False)
    own_or_alone = view.alone or limit.tenant == view.tenant
    match limit.per:
        case "all":
            return ("" if own_or_alone else None), True
        case "model":
            return ("" if own_or_alone else None), False
        case "tenant":
            return view.tenant, True
        case _:
            return f"{view.tenant}/", False


def _may_see(view: _View, limit: LimitOptions, name: str) -> bool:
    """Whether a group within the tenant is shown: admins see all but keys beyond their workspaces, others their own."""
    match limit.per:
        case "key":
            return name in view.names
        case "team":
            return view.admin or name == view.caller.team
        case "user":
            return view.admin
        case _:
            return True


def _used(view: _View, name: str, measure: Counted, since: int, prefix: str, exact: bool) -> dict[str, tuple[int, int]]:
    """(used, held) by group: what is committed, and what this process counts beyond it."""
    found: dict[str, tuple[int, int]] = {prefix: (0, 0)} if exact else {}
    if measure == "usd":
        rows = view.runtime.watch.spending.used(name, since, prefix=prefix, most=10 * view.most)
        found |= {group: (nusd, 0) for group, nusd in rows if not exact or group == prefix}
    for place, count in view.counts.items():
        if (place.limit, place.measure, place.since) == (name, _UNITS[measure], since) and (
            place.group == prefix if exact else place.group.startswith(prefix)
        ):
            spent = found.get(place.group, (0, 0))[0]
            found[place.group] = max(spent, count.used), count.held
    return found


def _named(limit: LimitOptions, group: str) -> str:
    return group if limit.per == "tenant" and not group.startswith("/") else ""


def _series(view: _View, limit: LimitOptions, group: str, since: int, spent: int) -> tuple[tuple[float, int], ...]:
    """How the use grew in this window, up to now."""
    points = view.runtime.watch.spending.series(limit.name, group, since)
    begun = [(float(since), 0)] if since else []
    return (*begun, *((at, nusd) for at, nusd in points if since <= at < view.now), (view.now, spent))
