"""What models cost on average and what they earned, where the live policy stands among them, and the best fixed mix.

From the hourly rollups: no look at it scans the ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from windlass.gateway.gateway import POINT
from windlass.policies.points import NAMED
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.stats import hull
from windlass.watch.store import DecisionHour, OutcomeHour


class Standpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Mean cost of a call in nano-dollars, and mean reward, of a model or of the live policy. calls, rewarded: of how
    many. on_hull: no fixed mix of models is as cheap and better."""

    name: str
    calls: int
    cost_nusd: float
    rewarded: int
    reward: float
    on_hull: bool = False


class Frontier(msgspec.Struct, frozen=True, kw_only=True):
    """The models that have answered and earned, the cheapest first, and the live policy's choices among two or more.

    mix: the reward of the best fixed mix that costs no more than the live policy; None where there is none.
    """

    models: tuple[Standpoint, ...]
    live: Standpoint | None
    mix: float | None


def frontier(runtime: Runtime, scope: Scope, since: float = 0.0) -> Frontier:
    """How the point `model` stands since then, UTC seconds."""
    chosen = [hour for hour in runtime.rollups.decisions(scope, since, point=POINT) if hour.live]
    costs = _costs(runtime.rollups.outcomes(scope, since))
    rewards = _rewards(chosen)
    known = sorted(costs.keys() & rewards.keys(), key=lambda name: (costs[name][1], name))
    points = [(costs[name][1], rewards[name][1]) for name in known]
    best = set(hull.upper(points))
    models = tuple(
        Standpoint(
            name=name,
            calls=costs[name][0],
            cost_nusd=costs[name][1],
            rewarded=rewards[name][0],
            reward=rewards[name][1],
            on_hull=place in best,
        )
        for place, name in enumerate(known)
    )
    live = _live(runtime, [hour for hour in chosen if hour.policy != NAMED], costs)
    mix = hull.quality_at(points, live.cost_nusd) if live is not None else None
    return Frontier(models=models, live=live, mix=mix)


def _costs(hours: Sequence[OutcomeHour]) -> dict[str, tuple[int, float]]:
    """(calls, mean cost) of each model that answered."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for hour in hours:
        sums[hour.model][0] += hour.calls
        sums[hour.model][1] += hour.cost_nusd
    return {model: (calls, cost / calls) for model, (calls, cost) in sums.items() if calls}


def _rewards(hours: Sequence[DecisionHour]) -> dict[str, tuple[int, float]]:
    """(rewards, mean reward) of each action with any."""
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, float] = defaultdict(float)
    for hour in hours:
        counts[hour.action] += hour.rewarded
        sums[hour.action] += hour.reward_sum
    return {action: (count, sums[action] / count) for action, count in counts.items() if count}


def _live(runtime: Runtime, hours: Sequence[DecisionHour], costs: dict[str, tuple[int, float]]) -> Standpoint | None:
    """What was chosen among two or more, each choice at the mean cost of its model."""
    priced = [(hour.chosen, costs[hour.action][1]) for hour in hours if hour.action in costs]
    rewarded, calls = sum(hour.rewarded for hour in hours), sum(count for count, _ in priced)
    if not (rewarded and calls):
        return None
    return Standpoint(
        name=runtime.loop.policy_id(POINT),
        calls=calls,
        cost_nusd=sum(count * cost for count, cost in priced) / calls,
        rewarded=rewarded,
        reward=sum(hour.reward_sum for hour in hours) / rewarded,
    )
