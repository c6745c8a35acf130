"""The adaptive router of LiteLLM: its classifier and its bandit, without the proxy. Run in the peer's environment.

It reads the prompt only to sort it into one of its request types. Quality stands for its feedback signals; its weights
are set so that its score is the utility, with mean costs: quality - worth x cost, up to a constant.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.playing import serve

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
FOLDER = "litellm.router_strategy.adaptive_router"
bandit: Any = importlib.import_module(f"{FOLDER}.bandit")
classifier: Any = importlib.import_module(f"{FOLDER}.classifier")
types: Any = importlib.import_module("litellm.types.router")


def play(stream: dict[str, Any]) -> list[int]:
    """Thompson sampling over the cells of the prompt's type; every model has the tier that the router assumes."""
    models = stream["models"]
    prices = dict(zip(models, stream["price_usd"], strict=True))
    spread = max(prices.values()) - min(prices.values())
    preferences = types.AdaptiveRouterPreferences(quality_tier=2, strengths=[])
    rng, chosen = random.Random(stream["seed"]), []
    cells: dict[Any, dict[str, Any]] = {}
    for prompt, quality in zip(stream["prompts"], stream["quality"], strict=True):
        kind = classifier.classify_prompt(prompt)
        mine = cells.setdefault(kind, {model: bandit.initial_cell(preferences, kind) for model in models})
        model = bandit.pick_best(mine, prices, 1.0, stream["quality_per_usd"] * spread, rng=rng)
        place = models.index(model)
        mine[model] = bandit.apply_delta(mine[model], quality[place], 1.0 - quality[place])
        chosen.append(place)
    return chosen


if __name__ == "__main__":
    serve(play)
