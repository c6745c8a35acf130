"""What the scripts of routing peers share: streams in, chosen models out; standard library alone.

usage: python <peer>.py STREAMS.json CHOSEN.json

A stream is `{"id", "seed", "models", "x", "scale", "quality", "cost_usd", "price_usd", "reward", "quality_per_usd",
"budget_usd", "prompts"}`: x (n, d) features with a constant 1 last, scale (d,) their deviations in the rows that the
components were fitted on; quality, cost_usd, reward (n, k); price_usd (k,) what a call of each model costs on average;
budget_usd a call, 0 for none. A peer looks at the features and prices before it chooses, and then at the reward of
what it chose. The answer is `{id: {"chosen": [...], "seconds": ...}}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def serve(play: Callable[[dict[str, Any]], list[int]]) -> None:
    """Play every stream of the file and write what was chosen."""
    streams, chosen = map(Path, sys.argv[1:3])
    answers = {}
    for stream in json.loads(streams.read_text()):
        began = time.perf_counter()
        answers[stream["id"]] = {"chosen": play(stream), "seconds": time.perf_counter() - began}
    chosen.write_text(json.dumps(answers))
