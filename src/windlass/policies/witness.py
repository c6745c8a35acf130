"""Witness: a policy as `check_policy` sees it: what it was asked last, and whether what it answers is of the kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice, Costed, Policy, innermost
from windlass.records import Decision
from windlass.stats.chance import Propensity
from windlass.stats.features import Context

METHODS = ("probabilities", "choose", "learn", "state", "restore", "explain")
_SHOWN_CHARS = 300


class PromiseBroken(PolicyError):
    """A policy does not keep the contract of `policy.py`: which promise, with what input, and what to do about it."""


class Witness:
    """Hands every question on to a policy, one after the other, and holds what comes back to its kind.

    asked: shared by the witnesses of one promise, its last entry the newest call as (method, arguments).
    """

    def __init__(self, make: Callable[[], Policy], asked: list[tuple[str, tuple[Any, ...]]]) -> None:
        """Make the policy. PromiseBroken where a member is missing or of another kind."""
        self._asked = asked
        self._note("the maker")
        self.policy = make()
        missing = [name for name in ("name", "version", *METHODS) if not hasattr(self.policy, name)]
        hold(not missing, f"a {type(self.policy).__name__} has no {', '.join(missing)}")
        for name in METHODS:
            hold(callable(getattr(self.policy, name)), f"{name} is {getattr(self.policy, name)!r}, which is no method")
        self.costed = isinstance(innermost(self.policy), Costed)
        self.name, self.version = self.policy.name, self.policy.version
        hold(isinstance(self.name, str) and bool(self.name), f"name is {self.name!r}, which is no text")
        hold(type(self.version) is int, f"version is {self.version!r}, which is no whole number")

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        self._note("probabilities", context, actions)
        found = self.policy.probabilities(context, actions)
        hold(isinstance(found, np.ndarray), f"probabilities gave {_shown(found)}, which is no numpy array")
        return found

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        self._note("choose", context, actions, rng)
        choice = self.policy.choose(context, actions, rng)
        hold(isinstance(choice, Choice), f"choose gave {_shown(choice)}, which is no Choice")
        hold(_is_number(choice.propensity), f"choose gave the propensity {choice.propensity!r}, which is no number")
        return choice

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        self._note("learn", decision, reward, previous)
        self.policy.learn(decision, reward, previous)

    def spend(self, decision: Decision, cost_nusd: float, previous: float | None) -> None:
        """What `Costed` has beside the rest; one that is not costed takes no notice."""
        if self.costed and isinstance(self.policy, Costed):
            self._note("spend", decision, cost_nusd, previous)
            self.policy.spend(decision, cost_nusd, previous)

    def state(self) -> bytes:
        self._note("state")
        state = self.policy.state()
        hold(isinstance(state, bytes), f"state gave {_shown(state)}, which is no bytes")
        return state

    def restore(self, state: bytes) -> None:
        self._note("restore", state)
        self.policy.restore(state)

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        self._note("explain", context, actions)
        return arms_of(self.policy, context, actions)

    def _note(self, method: str, *arguments: Any) -> None:
        self._asked[:] = [(method, arguments)]


def arms_of(policy: Policy, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
    """`policy.explain`, held to one Arm of numbers per action, in the same order. PromiseBroken where it is none."""
    arms = policy.explain(context, actions)
    right = isinstance(arms, tuple | list) and all(isinstance(arm, Arm) for arm in arms)
    hold(right, f"explain gave {_shown(arms)}, which are no Arms")
    hold([arm.action for arm in arms] == list(actions), f"explain names {_shown(arms)}, asked about {_shown(actions)}")
    for arm in arms:
        numbers = (arm.probability, arm.observations, *(n for n in (arm.mean, arm.sd) if n is not None))
        hold(all(_is_number(number) for number in numbers), f"explain gave {arm}, which holds what is no finite number")
    return tuple(arms)


def hold(kept: bool, words: str) -> None:
    """PromiseBroken with `words` where a promise was not kept."""
    if not kept:
        raise PromiseBroken(words)


def told(asked: Sequence[tuple[str, tuple[Any, ...]]]) -> str:
    """The newest call in words: `learn(Decision(...), nan, None)`."""
    if not asked:
        return "nothing"
    method, arguments = asked[-1]
    return method if method == "the maker" else f"{method}({', '.join(_shown(one) for one in arguments)})"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating | Propensity) and math.isfinite(value)


def _shown(value: object) -> str:
    """A value as people may read it, cut short; a Decision by what a policy learns from."""
    if isinstance(value, Decision):
        return f"<decision for {value.action!r} with context {_shown(value.context)}>"
    if isinstance(value, np.random.Generator):
        return "rng"
    try:
        words = repr(value)
    except Exception as exc:  # noqa: BLE001  # the object is a stranger's, and so is its repr
        words = f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"
    return words if len(words) <= _SHOWN_CHARS else f"{words[:_SHOWN_CHARS]}..."
