"""ParetoBandit's router without priors, on whitened components. Run in the peer's environment.

Its defaults are made for priors of its own: alpha 0.01 tries nothing where there are none, and its fixed cost penalty
of 0.3 keeps to the cheapest model under any budget (quality 0.787 at all seven of pareto). So alpha is 0.1 here and the
penalty off: its pacer (adaptive mode) holds the budget, told what each call really cost; without a budget the reward is
the utility. Prices a million tokens are those at which 750 tokens cost what a call of the model costs on average.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.playing import serve

numpy: Any = importlib.import_module("numpy")
pareto_bandit: Any = importlib.import_module("pareto_bandit")
feature_service: Any = importlib.import_module("pareto_bandit.feature_service")
budget_pacer: Any = importlib.import_module("pareto_bandit.budget_pacer")
types: Any = importlib.import_module("pareto_bandit.types")
TOKENS, ALPHA = 750, 0.1


def play(stream: dict[str, Any]) -> list[int]:
    """One route and one feedback a call."""
    budget = stream["budget_usd"]
    prices = {model: price * 1e6 / TOKENS for model, price in zip(stream["models"], stream["price_usd"], strict=True)}
    registry = {model: {"input_cost_per_m": price, "output_cost_per_m": price} for model, price in prices.items()}
    router = pareto_bandit.BanditRouter.create(
        model_registry=registry,
        priors="none",
        feature_service=feature_service.FeatureService.for_precomputed(len(stream["scale"])),
        bandit_seed=stream["seed"],
        config=types.RouterConfig(reward_min=-10.0, reward_max=1.0),
        alpha=ALPHA,
        cost_penalty=0.0,
        budget_pacer=budget_pacer.BudgetPacer(budget) if budget else None,
    )
    places = {model: place for place, model in enumerate(stream["models"])}
    scaled = numpy.array(stream["x"]) / numpy.array(stream["scale"])
    rewards = stream["quality"] if budget else stream["reward"]
    chosen = []
    for x, reward, cost in zip(scaled, rewards, stream["cost_usd"], strict=True):
        model, log = router.route(x)
        log.cost_usd = cost[places[model]]
        router.process_feedback(log.request_id, reward=reward[places[model]])
        chosen.append(places[model])
    return chosen


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    serve(play)
