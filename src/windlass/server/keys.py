"""Virtual keys: listed, made, rotated and revoked by admins, each change with a row in the audit trail.

A key opens nothing that the key behind its making does not: it is of the same tenant, of none but its workspaces, and
a key with scopes or limits of its own makes none at all, or it could free itself of them. The folder's own token
(`windlass keys`) speaks for the machine's owner, who may name any tenant.
"""

from __future__ import annotations

import asyncio
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from windlass.errors import AccessError, ErrorCategory, InputError, ModelUnknown
from windlass.gateway.access.admission import Caller, require
from windlass.gateway.access.keys import VirtualKey
from windlass.gateway.endpoints import FOREIGN, RELAYED
from windlass.gateway.options import LimitOptions, Role
from windlass.records import DEFAULT_WORKSPACE, Scope
from windlass.runtime import Runtime
from windlass.server.reading import read
from windlass.stats.dollars import NUSD, dollars

Arguments = dict[str, Any]
Window = Literal["minute", "hour", "day", "month", "total"]
Count = Annotated[int, Meta(ge=0, le=10**15)]
ENDPOINTS: Final = ("chat", "embeddings", *FOREIGN, *RELAYED.values(), "metrics")
MOST_LISTED: Final = 100
PATTERN_CHARS: Final = 100
MOST_USD: Final = 1e9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LASTS = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class TenantAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `keys`."""

    tenant: str = ""


class CreateAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `key_create`."""

    name: str
    tenant: str = ""
    team: str = ""
    workspaces: tuple[str, ...] = (DEFAULT_WORKSPACE,)
    role: Role = "operator"
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    expires: str = ""
    budget_usd: float | None = None
    window: Window | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    concurrent: Count | None = None


class RotateAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `key_rotate`."""

    name: str
    tenant: str = ""
    grace: str = "24h"


class RevokeAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `key_revoke`."""

    name: str
    tenant: str = ""


async def keys(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The keys of a tenant, the newest last, each without the key."""
    require(caller, "admin")
    tenant = _tenant(caller, read(arguments, TenantAsked).tenant)
    await asyncio.to_thread(runtime.keys.refresh)
    found = [key for key in runtime.keys.all() if key.tenant == tenant and _reaches(runtime, caller, key.workspaces)]
    return {"keys": [_shown(runtime, key) for key in found]}


async def create(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Make a key; `api_key` is the key itself, which nobody can ever read again. first: from now on nobody is let in
    without one. warnings: what of it will not work as things are."""
    _may_change(caller)
    wanted = read(arguments, CreateAsked)
    first = runtime.gateway.admission.open
    key = _asked(wanted, _tenant(caller, wanted.tenant), runtime.clock(), by=_who(caller))
    if not _reaches(runtime, caller, key.workspaces):
        raise _beyond(caller, f"make one for the workspaces {', '.join(key.workspaces)}")
    if any((one.tenant, one.name) == (key.tenant, key.name) for one in runtime.settings.keys):
        raise InputError(f"the settings have a key {key.name!r} of tenant {key.tenant!r}; choose another name")
    made, plain = await asyncio.to_thread(runtime.keys.create, key)
    about = {name: value for name, value in _shown(runtime, made).items() if value not in (None, "", [])}
    await _record(runtime, caller, "key_created", made, about)
    return {"api_key": plain, "key": _shown(runtime, made), "first": first, "warnings": _unmatched(runtime, made)}


async def rotate(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Make a new key in the place of another, which is good for `grace` longer; answers as `create` does."""
    _may_change(caller)
    wanted = read(arguments, RotateAsked)
    tenant, grace_s = _tenant(caller, wanted.tenant), _lasts("grace", wanted.grace)
    await _find(runtime, caller, tenant, wanted.name)
    made, plain = await asyncio.to_thread(runtime.keys.rotate, tenant, wanted.name, grace_s)
    await _record(runtime, caller, "key_rotated", made, {"previous_until": made.previous_until})
    return {"api_key": plain, "key": _shown(runtime, made), "first": False}


async def revoke(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Let a key in no more. Who is signed in with it is signed out."""
    _may_change(caller)
    wanted = read(arguments, RevokeAsked)
    tenant = _tenant(caller, wanted.tenant)
    await _find(runtime, caller, tenant, wanted.name)
    made = await asyncio.to_thread(runtime.keys.revoke, tenant, wanted.name)
    await _record(runtime, caller, "key_revoked", made, {})
    return {"key": _shown(runtime, made)}


# --- who may


def _tenant(caller: Caller, wanted: str) -> str:
    """The tenant that is asked for, or the caller's. Nobody but the folder's owner may name another one."""
    if not wanted or wanted == caller.scope.tenant:
        return caller.scope.tenant
    if caller.key:
        raise _beyond(caller, f"handle those of tenant {wanted[:64]!r}")
    return _name("tenant", wanted)


def _may_change(caller: Caller) -> None:
    require(caller, "admin")
    if caller.models or caller.endpoints or caller.limits:
        raise _beyond(caller, "make or change any: it has scopes or limits of its own")


def _reaches(runtime: Runtime, caller: Caller, workspaces: Iterable[str]) -> bool:
    return not caller.key or set(workspaces) <= set(runtime.gateway.admission.workspaces(caller))


async def _find(runtime: Runtime, caller: Caller, tenant: str, name: str) -> None:
    """InputError where the caller sees no such key, be it there or not."""
    await asyncio.to_thread(runtime.keys.refresh)
    for key in runtime.keys.all():
        if (key.tenant, key.name) == (tenant, name) and _reaches(runtime, caller, key.workspaces):
            return
    raise InputError(f"tenant {tenant!r} has no key {name[:100]!r} in force; see `windlass keys list`")


def _beyond(caller: Caller, what: str) -> AccessError:
    return AccessError(f"key {caller.key!r} may not {what}", category=ErrorCategory.SCOPE_DENIED)


def _who(caller: Caller) -> str:
    return f"key:{caller.key}" if caller.key else "local"


async def _record(runtime: Runtime, caller: Caller, action: str, key: VirtualKey, detail: dict[str, Any]) -> None:
    """A row in the trail of the key's own tenant."""
    scope = Scope(key.tenant, key.workspaces[0])
    told = {**detail, "id": key.id, "name": key.name, "shown": key.shown}
    await asyncio.to_thread(runtime.audit.append, scope, _who(caller), action, told)


# --- what is asked for


def _asked(wanted: CreateAsked, tenant: str, now: float, *, by: str) -> VirtualKey:
    """The key that is wanted. InputError for what cannot be."""
    lasts_s = _lasts("expires", wanted.expires) if wanted.expires else None
    if lasts_s == 0:
        raise InputError("expires is 0: the key would never be good; leave it out, or give a time such as 30d")
    for endpoint in wanted.endpoints:
        if endpoint not in ENDPOINTS:
            near = difflib.get_close_matches(endpoint[:100], ENDPOINTS, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(ENDPOINTS)}"
            raise InputError(f"there is no endpoint {endpoint[:100]!r}; {remedy}")
    return VirtualKey(
        id="",
        name=_name("name", wanted.name),
        tenant=tenant,
        team=_name("team", wanted.team) if wanted.team else "",
        workspaces=_all("workspaces", (_name("workspace", one) for one in wanted.workspaces), least=1),
        role=wanted.role,
        models=_all("models", (_pattern(one) for one in wanted.models)),
        endpoints=_all("endpoints", wanted.endpoints),
        limits=_limits(wanted),
        expires_at=None if lasts_s is None else now + lasts_s,
        created_by=by,
    )


def _name(what: str, given: str) -> str:
    if not _NAME.fullmatch(given):
        rule = "give 1 to 64 letters of a to z, digits, dots, dashes and underscores, a letter or a digit first"
        raise InputError(f"{what} is {given[:80]!r}; {rule}")
    return given


def _pattern(given: str) -> str:
    if not given or len(given) > PATTERN_CHARS or not (given.isascii() and given.isprintable()):
        rule = f"give a model or a pattern such as gpt-5*, of at most {PATTERN_CHARS} characters"
        raise InputError(f"models has {given[:80]!r}; {rule}")
    return given


def _all(what: str, given: Iterable[str], *, least: int = 0) -> tuple[str, ...]:
    """Each of them once, in their order."""
    found = tuple(dict.fromkeys(given))
    if not least <= len(found) <= MOST_LISTED:
        raise InputError(f"{what} has {len(found)} entries; give {least} to {MOST_LISTED}")
    return found


def _lasts(what: str, given: str) -> float:
    """How long, in seconds: `90m`, `24h`, `30d`; `0` is no time at all."""
    found = _LASTS.fullmatch(given)
    if found is None and given != "0":
        raise InputError(f"{what} is {given[:60]!r}; write how long, such as 90m, 24h or 30d")
    return float(found[1]) * _UNIT_S[found[2]] if found else 0.0


def _limits(wanted: CreateAsked) -> tuple[LimitOptions, ...]:
    """The limits of the key, each counted by tenant and name of the key, which no two keys share."""
    found = []
    usd = wanted.budget_usd
    if usd is None and wanted.window is not None:
        raise InputError(f"window is {wanted.window!r}, of no budget; give budget_usd as well, or leave window out")
    if usd is not None:
        if not (math.isfinite(usd) and 0 <= usd <= MOST_USD):
            raise InputError(f"budget_usd is {usd}; give 0 to {MOST_USD:.0f} US dollars")
        if usd > 0 and usd * NUSD < 1:
            least = f"give {dollars(1)} at least, or 0 for a key that may call only what costs nothing"
            raise InputError(f"budget_usd is {Decimal(str(usd)):f}, less than a nano-dollar; {least}")
        found.append(LimitOptions(name="budget of the key", per="key", window=wanted.window or "month", usd=usd))
    if wanted.rpm is not None or wanted.tpm is not None:
        rate = LimitOptions(name="rate of the key", per="key", requests=wanted.rpm, tokens=wanted.tpm)
        found.append(rate)
    if wanted.concurrent is not None:
        found.append(LimitOptions(name="calls at once of the key", per="key", concurrent=wanted.concurrent))
    return tuple(found)


# --- what is answered


def _unmatched(runtime: Runtime, key: VirtualKey) -> list[str]:
    """A sentence for each of the key's models that no model of the settings fits: it may be meant for one to come."""
    providers = runtime.gateway.providers
    names = sorted({*providers.names(), *providers.embedders()})
    missing = [one for one in key.models if not any(fnmatchcase(name, one) for name in names)]
    try:
        for one in missing:
            providers.find(one)  # a provider may offer every name
    except ModelUnknown:
        return [
            f"models has {one!r}, which fits no model of the settings by now; {_meant(one, names)}" for one in missing
        ]
    return []


def _meant(pattern: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:20])}"


def _shown(runtime: Runtime, key: VirtualKey) -> dict[str, Any]:
    """A key as people and programs may see it."""
    shown = {name: value for name, value in msgspec.to_builtins(key).items() if name not in ("under", "limits")}
    shown["limits"] = [
        {name: value for name, value in msgspec.to_builtins(limit).items() if value not in (None, "")}
        for limit in key.limits
    ]
    return {**shown, "state": _state(runtime, key)}


def _state(runtime: Runtime, key: VirtualKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if not key.good(runtime.clock()):
        return "expired"
    return "good" if key.under == runtime.keys.mark else "lost"
