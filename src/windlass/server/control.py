"""What people decide: the mode of a point, a policy rolled back, a user forgotten. Operations for those with the role.

Each is recorded twice: in the ledger, where every worker follows it, and in the audit trail, with who and why.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from windlass.errors import InputError, PolicyError
from windlass.gateway.admission import Caller, require
from windlass.ledger import postgres
from windlass.policies.rollout import Change, RollBack, SetMode
from windlass.runtime import Runtime
from windlass.server.reading import read

Arguments = dict[str, Any]


class _Mode(msgspec.Struct, forbid_unknown_fields=True):
    point: str
    mode: Literal["off", "shadow", "live", "settings"]
    reason: str = ""


class _RollBack(msgspec.Struct, forbid_unknown_fields=True):
    point: str
    snapshot: int
    reason: str = ""


class _User(msgspec.Struct, forbid_unknown_fields=True):
    user: str
    reason: str = ""


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


async def snapshots(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """What a policy can be rolled back to: snapshots by their place in the ledger, oldest first."""
    require(caller, "operator")
    read(arguments, _Nothing)
    kept = await asyncio.to_thread(runtime.projections.snapshots)
    return {"snapshots": [{"snapshot": one.cursor, "at": one.at, "note": one.note} for one in kept]}


async def set_mode(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Decide a point in another mode from now on, for the caller's workspace."""
    wanted = read(arguments, _Mode)
    return await _roll_out(runtime, caller, SetMode(wanted.point, wanted.mode), wanted.reason)


async def roll_back(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Let a point's policy be what it was at a snapshot, for the caller's workspace; 0: nothing learned."""
    wanted = read(arguments, _RollBack)
    return await _roll_out(runtime, caller, RollBack(wanted.point, wanted.snapshot), wanted.reason)


async def forget(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Delete everything that one user of the caller's workspace left; `remains`: what else keeps it, and how long."""
    require(caller, "admin")
    wanted = read(arguments, _User)
    changed = await runtime.forget(caller.scope, wanted.user, by=_who(caller), reason=wanted.reason)
    return {"changed": changed, "remains": await asyncio.to_thread(postgres.end_log, runtime.db)}


async def _roll_out(runtime: Runtime, caller: Caller, change: Change, reason: str) -> dict[str, Any]:
    require(caller, "operator")
    try:
        decision = await runtime.roll_out(caller.scope, change, by=_who(caller), reason=reason)
    except PolicyError as exc:
        raise InputError(str(exc)) from exc
    return {"decision": msgspec.to_builtins(decision)}


def _who(caller: Caller) -> str:
    return f"key:{caller.key}" if caller.key else "local"
