"""Conformance: hold any Policy to the contract of `policy.py`.

check_policy(lambda: registry.make("linear_thompson", {}))

Whatever goes wrong raises PromiseBroken (a PolicyError) with the promise, the input and the remedy in plain words:

learning: asked learn(<decision for 'alpha' ...>, nan, None), it raised TypeError: ...; learn raises ValueError ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Policy
from windlass.policies.witness import PromiseBroken, Witness, hold, told
from windlass.records import Decision
from windlass.stats.features import Context

_ACTIONS = ("alpha", "beta", "gamma")
_CONTEXT: Context = {"length": 0.4, "topic": (0.3, -0.2)}
_FALSE_ALARM = 1e-7
_DRAWS = 8_000
_UPDATES = 2_000


class Promise(NamedTuple):
    """What every policy promises: a name for it, how it is tried, and what to do where it does not hold."""

    name: str
    kept: Callable[[Callable[[], Witness]], None]
    remedy: str


def check_policy(make: Callable[[], Policy], draws: int = _DRAWS) -> None:
    """Raise PromiseBroken where the policies that `make` makes (equal ones, nothing learned) break the contract.

    Costs about `draws` choices and 3,000 rewards: a second for a policy that chooses in 0.1 ms. Everything is seeded;
    an honest policy fails the test of its draws with a chance below 1e-6, whatever their number; with 8,000 a
    probability that is off by 0.035 is found, with 20,000 one that is off by 0.022.
    """
    for promise in (*PROMISES, Promise("propensities", lambda fresh: _draws(fresh, draws), _HONEST)):
        _try(promise, make)


def _try(promise: Promise, make: Callable[[], Policy]) -> None:
    """One promise; whatever a policy raises becomes a sentence that says which one it was and what was asked."""
    asked: list[tuple[str, tuple[Any, ...]]] = []
    try:
        promise.kept(lambda: Witness(make, asked))
    except PromiseBroken as exc:
        raise PromiseBroken(f"{promise.name}: {exc}; {promise.remedy}") from exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a stranger's policy may raise anything, SystemExit too
        raised = f"{type(exc).__name__}: {exc}"
        raise PromiseBroken(f"{promise.name}: asked {told(asked)}, it raised {raised}; {promise.remedy}") from exc


def _distribution(make: Callable[[], Policy]) -> None:
    """Probabilities of 1, 3, 50 and unicode actions, fresh and trained, agree with `explain`."""
    many = tuple(f"action {number}" for number in range(50))
    for policy in (make(), _trained(make, _ACTIONS)):
        for actions in (("alone",), _ACTIONS, many, ("été", "日本語", "a b", "🙂")):
            found = _probabilities(policy, _CONTEXT, actions)
            explained = np.array([arm.probability for arm in policy.explain(_CONTEXT, actions)])
            hold(np.allclose(explained, found, atol=1e-9), f"explain says {explained}, probabilities {found}")


def _draws(make: Callable[[], Policy], draws: int) -> None:
    """The choices follow the probabilities, each with the propensity it had, and leave the state as it is."""
    policy = _trained(make, _ACTIONS)
    before = policy.state()
    some = draws // 5
    for actions, share in ((_ACTIONS[:2], draws - some), (_ACTIONS, some)):
        _honest_draws(policy, actions, share)
    hold(policy.state() == before, "choosing changed the state; only learning may")


def _honest_draws(policy: Policy, actions: Sequence[str], draws: int) -> None:
    """Each count is held to Bernstein's inequality (Boucheron, Lugosi, Massart, "Concentration Inequalities", 2013,
    theorem 2.10): P(|count - n p| >= t) <= 2 exp(-t^2 / (2 (n p (1 - p) + t / 3))), solved for t at 1e-7 over the arms.
    """
    expected = _probabilities(policy, _CONTEXT, actions)
    rng = np.random.default_rng(20_250)
    counts = np.zeros(len(actions))
    for _ in range(draws):
        choice = policy.choose(_CONTEXT, actions, rng)
        hold(choice.action in actions, f"chose {choice.action!r}, which is not one of {actions}")
        hold(0.0 < choice.propensity <= 1.0 + 1e-9, f"chose {choice.action!r} with propensity {choice.propensity}")
        index = actions.index(choice.action)
        hold(
            math.isclose(choice.propensity, expected[index], abs_tol=1e-9),
            f"chose {choice.action!r} with propensity {choice.propensity}, its probability is {expected[index]}",
        )
        counts[index] += 1
    nats = math.log(2 * len(actions) / _FALSE_ALARM)
    bound = nats / 3.0 + np.sqrt((nats / 3.0) ** 2 + 2.0 * nats * draws * expected * (1.0 - expected))
    hold(
        bool((np.abs(counts - draws * expected) <= bound).all()),
        f"{draws} draws gave shares {counts / draws}, the probabilities are {expected}: the propensity is not honest",
    )


def _determinism(make: Callable[[], Policy]) -> None:
    one, other = (_trained(make, _ACTIONS) for _ in range(2))
    hold(one.state() == other.state(), "two policies that learned the same have different states")
    choices = [[p.choose(_CONTEXT, _ACTIONS, np.random.default_rng(seed)) for seed in range(50)] for p in (one, other)]
    hold(choices[0] == choices[1], "the same generator and state gave different choices")


def _refusals(make: Callable[[], Policy]) -> None:
    """Nothing to choose from, and rewards that are no numbers, are refused and leave no trace."""
    policy = _trained(make, _ACTIONS)
    before = policy.state()
    try:
        policy.probabilities(_CONTEXT, ())
    except PolicyError:
        pass
    else:
        raise PromiseBroken("no actions gave a distribution")
    for reward in (math.nan, math.inf, -math.inf):
        try:
            policy.learn(_decision("alpha", {"length": 1.0, "unheard of": 1.0}), reward, None)
        except ValueError:
            continue
        raise PromiseBroken(f"reward {reward} was learned")
    hold(policy.state() == before, "a refused reward changed the state")


def _replacement(make: Callable[[], Policy]) -> None:
    """A reward that is replaced twice, at once and later, counts like the last one learned at the first time."""
    once, replaced = _trained(make, _ACTIONS), _trained(make, _ACTIONS)
    decision = _decision("beta", _CONTEXT, "replaced")
    once.learn(decision, 0.9, None)
    replaced.learn(decision, 0.1, None)
    replaced.learn(decision, 0.5, 0.1)
    for later in range(10):
        for policy in (once, replaced):
            policy.learn(_decision(_ACTIONS[later % 3], {"length": later / 10.0}, f"later {later}"), 0.1 * later, None)
    replaced.learn(decision, 0.9, 0.5)
    for one, other in zip(once.explain(_CONTEXT, _ACTIONS), replaced.explain(_CONTEXT, _ACTIONS), strict=True):
        same = one.observations == other.observations and all(
            math.isclose(left or 0.0, right or 0.0, abs_tol=1e-8)
            for left, right in ((one.mean, other.mean), (one.sd, other.sd), (one.probability, other.probability))
        )
        hold(same, f"a replaced reward left {other}, the same reward learned once {one}")


def _state(make: Callable[[], Policy]) -> None:
    """A restored policy is the same to the last bit, now and after learning on; foreign bytes are refused."""
    original, restored = _trained(make, _ACTIONS), make()
    restored.restore(original.state())
    for step in range(3):
        hold(restored.state() == original.state(), f"restored state differs {step} rewards after the restore")
        same = np.array_equal(
            _probabilities(restored, _CONTEXT, _ACTIONS), _probabilities(original, _CONTEXT, _ACTIONS)
        )
        hold(same, "a restored policy has other probabilities")
        for policy in (original, restored):
            policy.learn(_decision(f"new {step}", {**_CONTEXT, f"new {step}": 0.5}, f"after {step}"), 0.3, None)
            policy.learn(_decision("alpha", _CONTEXT, "trained 57"), 0.1 * step, 0.5)
    for foreign in (b"", b"\xc1 no state", b"\x93\x01\x02\x03"):
        try:
            restored.restore(foreign)
        except PolicyError:
            continue
        raise PromiseBroken(f"{foreign!r} was restored")


def _hostile_contexts(make: Callable[[], Policy]) -> None:
    """NaN, infinities, huge, missing and changing features neither raise nor spoil what follows."""
    policy = _trained(make, _ACTIONS)
    contexts: list[Context] = [
        {},
        {"length": math.nan, "topic": (math.inf, -math.inf)},
        {"length": 1e308, "topic": (-1e308, 5e-324)},
        {"topic": 0.5, "length": (0.1, 0.2, 0.3)},
        {"topic": (), "ünïcode": 1.0},
    ]
    for number, context in enumerate(contexts):
        for reward in (0.0, 1.0):
            _probabilities(policy, context, _ACTIONS)
            policy.learn(_decision("gamma", context, f"hostile {number} {reward}"), reward, None)
            _probabilities(policy, _CONTEXT, _ACTIONS)


def _costs(make: Callable[[], Witness]) -> None:
    """What calls cost, where a policy learns it apart: no number is refused, a correction takes its place, and the
    state holds it."""
    once, replaced = make(), make()
    for step in range(40):
        for policy, costs in ((once, (2e5,)), (replaced, (9e5, 2e5))):
            decision = _decision(_ACTIONS[step % 3], _CONTEXT, f"cost {step}")
            for cost, before in zip(costs, (None, *costs), strict=False):
                policy.spend(decision, cost + 1_000.0 * step, None if before is None else before + 1_000.0 * step)
            policy.learn(decision, 0.5, None)
    for cost in (math.nan, math.inf, -1.0):
        before_refusal = once.state()
        try:
            once.spend(_decision("alpha", _CONTEXT, "no cost"), cost, None)
        except ValueError:
            pass
        else:
            hold(not once.costed, f"a cost of {cost} was learned")
        hold(once.state() == before_refusal, "a refused cost changed the state")
    context: Context = {**_CONTEXT, **{f"cost_nusd:{name}": 2e5 for name in _ACTIONS}, "allowance_nusd": 1.5e5}
    one, other = (_probabilities(policy, context, _ACTIONS) for policy in (once, replaced))
    hold(np.allclose(one, other, atol=1e-6), f"a replaced cost gave {other}, the same cost told once {one}")
    restored = make()
    restored.restore(once.state())
    hold(restored.state() == once.state(), "restored state differs after costs were learned")


def _long_life(make: Callable[[], Policy]) -> None:
    """Thousands of one-sided rewards on a constant context, then a life of the opposite."""
    policy = make()
    for update in range(_UPDATES):
        policy.learn(_decision(_ACTIONS[update % 3], _CONTEXT, f"life {update}"), float(update < _UPDATES // 2), None)
        if update % 100 == 0:
            _probabilities(policy, _CONTEXT, _ACTIONS)
    _probabilities(policy, _CONTEXT, _ACTIONS)


def _trained(make: Callable[[], Policy], actions: Sequence[str]) -> Policy:
    """A policy after 60 seeded rewards, different for each action."""
    policy = make()
    rng = np.random.default_rng(7)
    for update in range(60):
        index = update % len(actions)
        context: Context = {"length": float(rng.normal()), "topic": (float(rng.normal()), float(rng.normal()))}
        policy.learn(
            _decision(actions[index], context, f"trained {update}"), float(rng.random()) * (0.7 + 0.1 * index), None
        )
    return policy


def _probabilities(policy: Policy, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
    found = policy.probabilities(context, actions)
    right = found.shape == (len(actions),) and bool(np.isfinite(found).all()) and bool((found >= 0.0).all())
    right = right and math.isclose(float(found.sum()), 1.0, abs_tol=1e-9)
    hold(right, f"{len(actions)} actions have the probabilities {found}; each must be at least 0, their sum 1")
    return found


def _decision(action: str, context: Context, name: str = "check") -> Decision:
    return Decision(
        id=f"decision_{name}",
        at=0.0,
        call="call_check",
        point="check",
        policy="check@1",
        actions=_ACTIONS,
        action=action,
        propensity=0.5,
        live=True,
        context=dict(context),
    )


_HONEST = (
    "choose draws with the rng that it is given from what probabilities says, records that number, changes nothing"
)
PROMISES = (
    Promise("distribution", _distribution, "probabilities sum to 1 for any actions, and explain tells the same ones"),
    Promise("determinism", _determinism, "the same rewards and the same rng give the same state and choices"),
    Promise("refusals", _refusals, "raise PolicyError for no actions, ValueError for a reward that is not finite"),
    Promise("corrections", _replacement, "a reward that comes with `previous` takes its place and counts once"),
    Promise("state", _state, "restore takes what state gave, to the last bit, and raises PolicyError for other bytes"),
    Promise("contexts", _hostile_contexts, "a context may lack names, have new ones, and hold NaN or huge numbers"),
    Promise("costs", _costs, "spend raises ValueError for what is no cost, and one with `previous` takes its place"),
    Promise("long life", _long_life, "after thousands of rewards probabilities are still a distribution"),
)
"""In the order in which they are tried; `propensities` comes last, because it costs the most."""
