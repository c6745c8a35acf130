"""Who gets which variant: by a hash, so that a unit keeps its variant without anybody having to remember it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from windlass.policies.trials.plan import Plan, Unit, Variant

_BUCKETS = 512


class Units(NamedTuple):
    """What a call is of: its own id, what it was made for, and its user; '' where that is unknown."""

    call: str
    session: str = ""
    user: str = ""

    def of(self, unit: Unit) -> str:
        """Whose variant the call gets; '' where nobody is known: then it gets none. A call without a session is one."""
        if unit == "session":
            return self.session or self.call
        return self.user if unit == "user" else self.call


class Running(NamedTuple):
    """An experiment under way, as far as assignments go.

    shares: by variant, at this stage of the ramp. slots: where on [0, 1) each candidate's units begin: its share grows
    within its slot, so that whoever has it keeps it as the ramp goes on.
    """

    plan: Plan
    id: str
    stage: int
    shares: tuple[float, ...]
    slots: tuple[float, ...]

    def assign(self, tenant: str, workspace: str, unit: str) -> int:
        """The index of the unit's variant."""
        at = _place(self.id, tenant, workspace, unit)
        for index, (slot, share) in enumerate(zip(self.slots, self.shares[1:], strict=True), 1):
            if slot <= at < slot + share:
                return index
        return 0

    def variant(self, index: int) -> Variant:
        return self.plan.variants[index]


def running(plan: Plan, stage: int) -> Running:
    """The experiment at a stage of its ramp."""
    slots, slot = [], 0.0
    for candidate in plan.candidates:
        slots.append(slot)
        slot += candidate.share
    return Running(plan, plan.id, stage, plan.shares(stage), tuple(slots))


def bucket(trial: str, unit: bytes) -> int:
    """The group that a unit is counted in: calls of one unit hang together, and so many groups tell by how much."""
    digest = hashlib.blake2b(unit, digest_size=4, key=trial.encode()[:64]).digest()
    return int.from_bytes(digest, "little") % _BUCKETS


def _place(trial: str, tenant: str, workspace: str, unit: str) -> float:
    """A number in [0, 1), another one for each experiment."""
    named = "\0".join((trial, tenant, workspace, unit)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest()[:7], "little") / 2**56
