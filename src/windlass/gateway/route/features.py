"""What policies at the point `model` are told of one call: beside lexical features, its vector, costs and aims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from windlass.gateway.access.admission import Caller
from windlass.gateway.access.limits import Limits
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.route.costs import Prompt
from windlass.gateway.route.objectives import Wish
from windlass.gateway.route.vectors import Vector
from windlass.gateway.wire import Message
from windlass.policies.loop import DEFAULT_POLICY
from windlass.policies.points import EXPERIMENT
from windlass.records import ContextValue, Decision

EMBEDDING = "embedding"
COST = "cost_nusd:"
ALLOWANCE = "allowance_nusd"


class Prompting(Protocol):
    """A request with messages, in whichever dialect."""

    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def stream(self) -> bool: ...
    @property
    def user(self) -> str: ...
    @property
    def most_tokens(self) -> int | None: ...
    @property
    def choices(self) -> int: ...


@dataclass(frozen=True)
class Question:
    """One call that is to be routed. targets: who may answer. now: UTC seconds.

    looks: it is only looked at and not made; then it waits for its vector as long as that takes, and leaves no trace.
    """

    asked: Prompting
    caller: Caller
    endpoint: str
    targets: Sequence[Target]
    prices: PriceBook
    limits: Limits
    now: float
    wish: Wish | None = None
    looks: bool = False


@dataclass(frozen=True)
class Seen:
    """What policies are told. vector: the prompt's, for whoever needs it on the way; None where it was not there.

    missing: why the context holds no embedding, "" where it does. failed: that is a failure, and not how it should be.
    asked: the question, where its costs are to be learned from.
    """

    context: dict[str, ContextValue]
    featuriser: str
    prompt: Prompt
    vector: Vector | None = None
    missing: str = ""
    failed: bool = False
    asked: Question | None = None

    def marked(self, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
        """Decisions of policies that would have had an embedding, with the reason why they had none."""
        if not self.missing:
            return tuple(decisions)
        return tuple(
            one if one.policy == DEFAULT_POLICY or one.point == EXPERIMENT else self._marked(one) for one in decisions
        )

    def _marked(self, decision: Decision) -> Decision:
        words = f"routed on lexical features: {self.missing}"
        if self.failed:
            return msgspec.structs.replace(decision, fallback="; ".join(filter(None, (decision.fallback, words))))
        why = "; ".join(filter(None, (str(decision.extra.get("why", "")), words)))
        return msgspec.structs.replace(decision, extra={**decision.extra, "why": why})
