"""The data sets that routing is measured on: prompts, and for every model the quality and the cost of its answer.

The five sets are those of the terms: `llmrouter`, `mmlu` (the first 5,000 of each order), `gsm8k`, `pareto` (val and
test joined) and `zero7`, seven of ZeroEval's models spread evenly over the order of their prices.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import NotRunnable
from windlass.gateway.prompt import features
from windlass.gateway.wire import Chat, Message
from windlass.records import ContextValue

NUSD = 1e9
"""Nano-dollars in a dollar."""
SPREAD = 7
FILES = {
    "llmrouter": ("llmrouter_train",),
    "mmlu": ("routellm_mmlu",),
    "gsm8k": ("routellm_gsm8k",),
    "pareto": ("pareto_val", "pareto_test"),
    "zero7": ("zeroeval",),
}
SETS = tuple(FILES)
TRADE = {"llmrouter": 0.0, "mmlu": 0.125, "gsm8k": 0.220, "pareto": 0.05, "zero7": 0.1}
"""What a call at the best model's mean cost takes off its quality."""
ROWS = {"mmlu": 5_000}
WEAK, STRONG = 0, 1
"""The places of the two models of RouteLLM's sets."""


class Row(msgspec.Struct):
    """One line: a prompt, and quality in [0, 1] and US dollars of each model's answer."""

    prompt: str
    q: list[float]
    c: list[float]


class Meta(msgspec.Struct):
    """What stands beside the lines of a set."""

    models: tuple[str, ...]


@dataclass(frozen=True)
class RoutingSet:
    """A set with k models. embeddings: (n, 384) of unit norm; quality: (n, k) in [0, 1]; cost_nusd: (n, k).

    price_nusd: (n, k), what a price list would let one expect before the call, see `expected`. lexical: the gateway's
    own features of a chat with the prompt.
    """

    name: str
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    embeddings: NDArray[np.float64]
    quality: NDArray[np.float64]
    cost_nusd: NDArray[np.float64]
    price_nusd: NDArray[np.float64]
    lexical: tuple[dict[str, ContextValue], ...]

    @property
    def best(self) -> int:
        """The model of the highest mean quality."""
        return int(self.quality.mean(axis=0).argmax())

    @property
    def quality_per_nusd(self) -> float:
        """What a nano-dollar is worth, in quality: lambda over the mean cost of the best model."""
        return float(TRADE[self.name] / self.cost_nusd[:, self.best].mean())


@lru_cache(maxsize=len(FILES))
def load(folder: Path, name: str) -> RoutingSet:
    """A set from the data. NotRunnable where its files are missing or disagree."""
    rows: list[Row] = []
    embeddings = []
    models: tuple[str, ...] = ()
    for file in FILES[name]:
        meta = msgspec.json.decode(_bytes(folder / f"{file}.meta.json"), type=Meta)
        if models and meta.models != models:
            raise NotRunnable(f"{folder / file} has the models {meta.models}, the part before it {models}")
        models = meta.models
        lines = gzip.decompress(_bytes(folder / f"{file}.jsonl.gz")).splitlines()
        rows += [msgspec.json.decode(line, type=Row) for line in lines]
        embeddings.append(np.load(folder / f"{file}.emb.npy").astype(np.float64))
    quality, cost = np.array([row.q for row in rows]), np.array([row.c for row in rows]) * NUSD
    if name == "zero7":
        kept = _spread(cost)
        models, quality, cost = tuple(models[place] for place in kept), quality[:, kept], cost[:, kept]
    prompts = tuple(row.prompt for row in rows)
    return RoutingSet(
        name=name,
        models=models,
        prompts=prompts,
        embeddings=np.concatenate(embeddings),
        quality=quality,
        cost_nusd=cost,
        price_nusd=expected(cost, prompts),
        lexical=tuple(map(lexical, prompts)),
    )


def lexical(prompt: str) -> dict[str, ContextValue]:
    """What the gateway's featuriser makes of a chat with this one message."""
    return features(Chat(b"", {}, "auto", False, "", (Message("user", prompt),)))


def expected(cost_nusd: NDArray[np.float64], prompts: tuple[str, ...]) -> NDArray[np.float64]:
    """(n, k) nano-dollars by price list: a share that grows with the prompt's characters and one for the answer.

    The sets name no token prices, so both shares of a model are the least squares line of its cost over the length,
    two numbers a model; where longer prompts are not dearer (pareto, zero7: the answer's length decides, and the line
    explains less than 15 % of the variance) it is the mean. For llmrouter and mmlu the line is exact, for gsm8k it
    explains a third to a half.
    """
    chars = np.array([len(prompt) for prompt in prompts], np.float64)
    columns = []
    for cost in cost_nusd.T:
        slope, base = np.polyfit(chars, cost, 1)
        explained = np.corrcoef(chars, cost)[0, 1] ** 2
        line = slope * chars + base
        columns.append(line if slope > 0.0 and explained >= 0.15 else np.full(len(cost), cost.mean()))
    return np.array(columns).T


def _spread(cost: NDArray[np.float64]) -> list[int]:
    """The places of seven models, evenly over the order of mean cost, the cheapest and the dearest among them."""
    order = cost.mean(axis=0).argsort()
    places = order[np.linspace(0, len(order) - 1, SPREAD).round().astype(int)]
    return [int(place) for place in places]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise NotRunnable(f"{path} does not exist; give the folder of the data with --data") from exc
