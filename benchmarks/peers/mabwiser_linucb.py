"""mabwiser's LinUCB with its defaults, on 25 principal components. Run in the peer's environment."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.playing import serve

mab: Any = importlib.import_module("mabwiser.mab")


def play(stream: dict[str, Any]) -> list[int]:
    """It cannot predict before it was fitted: each model is taken once at first."""
    arms = list(range(len(stream["models"])))
    learner = mab.MAB(arms, mab.LearningPolicy.LinUCB(alpha=1.0), seed=stream["seed"])
    chosen: list[int] = []
    for x, rewards in zip(stream["x"], stream["reward"], strict=True):
        call = len(chosen)
        arm = call if call < len(arms) else learner.predict([x])
        chosen.append(arm)
        if call == len(arms) - 1:
            seen = [stream["reward"][place][taken] for place, taken in enumerate(chosen)]
            learner.fit(chosen, seen, stream["x"][: len(arms)])
        elif call >= len(arms):
            learner.partial_fit([arm], [rewards[arm]], [x])
    return chosen


if __name__ == "__main__":
    serve(play)
