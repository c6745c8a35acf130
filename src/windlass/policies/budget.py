"""Budget: leaves out the actions that cost more than what is left to spend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from windlass.errors import PolicyError
from windlass.policies.eligible import Narrowing
from windlass.policies.policy import Costed, Policy, innermost
from windlass.records import Decision
from windlass.stats.features import Context


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """What is left to spend, and what actions cost.

    remaining: feature of the context with the nano-dollars that are left; where it is missing there is no budget.
    costs_nusd: action -> nano-dollars of one choice. For actions that are not in it the context says it in the feature
    `prefix` + action. An action whose cost is not known counts as dearer than any other.
    """

    remaining: str = "budget_nusd"
    prefix: str = "cost_nusd:"
    costs_nusd: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(not (math.isfinite(cost) and cost >= 0.0) for cost in self.costs_nusd.values()):
            raise PolicyError(f"budget: costs_nusd {dict(self.costs_nusd)} must be finite numbers, at least 0")


class _StoredBudget(msgspec.Struct, frozen=True, array_like=True):
    guard: str
    version: int
    remaining: str
    prefix: str
    policy: bytes


class Budget(Narrowing):
    """Only actions that cost no more than what is left; where all cost more, the cheapest, with `fallback`.

    The policy inside does not see the features that say what is left and what actions cost: they are millions where
    its features are of order one. What it learned depends on that, so the state names these features beside its own.
    One that learns costs itself (`Costed`) sees them: it reads them by their names.
    """

    label = "budget"
    STATE_VERSION: Final = 1

    def __init__(self, policy: Policy, options: BudgetOptions | None = None) -> None:
        super().__init__(policy)
        self.options = options or BudgetOptions()

    def left(self, context: Context, actions: Sequence[str]) -> tuple[list[int], str]:
        if self.options.remaining not in context:
            return list(range(len(actions))), ""
        remaining = _number(context[self.options.remaining], unknown=0.0)
        costs = [self._cost_nusd(context, action) for action in actions]
        places = [place for place, cost in enumerate(costs) if cost <= remaining]
        if places:
            return places, ""
        cheapest = min(range(len(actions)), key=costs.__getitem__)
        return [cheapest], f"budget: {remaining:.0f} nusd left, {actions[cheapest]} is the cheapest"

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        shown = dict(self.shown(decision.context))
        self.policy.learn(msgspec.structs.replace(decision, context=shown), reward, previous)

    def state(self) -> bytes:
        return msgspec.msgpack.encode(_StoredBudget(*self._hidden(), self.policy.state()))

    def restore(self, state: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredBudget)
        except msgspec.MsgspecError as exc:
            raise PolicyError(f"not a state of budget around {self.name}: {exc}; rebuild it from the ledger") from exc
        if (stored.guard, stored.version, stored.remaining, stored.prefix) != self._hidden():
            raise PolicyError(
                f"a state of {stored.guard}@{stored.version} with remaining {stored.remaining!r} and prefix "
                f"{stored.prefix!r} cannot become one of {self._hidden()}; rebuild it from the ledger"
            )
        self.policy.restore(stored.policy)

    def shown(self, context: Context) -> Context:
        if isinstance(innermost(self.policy), Costed):
            return context
        remaining, prefix = self.options.remaining, self.options.prefix
        return {
            name: value
            for name, value in context.items()
            if name != remaining and not (prefix and name.startswith(prefix))
        }

    def _hidden(self) -> tuple[str, int, str, str]:
        return "budget", self.STATE_VERSION, self.options.remaining, self.options.prefix

    def _cost_nusd(self, context: Context, action: str) -> float:
        known = self.options.costs_nusd.get(action)
        cost = context.get(self.options.prefix + action, math.inf) if known is None else known
        return _number(cost, unknown=math.inf)


def _number(value: object, *, unknown: float) -> float:
    """A cost or a budget, at least 0; what is none (a tuple, NaN, a negative cost) is `unknown`."""
    return float(value) if isinstance(value, float | int) and value >= 0.0 else unknown
