"""The Policy contract: look at (context, actions), answer (action, propensity), learn from rewards.

A policy is pure: it holds numbers, never a clock, a file or a random source; the generator is an argument of `choose`.
`check_policy` in `windlass.policies.check` holds an implementation to everything that is written here.

Guards are policies that wrap a policy. The name and the version stay those of the policy inside, and so does the state,
with the guard's own beside it where it has one. Here is the randomised share; the guards that leave actions out are in
`eligible.py`, `budget.py` and `cool_down.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.records import Decision
from windlass.stats.chance import Probability, mixed
from windlass.stats.features import Context

_WHY_ARMS = 5
DEFAULT_SHARE = 0.02
_OF_ALLOWANCE = 0.05
"""What the randomised share may cost, as a part of what may be spent per call."""
_SPREAD = 0.01
"""No action gets less of the randomised share than this part of an even one, whatever it costs."""
_ALLOWANCE, _COST = "allowance_nusd", "cost_nusd:"


class Choice(msgspec.Struct, frozen=True):
    """The action, the probability in (0, 1] with which it was chosen, and the numbers behind it in short plain text.

    A propensity that takes long to work out may be a `Propensity`: it is looked at when the decision is written down.
    `fallback` says why the policy could not do what it was made for, and is empty otherwise.
    """

    action: str
    propensity: Probability
    why: str
    fallback: str = ""


class Arm(msgspec.Struct, frozen=True):
    """What a policy knows of one action: expected reward and its deviation (None where it keeps none), and chances."""

    action: str
    mean: float | None
    sd: float | None
    probability: float
    observations: int


class Policy(Protocol):
    """A way to choose. `name` and `version` identify the learner in every Decision; a guard keeps those of its inner.

    `probabilities`, `choose` and `explain` leave the state as it is, and raise PolicyError where `actions` is empty.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        """The exact distribution over the eligible `actions`: (k,), sums to 1."""
        ...

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        """One draw from `probabilities`, with the probability that it had."""
        ...

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        """Credit `decision` with `reward`. `previous` is the reward learned for the same decision before: replace it.

        ValueError, and no change, where a reward is not a finite number.
        """
        ...

    def state(self) -> bytes:
        """Everything learned, and the options it was learned under, as canonical bytes."""
        ...

    def restore(self, state: bytes) -> None:
        """Take over what `state` returned, bit by bit. PolicyError for bytes of another policy, version or options."""
        ...

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        """What stands behind `probabilities`, one Arm per action in the same order."""
        ...


@runtime_checkable
class Costed(Protocol):
    """What a Policy has beside the rest where it learns apart what calls cost and how good they are.

    Its `learn` then gets the quality alone, in [0, 1], and is not asked where nothing speaks of quality.
    """

    def spend(self, decision: Decision, cost_nusd: float, previous: float | None) -> None:
        """The call of `decision` cost that many nano-dollars. `previous` is what was told of it before: replace it.

        ValueError, and no change, where a cost is not a finite number of at least 0.
        """
        ...


def innermost(policy: Policy) -> Policy:
    """The policy inside all guards."""
    while isinstance(policy, Guard):
        policy = policy.policy
    return policy


def guards_of(policy: Policy) -> Iterator[Guard]:
    """The guards around a policy, the outermost first."""
    while isinstance(policy, Guard):
        yield policy
        policy = policy.policy


def identity(policy: Policy) -> str:
    """`name@version`, the form that a Decision carries."""
    return f"{policy.name}@{policy.version}"


def require(actions: Sequence[str]) -> None:
    """PolicyError where there is nothing to choose from."""
    if not actions:
        raise PolicyError("no eligible action; name at least one")


def draw(probabilities: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Index of one action, drawn with `probabilities`; never one of probability 0."""
    point = rng.random()
    chosen = 0
    for index, share in enumerate(probabilities.tolist()):
        if share > 0.0:
            # Where rounding leaves the point beyond the whole sum, the last possible action takes it.
            chosen = index
            point -= share
            if point < 0.0:
                break
    return chosen


def evenly(best: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distribution (k,) that shares all chances evenly among the `best: (k,)`, of which there is at least one."""
    share: NDArray[np.float64] = best / best.sum()
    return share


def why(arms: Sequence[Arm]) -> str:
    """The likeliest arms as one line: `quotes-fast 0.71 +- 0.05, quotes-semantic 0.78 +- 0.04`, or their shares."""
    shown = sorted(arms, key=lambda arm: -arm.probability)[:_WHY_ARMS] if len(arms) > _WHY_ARMS else arms
    rest = f", {len(arms) - len(shown)} more" if len(arms) > len(shown) else ""
    return ", ".join(_words(arm) for arm in shown) + rest


def believed(actions: Sequence[str], means: NDArray[np.float64], sds: NDArray[np.float64]) -> str:
    """`why` of expected rewards and deviations, each (k,), whose chances nobody knows yet: of many the most promising,
    by their means and deviations together."""
    shown = list(zip(actions, means.tolist(), sds.tolist(), strict=True))
    if len(shown) > _WHY_ARMS:
        shown = sorted(shown, key=lambda arm: -arm[1] - arm[2])[:_WHY_ARMS]
    rest = f", {len(actions) - len(shown)} more" if len(actions) > len(shown) else ""
    return ", ".join([f"{action} {mean:.2f} +- {sd:.2f}" for action, mean, sd in shown]) + rest


def _words(arm: Arm) -> str:
    if arm.mean is None or arm.sd is None:
        return f"{arm.action} share {arm.probability:.2f}"
    return f"{arm.action} {arm.mean:.2f} +- {arm.sd:.2f}"


class Guard(ABC):
    """A policy around a policy; what it does not change is that of the policy inside."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def version(self) -> int:
        return self.policy.version

    @abstractmethod
    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        """The exact distribution over the eligible `actions`: (k,), sums to 1."""

    @abstractmethod
    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        """One draw from `probabilities`, with the probability that it had."""

    def shown(self, context: Context) -> Context:
        """What the policy inside sees of the context."""
        return context

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        self.policy.learn(decision, reward, previous)

    def spend(self, decision: Decision, cost_nusd: float, previous: float | None) -> None:
        """Hand on what a call cost to a policy inside that wants to know."""
        if isinstance(self.policy, Costed):
            self.policy.spend(decision, cost_nusd, previous)

    def state(self) -> bytes:
        return self.policy.state()

    def restore(self, state: bytes) -> None:
        self.policy.restore(state)

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        arms = self.policy.explain(self.shown(context), actions)
        mine = self.probabilities(context, actions)
        return tuple(msgspec.structs.replace(arm, probability=float(p)) for arm, p in zip(arms, mine, strict=True))


class Randomised(Guard):
    """Keeps a share of the choices random, so that every eligible action has a known, positive propensity.

    With inner probabilities p the guard's are `share q + (1 - share) p`. Off-policy evaluation gets its overlap from
    this share, and the quality floor its audit. `share` in [0, 1].

    q is uniform, unless the context says what may be spent (`allowance_nusd`) and what each action is expected to cost
    (`cost_nusd:<action>`), and the share would cost more than a twentieth of that allowance. Then what this twentieth
    buys above the cheapest action is divided evenly among the k actions: each gets as much of q as its part pays for,
    between a hundredth of 1 / k and 1 / k, and the cheapest takes the rest.
    """

    def __init__(self, policy: Policy, share: float = DEFAULT_SHARE) -> None:
        super().__init__(policy)
        if not 0.0 <= share <= 1.0:
            raise PolicyError(f"randomised share is {share}; give a number from 0 to 1")
        self.share = share
        self._priced: tuple[tuple[str, ...], Callable[[Context], Any]] = ((), lambda context: ())

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        within = self._within(context, actions)
        mine = self.share / len(actions) if within is None else self.share * np.array(within)
        return mine + (1.0 - self.share) * self.policy.probabilities(context, actions)

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        require(actions)
        within = self._within(context, actions)
        if rng.random() >= self.share:
            choice = self.policy.choose(context, actions, rng)
            propensity = mixed(choice.propensity, self._offset(within, actions, choice.action), 1.0 - self.share)
            return Choice(choice.action, propensity, choice.why, choice.fallback)
        index = int(rng.integers(len(actions))) if within is None else draw(np.array(within), rng)
        inner = float(self.policy.probabilities(context, actions)[index])
        propensity = mixed(inner, self._offset(within, actions, actions[index]), 1.0 - self.share)
        return Choice(actions[index], propensity, f"randomised share of {self.share:.0%}")

    def _within(self, context: Context, actions: Sequence[str]) -> list[float] | None:
        """The distribution of the share over the actions, (k,); None where it is uniform."""
        count = len(actions)
        if _ALLOWANCE not in context or not self.share or count < 2:
            return None
        try:
            allowance, *costs = self._told(context, actions)
            least, whole, most = min(costs), sum(costs), _OF_ALLOWANCE * allowance / self.share
            # False for infinities and NaN, which the sum has found.
            amounts = allowance + whole < math.inf and min(allowance, least) >= 0.0
        except (KeyError, TypeError, OverflowError):
            return None
        if not amounts or whole <= count * most or whole <= count * least:
            return None
        part, even, little = max(most - least, 0.0) / count, 1.0 / count, _SPREAD / count
        cheap, dear = least + part / even, least + part / little
        within = [even if cost <= cheap else part / (cost - least) if cost < dear else little for cost in costs]
        cheapest = costs.index(least)
        within[cheapest] = 0.0
        within[cheapest] = 1.0 - sum(within)
        return within

    def _told(self, context: Context, actions: Sequence[str]) -> Sequence[float]:
        """The allowance and the expected cost of each action, whatever the context has there. KeyError without one."""
        if self._priced[0] != actions:
            # Looked up in every call, mostly for the same actions.
            self._priced = tuple(actions), itemgetter(_ALLOWANCE, *[_COST + action for action in actions])
        told: Sequence[float] = self._priced[1](context)
        return told

    def _offset(self, within: list[float] | None, actions: Sequence[str], action: str) -> float:
        """The probability with which the share takes `action`."""
        if within is None:
            return self.share / len(actions)
        return self.share * within[actions.index(action)] if action in actions else 0.0
