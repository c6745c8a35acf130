"""What people decide: the mode of a point, who decides there, a policy rolled back, a user forgotten. By role.

Each is recorded twice: in the ledger, where every worker follows it, and in the audit trail, with who and why.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from windlass.content import ask
from windlass.errors import InputError, PolicyError
from windlass.gateway import gateway
from windlass.gateway.access.admission import Caller, require
from windlass.gateway.route import kinds
from windlass.ledger import postgres
from windlass.policies.rollout import SETTINGS, Always, Change, Promote, RollBack, SetMode
from windlass.runtime import Runtime
from windlass.server import models
from windlass.server.envelope import conflict
from windlass.server.points import told
from windlass.server.reading import read

Arguments = dict[str, Any]
Reason = Annotated[str, Meta(max_length=1_000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


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


class PromoteAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `promote`. shadow: the name of one of the point's shadow policies; `settings`: its own again."""

    point: str
    shadow: Name
    reason: Reason = ""


class AlwaysAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `always`."""

    point: str
    action: Name
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
    return await roll_out(runtime, caller, SetMode(wanted.point, wanted.mode), wanted.reason)


async def roll_back(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Let a point's policy be what it was at a snapshot, for the caller's workspace; 0: nothing learned."""
    wanted = read(arguments, RollBackAsked)
    return await roll_out(runtime, caller, RollBack(wanted.point, wanted.snapshot), wanted.reason)


async def promote(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Let the policy of a point's shadow decide from now on, within the point's guards; settings: its own again."""
    wanted = read(arguments, PromoteAsked)
    shadow = "" if wanted.shadow == SETTINGS else wanted.shadow
    return await roll_out(runtime, caller, Promote(wanted.point, shadow), wanted.reason)


async def always(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Take one action at a point from now on, within its guards, until `promote` hands it back to `settings`."""
    wanted = read(arguments, AlwaysAsked)
    require(caller, "operator")
    require_action(runtime, caller, wanted.point, wanted.action)
    return await roll_out(runtime, caller, Always(wanted.point, wanted.action), wanted.reason)


async def forget(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Delete everything that one user of the caller's workspace left; `remains`: what else keeps it, and how long."""
    require(caller, "admin")
    wanted = read(arguments, UserAsked)
    reason = storable(wanted.reason)
    changed = await runtime.forget(caller.scope, wanted.user, by=who(caller), reason=reason)
    return {"changed": changed, "remains": await asyncio.to_thread(postgres.end_log, runtime.db)}


async def roll_out(
    runtime: Runtime, caller: Caller, change: Change, reason: str, evidence: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Record the change; evidence: the numbers that it was decided by.

    InputError where it cannot be made, with status 409 where the experiment that it is about has moved on since.
    """
    require(caller, "operator")
    reason = storable(reason)
    try:
        made = await runtime.roll_out(caller.scope, change, by=who(caller), reason=reason, evidence=evidence)
    except PolicyError as exc:
        if isinstance(change, SetMode | RollBack | Promote | Always):
            raise InputError(str(exc)) from exc
        raise conflict(str(exc)) from exc
    return {"decision": msgspec.to_builtins(made), "told": f"{change.point}: {told(change)}"}


def require_action(runtime: Runtime, caller: Caller, point: str, action: str) -> None:
    """InputError where the point is known to have no such action, or none that the key of the caller may name; what is
    done at points of plugins is not known."""
    providers, routed = runtime.gateway.providers, runtime.settings.gateway.auto
    visible = [name for name, _ in models.listed(providers, routed, caller) if name != gateway.AUTO]
    chats = [name for name in visible if name in (routed or providers.routable())]
    known: dict[str, Sequence[str]] = {gateway.POINT: chats, ask.POINT: (ask.ANSWER, ask.ABSTAIN)}
    known |= dict.fromkeys(kinds.KINDS, visible)
    if point in known and action not in known[point]:
        raise InputError(f"{action[:100]!r} is no action of the point {point}; {_meant(action, known[point])}")


def _meant(name: str, known: Sequence[str]) -> str:
    """What somebody may have meant by a name that is not known."""
    near = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"


def storable(reason: str) -> str:
    """The reason, which is recorded after the deed: what cannot be recorded must be refused before it."""
    if "\x00" in reason or reason != reason.encode(errors="replace").decode():
        raise InputError("reason holds a character that cannot be stored; leave it out")
    return reason


def who(caller: Caller) -> str:
    return f"key:{caller.key}" if caller.key else "local"
