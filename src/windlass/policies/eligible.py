"""Guards that narrow what the policy inside may choose from: by name, and by how good it is expected to be.

They are exact: the policy inside is asked about the actions that are left, and its probabilities are the guard's. What
is left out has probability 0. Rewards reach the policy inside for every action, whatever the guard thinks of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Choice, Guard, Policy, require
from windlass.stats.features import Context


class Narrowing(Guard):
    """Asks the policy inside about some of the actions only."""

    label: str

    @abstractmethod
    def left(self, context: Context, actions: Sequence[str]) -> tuple[list[int], str]:
        """Which of the actions may be taken, by place, at least one of them; and why it is not what was asked for, or
        "" where it is."""

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        places, _ = self.left(context, actions)
        distribution = np.zeros(len(actions))
        distribution[places] = self.policy.probabilities(self.shown(context), [actions[place] for place in places])
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        require(actions)
        places, forced = self.left(context, actions)
        choice = self.policy.choose(self.shown(context), [actions[place] for place in places], rng)
        fewer = len(places) < len(actions)
        return msgspec.structs.replace(
            choice,
            why="; ".join(filter(None, (choice.why, f"{self.label} leaves {len(places)} of {len(actions)}" * fewer))),
            fallback="; ".join(filter(None, (forced, choice.fallback))),
        )


@dataclass(frozen=True, slots=True)
class AllowedOptions:
    """Names of actions, `*` for any characters and `?` for one (`local/*`).

    allow: with none every action. deny: stronger than `allow`.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Allowed(Narrowing):
    """Only actions that are allowed and not denied.

    Where no action is allowed there is still one to take: the first, with `fallback`. Whoever must refuse instead
    offers no such actions.
    """

    label = "allowed"

    def __init__(self, policy: Policy, options: AllowedOptions | None = None) -> None:
        super().__init__(policy)
        self.options = options or AllowedOptions()

    def left(self, context: Context, actions: Sequence[str]) -> tuple[list[int], str]:
        allow, deny = self.options.allow or ("*",), self.options.deny
        places = [
            place for place, action in enumerate(actions) if _matches(action, allow) and not _matches(action, deny)
        ]
        return (places, "") if places else ([0], f"allowed: none of {len(actions)} actions is allowed")


@dataclass(frozen=True, slots=True)
class QualityFloorOptions:
    """`floor`: the expected reward, in [0, 1], that an action must reach with `k` deviations subtracted, k >= 0.
    `reference`: the action that is taken where none does, "" for the first eligible."""

    floor: float = 0.5
    k: float = 1.0
    reference: str = ""

    def __post_init__(self) -> None:
        for name, value, high in (("floor", self.floor, 1.0), ("k", self.k, 100.0)):
            if not 0.0 <= value <= high:
                raise PolicyError(f"quality_floor: {name} is {value}; give a number from 0 to {high:g}")


class QualityFloor(Narrowing):
    """Only actions that are good enough by what the policy inside has learned, and else the reference.

    An action of which nothing is expected (the policy keeps no means) does not reach the floor. What the floor keeps
    from being tried stays unknown, so `registry.guarded` puts the randomised share around this guard: it audits the
    floor.
    """

    label = "quality floor"

    def __init__(self, policy: Policy, options: QualityFloorOptions | None = None) -> None:
        super().__init__(policy)
        self.options = options or QualityFloorOptions()

    def left(self, context: Context, actions: Sequence[str]) -> tuple[list[int], str]:
        floor, k = self.options.floor, self.options.k
        arms = self.policy.explain(context, actions)
        places = [
            place for place, arm in enumerate(arms) if arm.mean is not None and arm.mean - k * (arm.sd or 0.0) >= floor
        ]
        if places:
            return places, ""
        known = self.options.reference in actions
        place = actions.index(self.options.reference) if known else 0
        missing = "" if known or not self.options.reference else f", {self.options.reference} not eligible"
        return [place], f"quality floor: no action reaches {floor:g}{missing}"


def _matches(action: str, patterns: Sequence[str]) -> bool:
    """Only `*` and `?` mean something in a pattern: a name with brackets allows nothing but itself."""
    return any(fnmatchcase(action, pattern.replace("[", "[[]")) for pattern in patterns)
