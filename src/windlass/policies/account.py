"""Account: what is known of one call. Nothing here can form a ring, so the structs ask no time of the collector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from windlass.policies.forms import Form
from windlass.policies.served import Served
from windlass.policies.trials.tally import Assigned
from windlass.records import FeedbackSource

MODELS = frozenset({"model", "model_embeddings", "model_transcriptions"})
"""The points at which another model may have answered than the one that was chosen."""

Key: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, id)."""
Note: TypeAlias = tuple[int, float]
"""(sequence number, value) of the newest feedback of one source and metric."""
Metric: TypeAlias = tuple[FeedbackSource, str]


class Acted(msgspec.Struct, array_like=True, gc=False):
    """A live decision. id: "" where the call and the point give it.

    scored: the reward counted last. learned: by place, the reward that the policy there learned last; None where it
    learned one and was rolled back to before it: it learns nothing more from this decision. spent: likewise what the
    policies that want to know were told that it cost, and served: how it went. All are replaced and never changed,
    because all that have learned nothing share one.
    """

    form: int
    id: str
    at: float
    action: str
    propensity: float
    values: bytes
    scored: float | None = None
    learned: Mapping[str, float | None] = {}
    spent: Mapping[str, float | None] = {}
    served: Mapping[str, Served | None] = {}

    def taught(self, place: str, reward: float | None) -> None:
        """Note what the policy at `place` learned from this decision."""
        self.learned = {**self.learned, place: reward} if self.learned else {place: reward}

    def charged(self, place: str, cost_nusd: float | None) -> None:
        """Note what the policy at `place` was told that this decision cost."""
        self.spent = {**self.spent, place: cost_nusd}

    def observed(self, place: str, served: Served | None) -> None:
        """Note what was told at `place` of how this decision's call went."""
        self.served = {**self.served, place: served}


class Shadowed(msgspec.Struct, array_like=True, gc=False):
    """What the policy at a place would have done. scored: the reward counted last."""

    place: str
    policy: str
    action: str
    scored: float | None = None


class Account(msgspec.Struct, array_like=True, gc=False):
    """What is known of one call. order: sequence number of its first record; user: digest or nothing.

    instead: the model that answered, where it is not the one that was decided on. first_byte_ms: kept where somebody
    wants to know how calls went. assigned: the experiments that it is in.
    """

    order: int
    parent: str = ""
    user: bytes = b""
    latency_ms: float | None = None
    cost_nusd: int | None = None
    error: str = ""
    acted: tuple[Acted, ...] = ()
    shadowed: tuple[Shadowed, ...] = ()
    instead: str = ""
    first_byte_ms: float | None = None
    assigned: tuple[Assigned, ...] = ()

    def failed_over(self, form: Form, action: str) -> bool:
        """Whether another model had to answer than the one that was decided on, which so has earned nothing."""
        return form.point in MODELS and self.instead != action and self.instead in form.actions


Touched: TypeAlias = Sequence[tuple[Key, Account]]
"""Calls and what is known of them."""


class StoredAccounts(msgspec.Struct, frozen=True, array_like=True):
    """All accounts as plain data, in the order in which they came."""

    calls: list[tuple[Key, Account]]
    notes: list[tuple[Key, list[tuple[Metric, Note]]]]
    seen: list[bytes]
    forms: list[tuple[int, Form]]
    next_form: int
