"""What single users like: simulated streams through `joint_thompson` of the registry, with and without the guard.

60 users, of whom a few ask most (geometric), rate answers of four models with yes or no. The chance of a yes depends on
the prompt, on how kindly the user rates (deviation 0.1), and on the user's taste, of the deviation in a figure's name.

- `gain_<taste>_<rated>`: by how much the mean quality of what was chosen is above that of the same policy without the
  guard, in the last two thirds of 3,500 calls of which that share was rated. Same prompts, users and luck for both.
- `found_<taste>_<rated>`: the deviation of tastes that the guard had learned in the end.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.common import Figures, Options, run
from windlass.policies import registry
from windlass.policies.lifts import USER
from windlass.policies.personal import Personal
from windlass.policies.policy import guards_of
from windlass.records import ContextValue, Decision

ACTIONS = ("a", "b", "c", "d")
BASE = np.array([0.6, 0.62, 0.58, 0.55])
CALLS, USERS, PROMPT = 3_500, 60, 8
KINDNESS, BY_PROMPT = 0.1, 0.08


def earned(seed: int, taste: float, rated: float, *, personal: bool) -> tuple[float, float]:
    """(mean quality in the last two thirds, deviation of tastes that was learned)."""
    rng, dice = np.random.default_rng(seed), np.random.default_rng(seed + 1_000)
    own, kindly = rng.normal(0.0, taste, (USERS, len(ACTIONS))), rng.normal(0.0, KINDNESS, USERS)
    weights = rng.normal(0.0, BY_PROMPT, (len(ACTIONS), PROMPT))
    guards: list[tuple[str, dict[str, Any]]] = [("personal", {})] if personal else []
    policy, got = registry.guarded(registry.make("joint_thompson", {}), guards, 0.02), np.zeros(CALLS)
    for number in range(CALLS):
        user, x = int(min(rng.geometric(0.04) - 1, USERS - 1)), rng.normal(0.0, 1.0, PROMPT)
        quality = np.clip(BASE + weights @ x + own[user] + kindly[user], 0.0, 1.0)
        luck, length, heard = rng.random(3)
        numbers = tuple((x / np.linalg.norm(x)).tolist())
        context: dict[str, ContextValue] = {USER: user + 1.0, "length": float(length), "embedding": numbers}
        choice = policy.choose(context, ACTIONS, dice)
        place = ACTIONS.index(choice.action)
        got[number] = quality[place]
        if heard < rated:
            made = Decision(
                id=f"decision_{number}",
                at=float(number),
                call=f"call_{number}",
                point="model",
                policy="joint_thompson@1",
                actions=ACTIONS,
                action=choice.action,
                propensity=float(choice.propensity),
                live=True,
                context=context,
            )
            policy.learn(made, float(luck < quality[place]), None)
    tastes = next((guard.spread.tastes for guard in guards_of(policy) if isinstance(guard, Personal)), 0.0)
    return float(got[CALLS // 3 :].mean()), tastes**0.5


def measure(options: Options) -> Figures:
    figures = Figures()
    seeds = range(options.seed, options.seed + (2 if options.quick else 8))
    for taste in (0.0, 0.1, 0.2):
        for rated in (1.0, 0.3):
            name = f"{taste:g}_{rated:g}"
            having = [earned(seed, taste, rated, personal=True) for seed in seeds]
            without = [earned(seed, taste, rated, personal=False)[0] for seed in seeds]
            gains = [mean - other for (mean, _), other in zip(having, without, strict=True)]
            figures.mean(f"gain_{name}", gains, options.seed)
            figures.metrics[f"found_{name}"] = float(np.mean([found for _, found in having]))
    figures.target("gain_0_1", ">= -0.003")
    figures.target("gain_0.2_1", ">= 0.02")
    return figures


if __name__ == "__main__":
    sys.exit(run("personal", measure))
