"""Rollouts: what people decide about a decision point, as a Decision at the reserved point `rollout`.

The action says what changes, for the tenant's workspace of the decision alone, from its place in the ledger on:

    <point>:mode=<off|shadow|live>    the mode, whatever the settings say
    <point>:mode=settings             the mode of the settings again
    <point>:snapshot=<cursor>         what the point's policy had learned after the ledger entry <cursor>; 0: nothing
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias, assert_never

import msgspec

from windlass.errors import PolicyError
from windlass.policies.points import ROLLOUT, Mode
from windlass.records import Decision, Scope

MANUAL = "manual@1"
MODES: tuple[Mode | Literal["settings"], ...] = ("off", "shadow", "live", "settings")
_GRAMMAR = re.compile(r"([^\x00-\x1f\x7f]{1,200}?):(?:mode=([a-z]+)|snapshot=(0|[1-9][0-9]{0,18}))\Z")
_BY_CHARS, _REASON_CHARS = 200, 1_000


class SetMode(msgspec.Struct, frozen=True):
    """From now on `point` is decided in `mode`."""

    point: str
    mode: Mode | Literal["settings"]


class RollBack(msgspec.Struct, frozen=True):
    """The policy of `point` is again what it was after the ledger entry with sequence number `cursor`."""

    point: str
    cursor: int


Change: TypeAlias = SetMode | RollBack


def parse(action: str) -> Change:
    """The change that an action of the point `rollout` names. PolicyError for anything else."""
    found = _GRAMMAR.match(action)
    if found is None:
        raise PolicyError(f"rollout {action[:80]!r} is neither <point>:mode=<mode> nor <point>:snapshot=<cursor>")
    point, mode, cursor = found.groups()
    if cursor is not None:
        return RollBack(point, int(cursor))
    for known in MODES:
        if mode == known:
            return SetMode(point, known)
    raise PolicyError(f"rollout to mode {mode!r}; known: {', '.join(MODES)}")


def spell(change: Change) -> str:
    """The action that `parse` reads as `change`."""
    match change:
        case SetMode():
            return f"{change.point}:mode={change.mode}"
        case RollBack():
            return f"{change.point}:snapshot={change.cursor}"
        case _ as other:
            assert_never(other)


def rollout(
    change: Change, *, id: str, at: float, scope: Scope, by: str, reason: str = "", kept: Sequence[int] = ()
) -> Decision:
    """The Decision that makes `change` for `scope` once it is in the ledger.

    id: a new typed id (`decision_...`). at: UTC seconds. by: who decided, `reason` why, both as plain words. kept: the
    cursors of the snapshots there are to choose from. PolicyError where a part makes no sense.
    """
    action = spell(change)
    if parse(action) != change:
        raise PolicyError(f"{change} cannot be recorded as {action!r}; name the point in one line of plain characters")
    if not 0 < len(by.strip()) <= _BY_CHARS or len(reason) > _REASON_CHARS:
        raise PolicyError(f"by {by[:80]!r}, reason of {len(reason)} characters; say who, and why in {_REASON_CHARS}")
    match change:
        case SetMode():
            alternatives = [spell(SetMode(change.point, mode)) for mode in MODES]
        case RollBack():
            cursors = sorted({*kept, change.cursor})
            alternatives = [spell(RollBack(change.point, cursor)) for cursor in cursors]
        case _ as other:
            assert_never(other)
    return Decision(
        id=id,
        at=at,
        tenant=scope.tenant,
        workspace=scope.workspace,
        call=id,
        point=ROLLOUT,
        policy=MANUAL,
        actions=tuple(alternatives),
        action=action,
        propensity=1.0,
        live=True,
        extra={"by": by, "reason": reason},
    )
