"""What people decide: the mode of a point, a policy rolled back, a user forgotten. Operations for those with the role.

Each is recorded twice: in the ledger, where every worker follows it, and in the audit trail, with who and why.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from windlass.errors import InputError, PolicyError
from windlass.gateway.access.admission import Caller, require
from windlass.ledger import postgres
from windlass.policies.rollout import Change, RollBack, SetMode
from windlass.runtime import Runtime
from windlass.server.reading import read

Arguments = dict[str, Any]
Reason = Annotated[str, Meta(max_length=1_000)]


class ModeAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `mode`."""

    point: str
    mode: Literal["off", "shadow", "live", "settings"]
    reason: Reason = ""


class RollBackAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `rollback`."""

    point: str
    snapshot: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    reason: Reason = ""


class UserAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `forget`."""

    user: str
    reason: Reason = ""


class NothingAsked(msgspec.Struct, forbid_unknown_fields=True):
    """For an operation that takes no arguments."""


async def snapshots(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """What a policy can be rolled back to: snapshots by their place in the ledger, oldest first."""
    require(caller, "operator")
    read(arguments, NothingAsked)
    kept = await asyncio.to_thread(runtime.projections.snapshots)
    return {"snapshots": [{"snapshot": one.cursor, "at": one.at, "note": one.note} for one in kept]}


async def set_mode(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Decide a point in another mode from now on, for the caller's workspace."""
    wanted = read(arguments, ModeAsked)
    return await _roll_out(runtime, caller, SetMode(wanted.point, wanted.mode), wanted.reason)


async def roll_back(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Let a point's policy be what it was at a snapshot, for the caller's workspace; 0: nothing learned."""
    wanted = read(arguments, RollBackAsked)
    return await _roll_out(runtime, caller, RollBack(wanted.point, wanted.snapshot), wanted.reason)


async def forget(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Delete everything that one user of the caller's workspace left; `remains`: what else keeps it, and how long."""
    require(caller, "admin")
    wanted = read(arguments, UserAsked)
    reason = _storable(wanted.reason)
    changed = await runtime.forget(caller.scope, wanted.user, by=_who(caller), reason=reason)
    return {"changed": changed, "remains": await asyncio.to_thread(postgres.end_log, runtime.db)}


async def _roll_out(runtime: Runtime, caller: Caller, change: Change, reason: str) -> dict[str, Any]:
    require(caller, "operator")
    try:
        decision = await runtime.roll_out(caller.scope, change, by=_who(caller), reason=_storable(reason))
    except PolicyError as exc:
        raise InputError(str(exc)) from exc
    return {"decision": msgspec.to_builtins(decision)}


def _storable(reason: str) -> str:
    """The reason, which is recorded after the deed: what cannot be recorded must be refused before it."""
    if "\x00" in reason or reason != reason.encode(errors="replace").decode():
        raise InputError("reason holds a character that cannot be stored; leave it out")
    return reason


def _who(caller: Caller) -> str:
    return f"key:{caller.key}" if caller.key else "local"
