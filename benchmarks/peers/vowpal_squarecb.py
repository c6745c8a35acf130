"""Vowpal Wabbit's SquareCB with its defaults, features crossed with the model. Run in the peer's environment."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.playing import serve

vowpalwabbit: Any = importlib.import_module("vowpalwabbit")


def play(stream: dict[str, Any]) -> list[int]:
    """Draws from the distribution that it predicts; its cost is 1 - reward."""
    workspace = vowpalwabbit.Workspace("--cb_explore_adf --squarecb -q sa --quiet", enable_logging=False)
    rng = random.Random(stream["seed"])
    actions = [f"|a m{place}" for place in range(len(stream["models"]))]
    chosen = []
    for x, rewards in zip(stream["x"], stream["reward"], strict=True):
        # The constant is its own.
        shared = "shared |s " + " ".join(f"f{place}:{value:.6f}" for place, value in enumerate(x[:-1]))
        chances = workspace.predict([shared, *actions])
        arm = rng.choices(range(len(actions)), chances)[0]
        labelled = list(actions)
        labelled[arm] = f"0:{1.0 - rewards[arm]:.6f}:{chances[arm]:.6f} {actions[arm]}"
        workspace.learn([shared, *labelled])
        chosen.append(arm)
    workspace.finish()
    return chosen


if __name__ == "__main__":
    serve(play)
