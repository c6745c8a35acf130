"""How long the router takes: to choose, to learn, and on the way of a call; and how large it is."""

from __future__ import annotations

import gc
import time
import tracemalloc
from itertools import count

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing_runs import Where, streamed
from benchmarks.routing_streams import Contender, Named
from windlass.gateway.prompt import FEATURISER, features
from windlass.gateway.wire import Chat, Message
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions
from windlass.policies.policy import Costed, Policy, identity
from windlass.records import Decision, Scope
from windlass.stats.basis import Basis

MODELS = tuple(f"model-{number}" for number in range(1, 10))
WARM, CALLS = 1_500, 1_500
ROUNDS = 3
BLOCK = 50
"""Calls that are decided before what came of them is learned, in the second figure of each round."""
Numbers = dict[str, float]
Vector = NDArray[np.float64]


def measured(where: Where, ours: Contender) -> Numbers:
    """Microseconds of `choose` under its guard and of one lesson at 9 models with the full context; megabytes.

    Each figure is the least of three rounds over other calls, the policy trained before: whatever else the machine
    does only adds. Each call is learned from before the next is decided, so that a decision finds the processor's
    caches as cold as they get. `decide_in_blocks_*`: where rewards come in blocks, as to the learner of a server.
    """
    policy, contexts = _trained(where, ours)
    rng = np.random.default_rng(where.key)
    rounds = []
    for number in range(ROUNDS):
        some = [contexts[place] for place in rng.integers(0, len(contexts), CALLS)]
        rounds.append(_round(policy, some, rng, 2 * number, 1))
        blocks = _round(policy, some, rng, 2 * number + 1, BLOCK)
        rounds[-1] |= {
            f"decide_in_blocks_{name.removeprefix('decide_')}": blocks[name]
            for name in ("decide_p50_us", "decide_p99_us")
        }
    best = {name: min(one[name] for one in rounds) for name in rounds[0]}
    return best | _size(policy, ours, contexts[0]) | {"route_ms": _route_ms(where, ours, contexts)}


def _trained(where: Where, ours: Contender) -> tuple[Policy, list[Named]]:
    """After 1,500 calls with seeded rewards; the contexts have prices of all models and an allowance."""
    on = streamed(where)
    rng = np.random.default_rng([where.key, 2])
    prices = np.geomspace(2e4, 1.5e7, len(MODELS))
    contexts = []
    for context in on.contexts["full"][where.fitted :]:
        named = {f"cost_nusd:{model}": price for model, price in zip(MODELS, prices.tolist(), strict=True)}
        contexts.append({**context, **named, "allowance_nusd": 1e6})
    policy = ours.made()
    for call in range(WARM):
        context = contexts[call % len(contexts)]
        action = policy.choose(context, MODELS, rng).action
        place = MODELS.index(action)
        decision = _decision(policy, call, context, action)
        if isinstance(policy, Costed):
            policy.spend(decision, float(prices[place] * rng.lognormal(0.0, 0.3)), None)
        policy.learn(decision, float(rng.random() < 0.4 + 0.05 * place), None)
    return policy, contexts


def _round(policy: Policy, contexts: list[Named], rng: np.random.Generator, number: int, block: int) -> Numbers:
    chose, learned = [], []
    gc.collect()
    for start in range(0, len(contexts), block):
        decisions = []
        for call, context in enumerate(contexts[start : start + block], WARM + number * CALLS + start):
            began = time.perf_counter_ns()
            choice = policy.choose(context, MODELS, rng)
            chose.append(time.perf_counter_ns() - began)
            decisions.append(_decision(policy, call, context, choice.action))
        for decision in decisions:
            began = time.perf_counter_ns()
            if isinstance(policy, Costed):
                policy.spend(decision, 1e6, None)
            policy.learn(decision, 0.5, None)
            learned.append(time.perf_counter_ns() - began)
    p50, p99 = np.percentile(chose, (50, 99)) / 1_000
    return {
        "decide_p50_us": float(p50),
        "decide_p99_us": float(p99),
        "update_p50_us": float(np.median(learned)) / 1_000,
        "update_p99_us": float(np.percentile(learned, 99)) / 1_000,
    }


def _size(policy: Policy, ours: Contender, context: Named) -> Numbers:
    """Megabytes of the state as bytes, and of a policy in memory that took it over and has chosen once."""
    state = policy.state()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    other = ours.made()
    other.restore(state)
    other.choose(context, MODELS, np.random.default_rng(0))
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"policy_mb": max(len(state), held) / 1e6, "policy_state_mb": len(state) / 1e6}


def _route_ms(where: Where, ours: Contender, contexts: list[Named]) -> float:
    """All that routing does in a call once its prompt has been embedded: features, basis, decision.

    The loop is the server's, live; the median over 1,000 calls, of the policy before it learned anything.
    """
    on = streamed(where)
    basis = Basis.fit(on.set.embeddings[on.rows[: where.fitted]])
    loop = Loop({"model": PointOptions("live", ours.policy, dict(ours.options))})
    prices = {name: value for name, value in contexts[0].items() if "_nusd" in name}
    calls, took = count(), []
    for row in on.rows[where.fitted : where.fitted + 1_000]:
        chat = Chat(b"", {}, "auto", False, "", (Message("user", on.set.prompts[row]),))
        embedded = on.set.embeddings[row]
        began = time.perf_counter_ns()
        _routed(loop, basis, chat, embedded, prices, f"call_{next(calls)}")
        took.append(time.perf_counter_ns() - began)
    return float(np.median(took)) / 1e6


def _routed(loop: Loop, basis: Basis, chat: Chat, embedded: Vector, prices: Named, call: str) -> None:
    context = features(chat)
    context["embedding"] = tuple(basis.transform(embedded).tolist())
    context |= prices
    loop.decide(
        "model",
        call_id=call,
        at=0.0,
        scope=Scope(),
        context=context,
        actions=MODELS,
        featuriser=FEATURISER,
    )


def _decision(policy: Policy, call: int, context: Named, action: str) -> Decision:
    return Decision(
        id=f"decision_{call}", at=float(call), call=f"call_{call}", point="model", policy=identity(policy),
        actions=MODELS, action=action, propensity=0.5, live=True, context=context,
    )  # fmt: skip
