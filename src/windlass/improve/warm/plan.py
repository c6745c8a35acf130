"""What a warm start will cost, told before it begins: from the newest calls, how long their answers were, and prices.

A prompt like those seen costs T_i, the sum over the models that did not answer it of the price of its tokens and of an
answer of the model's usual length. N prompts cost about N times the mean of T. Three things make that uncertain, and
the interval is the normal 95 % one of their sum: which prompts come (N var(T) for the new ones, N^2 var(T) / n for the
mean of the n that were seen), how long single answers are (N), and how long a model writes on average (N^2), of which
nothing is known of a model that has never answered but that it writes about as the others do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

EXPECTED_TOKENS: Final = 256.0
"""Of an answer, where none has been seen."""
DOUBT: Final = 4.0
"""So many answers' weight the others' length has against a model's own."""
SPREAD: Final = 0.5
"""By this part the mean lengths of two models differ: the deviation of one that was never seen."""
LONELY_SPREAD: Final = 1.0
"""The deviation of single lengths over their mean, where fewer than two answers were seen."""
NORMAL_95: Final = 1.96
CostOf = Callable[[str, int, int], float]
Floats = NDArray[np.float64]


class PastCall(NamedTuple):
    """A call that was routed: who answered, with how many tokens in and out."""

    model: str
    prompt_tokens: int
    completion_tokens: int


class ModelShare(NamedTuple):
    """What one model's answers to all the prompts will cost, and how many of them are asked for."""

    model: str
    answers: float
    cost_nusd: float


class WarmPlan(NamedTuple):
    """What so many prompts will cost in nano-dollars, with the 95 % interval; seen: calls that it goes by.

    prompt_nusd: of one prompt, on average. affordable: so many prompts are expected to fit into the budget.
    """

    prompts: int
    seen: int
    cost_nusd: float
    low_nusd: float
    high_nusd: float
    prompt_nusd: float
    affordable: float
    shares: tuple[ModelShare, ...]


def planned(
    past: Sequence[PastCall], models: Sequence[str], cost_of: CostOf, prompts: int, budget_nusd: float = math.inf
) -> WarmPlan | None:
    """The plan for so many prompts. cost_of: nano-dollars of a model's call by its tokens in and out.

    None where no call was seen, or there are not two models.
    """
    if not past or len(models) < 2:
        return None
    lengths, spread, known = _lengths(past, models)
    costs = np.array([[cost_of(model, one.prompt_tokens, round(lengths[model])) for model in models] for one in past])
    asked = np.array([[one.model != model for model in models] for one in past])
    totals: Floats = (costs * asked).sum(axis=1)
    answered = asked.mean(axis=0)
    moved = _moved(models, cost_of, lengths) * answered
    unsure = np.array([SPREAD**2 * DOUBT / (known[model] + DOUBT) + spread**2 / (known[model] + 1) for model in models])
    mean, varied = float(totals.mean()), float(totals.var(ddof=1)) if len(totals) > 1 else float(totals[0]) ** 2
    alone = prompts * (varied + float((moved**2).sum()) * spread**2)
    common = prompts**2 * (varied / len(totals) + float((moved**2 * unsure).sum()))
    half, whole = NORMAL_95 * math.sqrt(alone + common), prompts * mean
    shares = tuple(
        ModelShare(model, prompts * float(part), prompts * float(cost))
        for model, part, cost in zip(models, answered, (costs * asked).mean(axis=0), strict=True)
    )
    affordable = min(float(prompts), budget_nusd / mean) if mean > 0.0 else float(prompts)
    return WarmPlan(prompts, len(past), whole, max(0.0, whole - half), whole + half, mean, affordable, shares)


def _moved(models: Sequence[str], cost_of: CostOf, lengths: Mapping[str, float]) -> Floats:
    """What a token more in the answer costs, times the usual length: by so much a length that is off moves a call."""
    each = np.array([cost_of(model, 0, 1_000) - cost_of(model, 0, 0) for model in models]) / 1_000.0
    return np.asarray(each * np.array([lengths[model] for model in models]), np.float64)


def _lengths(past: Sequence[PastCall], models: Sequence[str]) -> tuple[dict[str, float], float, Mapping[str, int]]:
    """How long each model's answers usually are, the relative deviation of single ones, and of how many it is known."""
    own: dict[str, list[int]] = defaultdict(list)
    for one in past:
        own[one.model].append(one.completion_tokens)
    every = np.array([one.completion_tokens for one in past], np.float64)
    overall = (float(every.sum()) + EXPECTED_TOKENS) / (len(every) + 1)
    lengths = {model: (sum(own[model]) + DOUBT * overall) / (len(own[model]) + DOUBT) for model in models}
    spread = float(every.std(ddof=1) / every.mean()) if len(every) > 1 and every.any() else LONELY_SPREAD
    return lengths, spread, {model: len(own[model]) for model in models}
