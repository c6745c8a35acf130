"""Keys with what was done with each: how often it was used, when last, and what that cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from windlass.gateway.access.admission import RANK, Caller
from windlass.gateway.access.keys import VirtualKey
from windlass.gateway.options import KeyOptions
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import keys
from windlass.server.budgets import reach

Arguments = dict[str, Any]
USE_S = 30 * 86_400.0
"""So far back what a key cost is summed up, unless a page asks otherwise."""


async def listed(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The keys of a tenant, the newest last, each without the key, with what was done with it in the last 30 days."""
    answer = await keys.keys(runtime, caller, arguments)
    tenant = str(arguments.get("tenant") or caller.scope.tenant)
    since = runtime.clock() - USE_S
    for key in answer["keys"]:
        key["use"] = await asyncio.to_thread(use, runtime, tenant, key["name"], key["workspaces"], since)
    return answer


async def visible(runtime: Runtime, caller: Caller, since: float) -> list[dict[str, Any]]:
    """The keys that a caller may see, for the page: those of the settings first. An admin sees those of its tenant,
    everybody else the key behind the visit alone."""
    shown = {}
    if RANK[caller.role] >= RANK["admin"]:
        shown = {key["id"]: key for key in (await keys.keys(runtime, caller, {}))["keys"]}

    def look() -> list[dict[str, Any]]:
        found = [_of_settings(key) for key in _settings(runtime, caller)]
        found += [shown.get(key.id) or _own(runtime, key) for key in reach(runtime, caller)]
        for key in found:
            key["use"] = use(runtime, caller.scope.tenant, key["name"], key["workspaces"], since)
        return found

    return await asyncio.to_thread(look)


def use(runtime: Runtime, tenant: str, name: str, workspaces: Iterable[str], since: float) -> dict[str, Any]:
    """Calls, errors and cost of a key since then, and when it was last used at all (UTC seconds, or None)."""
    total: dict[str, Any] = {"calls": 0, "errors": 0, "cost_nusd": 0, "last_at": None}
    tables = runtime.watch.outcomes
    for workspace in dict.fromkeys(workspaces):
        scope = Scope(tenant, workspace)
        last_at = tables.last_used(scope, name)
        if last_at is None:
            continue
        total["last_at"] = max(total["last_at"] or last_at, last_at)
        if last_at >= since and (found := tables.keys(scope, since, name).get(name)) is not None:
            for field in ("calls", "errors", "cost_nusd"):
                total[field] += getattr(found, field)
    return total


def _settings(runtime: Runtime, caller: Caller) -> list[KeyOptions]:
    """The keys of the settings that a caller may see."""
    mine = [key for key in runtime.settings.keys if key.tenant == caller.scope.tenant]
    if RANK[caller.role] < RANK["admin"]:
        return [key for key in mine if key.name == caller.key and caller.virtual is None]
    within = set(runtime.gateway.admission.workspaces(caller))
    return [key for key in mine if not caller.key or within.issuperset(key.workspaces)]


def _own(runtime: Runtime, key: VirtualKey) -> dict[str, Any]:
    """The key behind a visit, as its holder may see it; it let the visit in, so it is good."""
    told = msgspec.to_builtins(key)
    hidden = ("under", "created_by", "limits")
    shown = {name: value for name, value in told.items() if name not in hidden}
    return {**shown, "limits": [], "state": "good" if key.good(runtime.clock()) else "expired"}


def _of_settings(key: KeyOptions) -> dict[str, Any]:
    """A key of the settings in the shape of the others; its digest stays where it is."""
    nothing: dict[str, Any] = dict.fromkeys(("created_at", "expires_at", "revoked_at", "previous_until"))
    return {
        **nothing,
        **{"id": "", "name": key.name, "tenant": key.tenant, "workspaces": list(key.workspaces), "team": ""},
        **{"role": key.role, "models": [], "endpoints": [], "limits": [], "shown": "", "state": "settings"},
    }
