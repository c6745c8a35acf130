"""The rows of folds: of each kind of record what a fold looks at, with its place in the ledger.

They hold nothing that could form a ring, so the garbage collector passes them by.
"""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec

from windlass.records import ContextValue, FeedbackKind, FeedbackSource


@final
class FoldedCall(msgspec.Struct, array_like=True, gc=False):
    """Of a Call. seq: its place in the ledger, here and below."""

    seq: int
    id: str
    tenant: str
    workspace: str
    parent: str
    user: str


@final
class FoldedDecision(msgspec.Struct, array_like=True, gc=False):
    """Of a Decision. actions, shadow and context are read from the three columns before them, which hold JSON or
    nothing; shadow: the name in `extra` of one that did not act, None where there is none."""

    seq: int
    id: str
    tenant: str
    workspace: str
    at: float
    call: str
    point: str
    policy: str
    action: str
    propensity: float
    live: int | bool
    featuriser: str
    raw_actions: str
    raw_extra: str
    raw_context: str | None
    actions: tuple[str, ...] = ()
    shadow: str | None = None
    context: dict[str, ContextValue] | None = None


@final
class FoldedOutcome(msgspec.Struct, array_like=True, gc=False):
    """Of an Outcome."""

    seq: int
    tenant: str
    workspace: str
    at: float
    call: str
    model: str
    status: int
    latency_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_nusd: int
    error: str


@final
class FoldedFeedback(msgspec.Struct, array_like=True, gc=False):
    """Of a Feedback."""

    seq: int
    id: str
    tenant: str
    workspace: str
    at: float
    target: str
    kind: FeedbackKind
    source: FeedbackSource
    metric: str
    value: float | None


@final
class FoldedErasure(msgspec.Struct, array_like=True, gc=False):
    """Of an Erasure."""

    seq: int
    tenant: str
    workspace: str
    user: str


@final
class FoldedEvent(msgspec.Struct, array_like=True, gc=False):
    """Of a RunEvent."""

    seq: int


Folded: TypeAlias = FoldedCall | FoldedDecision | FoldedOutcome | FoldedFeedback | FoldedErasure | FoldedEvent
