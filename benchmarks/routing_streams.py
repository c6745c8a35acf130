"""Streams: a set in a seeded order, played call by call with bandit feedback.

The learner sees the prompt's features and what each model is expected to cost, answers a model, and is then told one
reward: that model's quality. A policy that learns costs apart (`Costed`) is also told what the call cost; any other
one gets the utility as its reward. Nothing else reaches it, and nothing before its time: the basis of the embedding is
fitted on the first prompts, as many as in the gateway, and they pass without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing_sets import ROWS, TRADE, RoutingSet
from windlass.gateway.route.options import RoutingOptions
from windlass.improve.warm.forced import Forced
from windlass.policies import registry
from windlass.policies.policy import DEFAULT_SHARE, Choice, Costed, Policy, identity, innermost
from windlass.records import ContextValue, Decision
from windlass.stats.basis import Basis

FITTED = RoutingOptions().basis_prompts
"""Prompts that the basis of the embedding is fitted on: as many as in the gateway."""
COMPONENTS = 25
"""Of the linear peers."""
Named = dict[str, ContextValue]


@dataclass(frozen=True)
class Contender:
    """A policy of the registry, with its options and what it sees.

    view: `full` (64 numbers, lexical features, prices), `components` (25 principal components) or `nothing`.
    share: of randomised choices around it. priced: the option that takes what a US dollar is worth in quality.
    """

    name: str
    policy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    view: str = "full"
    share: float = 0.0
    priced: str = ""

    def made(self, quality_per_nusd: float = 0.0) -> Policy:
        """A fresh one, which knows the price of quality where it has an option for it."""
        price = {self.priced: quality_per_nusd * 1e9} if self.priced and quality_per_nusd else {}
        return registry.guarded(registry.make(self.policy, {**self.options, **price}), [], self.share)


@dataclass(frozen=True)
class World:
    """What happens on a stream of n calls and k models: quality, cost_nusd and price_nusd (expected cost), each (n, k).

    joined: the call from which each model can be chosen, (k,). budget_nusd: a call, on average; 0 for no budget.
    quality_per_nusd: what a nano-dollar takes off the utility. warm: so many prompts of the beginning also go to every
    other model, and the policy learns what their answers were worth, as in a warm start of the gateway.
    """

    quality: NDArray[np.float64]
    cost_nusd: NDArray[np.float64]
    price_nusd: NDArray[np.float64]
    joined: tuple[int, ...]
    budget_nusd: float = 0.0
    quality_per_nusd: float = 0.0
    warm: int = 0

    @property
    def utility(self) -> NDArray[np.float64]:
        """(n, k)."""
        return self.quality - self.quality_per_nusd * self.cost_nusd


@dataclass(frozen=True)
class Stream:
    """A set in one order. rows: (n,) places in the set. Contexts by view, one a call.

    components: (n, 25), zeros before the basis is fitted; scale: (25,) their deviations in the prompts that fitted it.
    """

    set: RoutingSet
    order: int
    rows: NDArray[np.intp]
    components: NDArray[np.float64]
    scale: NDArray[np.float64]
    contexts: Mapping[str, Sequence[Named]]

    @property
    def world(self) -> World:
        """The plain one: all models from the start, no budget, utility by the terms of the set."""
        k = len(self.set.models)
        columns = (self.set.quality, self.set.cost_nusd, self.set.price_nusd)
        quality, cost, price = (column[self.rows] for column in columns)
        trade = self.set.quality_per_nusd if TRADE[self.set.name] else 0.0
        return World(quality, cost, price, (0,) * k, 0.0, trade)


def stream(whole: RoutingSet, order: int, seed: int, most: int = 0, fitted: int = FITTED) -> Stream:
    """The set in its `order`-th order; most: so many calls at most, 0 for all that the terms name.

    fitted: so many prompts make the bases, and pass without them.
    """
    rows = np.random.default_rng([seed, order]).permutation(len(whole.prompts))
    rows = rows[: min(ROWS.get(whole.name, len(rows)), most or len(rows))]
    embedded = whole.embeddings[rows]
    components, scale = _components(embedded, fitted)
    full = [dict(whole.lexical[row]) for row in rows]
    for context, numbers in zip(full[fitted:], _embedding(embedded, fitted), strict=True):
        context["embedding"] = numbers
    few: list[Named] = [{"component": tuple(numbers)} for numbers in components.tolist()]
    empty: Named = {}
    contexts = {"full": full, "components": few, "nothing": [empty] * len(rows)}
    return Stream(whole, order, rows, components, scale, contexts)


def _components(embedded: NDArray[np.float64], fitted: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 25) principal components by the first `fitted` rows of `embedded: (n, 384)`, zeros for those; their scale."""
    first = embedded[:fitted]
    mean = first.mean(axis=0)
    axes = np.linalg.svd(first - mean, full_matrices=False)[2][:COMPONENTS]
    components = (embedded - mean) @ axes.T
    scale = components[:fitted].std(axis=0)
    components[:fitted] = 0.0
    return components, scale


def _embedding(embedded: NDArray[np.float64], fitted: int) -> list[tuple[float, ...]]:
    """Of each row after the first `fitted`, what the product's basis makes of it."""
    basis = Basis.fit(embedded[:fitted])
    return [tuple(numbers) for numbers in basis.transform(embedded[fitted:]).tolist()]


def play(contender: Contender, on: Stream, world: World, seed: int) -> NDArray[np.intp]:
    """The model chosen in each call: (n,). The budget is told as what may be spent a call from now on."""
    policy = contender.made(world.quality_per_nusd)
    costed = isinstance(innermost(policy), Costed)
    quality, cost = world.quality.tolist(), world.cost_nusd.tolist()
    contexts = on.contexts[contender.view] if not costed else _priced(on.contexts[contender.view], world, on.set.models)
    teller = _Teller(policy, on.set.models, world, seed)
    left, calls = world.budget_nusd * len(contexts), len(contexts)
    chosen = np.empty(calls, np.intp)
    for call, context in enumerate(contexts):
        if costed and world.budget_nusd:
            context["allowance_nusd"] = max(left, 0.0) / (calls - call)
        decision, place = teller.decided(call, context)
        paid, good = cost[call][place], quality[call][place]
        left -= paid
        chosen[call] = place
        _tell(policy, decision, paid, good, world)
        if call < world.warm:
            for other, at in teller.beside(decision):
                _tell(policy, other, cost[call][at], quality[call][at], world)
    return chosen


def _tell(policy: Policy, decision: Decision, paid: float, good: float, world: World) -> None:
    """What a call cost and how good it was, to whoever learns both apart; else its utility."""
    if isinstance(innermost(policy), Costed):
        assert isinstance(policy, Costed)
        policy.spend(decision, paid, None)
        policy.learn(decision, good, None)
    else:
        policy.learn(decision, good - world.quality_per_nusd * paid, None)


def _priced(contexts: Sequence[Named], world: World, models: Sequence[str]) -> list[Named]:
    names = [f"cost_nusd:{model}" for model in models]
    return [
        {**context, **dict(zip(names, prices, strict=True))}
        for context, prices in zip(contexts, world.price_nusd.tolist(), strict=True)
    ]


class _Teller:
    """Asks a policy as the loop does: a generator of its own for each call, and a Decision for each choice."""

    def __init__(self, policy: Policy, models: tuple[str, ...], world: World, seed: int) -> None:
        self._policy, self._models, self._seed = policy, models, seed
        self._joined = world.joined
        self._late = max(world.joined)
        self._places = {model: place for place, model in enumerate(models)}
        self._identity = identity(policy)

    def decided(self, call: int, context: Named) -> tuple[Decision, int]:
        actions = self._models if call >= self._late else self._eligible(call)
        rng = np.random.Generator(np.random.Philox(key=np.array([self._seed, call], np.uint64)))
        choice: Choice = self._policy.choose(context, actions, rng)
        decision = Decision(
            id=f"decision_{call}",
            at=float(call),
            call=f"call_{call}",
            point="model",
            policy=self._identity,
            actions=actions,
            action=choice.action,
            propensity=cast(float, choice.propensity),  # the benchmark has no use for it: a Chance is not worked out
            live=True,
            context=context,
        )
        return decision, self._places[choice.action]

    def beside(self, decision: Decision) -> list[tuple[Decision, int]]:
        """The decisions of a warm start beside one: of each other model that could have been chosen."""
        others = [action for action in decision.actions if action != decision.action]
        return [(self._forced(decision, model), self._places[model]) for model in others]

    @staticmethod
    def _forced(decision: Decision, model: str) -> Decision:
        _, (forced,) = Forced(decision).decide(
            decision.point,
            call_id=f"{decision.call}-{model}",
            at=decision.at,
            scope=decision.scope,
            context=decision.context,
            actions=(model,),
            featuriser=decision.featuriser,
        )
        return forced

    def _eligible(self, call: int) -> tuple[str, ...]:
        return tuple(model for model, since in zip(self._models, self._joined, strict=True) if call >= since)


def paced(on: Stream, budget_nusd: float) -> World:
    """The plain world under a budget a call, with quality all that counts."""
    return replace(on.world, budget_nusd=budget_nusd, quality_per_nusd=0.0)


OURS = Contender("joint_thompson", "joint_thompson", share=DEFAULT_SHARE, priced="quality_per_usd")
