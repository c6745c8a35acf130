"""The rows of folds: of each kind of record what a fold looks at, with its place in the ledger.

What is the same in most decisions, or outcomes, is a form: all rows of a page that have it in common share one.
They hold nothing that could form a ring, so the garbage collector passes them by.
"""

from __future__ import annotations

from typing import Final, TypeAlias, final

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
class DecisionForm(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What many decisions have in common."""

    tenant: str
    workspace: str
    point: str
    policy: str
    featuriser: str
    actions: tuple[str, ...]
    action: str
    live: bool


@final
class OutcomeForm(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What many outcomes have in common."""

    tenant: str
    workspace: str
    model: str
    status: int
    error: str


_UNDECIDED: Final = DecisionForm("", "", "", "", "", (), "", live=False)
_UNENDED: Final = OutcomeForm("", "", "", 0, "")


@final
class FoldedDecision(msgspec.Struct, array_like=True, gc=False):
    """Of a Decision. form and shadow are read from the JSON before them, where they come with it; shadow: the name in
    `extra` of one that did not act, None where there is none; context: of one that acted, looked up beside it."""

    seq: int
    id: str
    at: float
    call: str
    propensity: float
    raw_form: str
    raw_extra: str | None
    form: DecisionForm = _UNDECIDED
    shadow: str | None = None
    context: dict[str, ContextValue] | None = None

    @property
    def point(self) -> str:
        return self.form.point


@final
class FoldedOutcome(msgspec.Struct, array_like=True, gc=False):
    """Of an Outcome. form is read from the JSON before it, where it comes with it."""

    seq: int
    at: float
    call: str
    latency_ms: float
    first_byte_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_nusd: int
    raw_form: str
    form: OutcomeForm = _UNENDED


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
