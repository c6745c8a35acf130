"""Choices in clusters of prompts that are alike, and what came of each cluster's calls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.ledger.ledger import Ledger
from windlass.policies.reward import RewardOptions
from windlass.records import Call, ContextValue, Scope
from windlass.stats.clusters import partition
from windlass.watch.choices import RatedChoice, choices
from windlass.watch.lexical import Lexical, means

EMBEDDING: Final = "embedding"
COST: Final = "cost_nusd:"
COUNTS: Final = range(4, 9)
EACH: Final = 10
"""A cluster for so many choices at most; a workspace with fewer than twice as many has none."""
LEAST: Final = 2 * EACH
NEAREST: Final = 5
ENOUGH: Final = 10
"""Of fewer grades no interval is told."""
_DEVIATIONS: Final = 1.96
SEED: Final = 20_070_107

Floats = NDArray[np.float64]


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster's calls for which one model was chosen came to.

    cost_nusd: mean of those that it answered. quality: mean of the `graded` ones in [0, 1], half_width: of its 95 %
    interval (normal); None where there are too few.
    """

    model: str
    calls: int
    cost_nusd: float | None
    graded: int
    quality: float | None
    half_width: float | None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts that are alike. models: those chosen, and those that the newest call might have had.

    words: how they differ from the others. context: their mean one, without prices and aims; listed_nusd: what a call
    costs by the price list, on average. nearest: calls, the most typical first.
    """

    calls: int
    words: str
    cost_nusd: float | None
    models: tuple[Answering, ...]
    context: dict[str, ContextValue]
    listed_nusd: dict[str, float]
    nearest: tuple[Call, ...]


class Clustered(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest choices of a workspace fall into, the largest cluster first.

    at: when it was made. choices: that were looked at, since when; embedded: those with numbers of `featuriser`.
    """

    at: float
    choices: int
    since: float
    embedded: int
    featuriser: str
    clusters: tuple[Cluster, ...]


def clustered(ledger: Ledger, scope: Scope, options: RewardOptions, now: float) -> Clustered:
    """The clusters of a workspace's newest choices, of those whose numbers are of the same basis as the newest one's.

    As many of 4 to 8 as have the highest silhouette, at most one for 10 choices. now: UTC seconds.
    """
    every = list(choices(ledger, scope, options))
    embedded = [one for one in every if EMBEDDING in one.decision.context]
    featuriser = embedded[0].decision.featuriser if embedded else ""
    same = [one for one in embedded if one.decision.featuriser == featuriser]
    points = _points(same)
    return Clustered(
        at=now,
        choices=len(every),
        since=min((one.call.at for one in every), default=now),
        embedded=len(same),
        featuriser=featuriser,
        clusters=() if points is None else tuple(_clusters(same, points)),
    )


def _points(choices: Sequence[RatedChoice]) -> Floats | None:
    """(n, d), or None where they are too few, or no rows of numbers."""
    if len(choices) < LEAST:
        return None
    rows = [one.decision.context[EMBEDDING] for one in choices]
    length = max(len(row) if isinstance(row, tuple) else 0 for row in rows)
    if any(not isinstance(row, tuple) or len(row) != length for row in rows):
        return None
    return np.array(rows, np.float64)


def _clusters(choices: Sequence[RatedChoice], points: Floats) -> Iterator[Cluster]:
    most = len(choices) // EACH
    counts = [count for count in COUNTS if count <= most] or [most]
    found = partition(points, counts, np.random.default_rng(SEED))
    usual = Lexical(one.decision.context for one in choices)
    for number in range(len(found.centers)):
        members = [choices[place] for place in np.flatnonzero(found.labels == number).tolist()]
        center = tuple(found.centers[number].tolist())
        yield _cluster(members, center, _typical(choices, found.nearest(number).tolist(), points), usual)


def _cluster(
    members: Sequence[RatedChoice], center: tuple[float, ...], nearest: tuple[Call, ...], usual: Lexical
) -> Cluster:
    by_model: dict[str, list[RatedChoice]] = {action: [] for action in members[0].decision.actions}
    for one in members:
        by_model.setdefault(one.decision.action, []).append(one)
    busiest = sorted(by_model, key=lambda model: (-len(by_model[model]), model))
    mean = means(one.decision.context for one in members)
    return Cluster(
        calls=len(members),
        words=usual.words(mean),
        cost_nusd=_mean([one.cost_nusd for one in members if one.cost_nusd is not None]),
        models=tuple(_answering(model, by_model[model]) for model in busiest),
        context={**mean, EMBEDDING: center},
        listed_nusd=_listed(members),
        nearest=nearest,
    )


def _answering(model: str, members: Sequence[RatedChoice]) -> Answering:
    grades = [one.quality for one in members if one.quality is not None]
    half_width: float | None = None
    if len(grades) >= ENOUGH:
        half_width = _DEVIATIONS * float(np.std(grades, ddof=1)) / math.sqrt(len(grades))
    return Answering(
        model=model,
        calls=len(members),
        cost_nusd=_mean([one.cost_nusd for one in members if one.cost_nusd is not None]),
        graded=len(grades),
        quality=_mean(grades),
        half_width=half_width,
    )


def _typical(choices: Sequence[RatedChoice], nearest: Sequence[int], points: Floats) -> tuple[Call, ...]:
    """The calls nearest to a center, of those with the same prompt the newest."""
    seen: set[bytes] = set()
    calls: list[Call] = []
    for place in nearest:
        if (numbers := points[place].tobytes()) not in seen:
            seen.add(numbers)
            calls.append(choices[place].call)
        if len(calls) == NEAREST:
            break
    return tuple(calls)


def _listed(members: Sequence[RatedChoice]) -> dict[str, float]:
    """What the price list says of a call, by its name in the context."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in members:
        for name, value in one.decision.context.items():
            if name.startswith(COST) and isinstance(value, float | int):
                found[name].append(float(value))
    return {name: float(np.mean(each)) for name, each in found.items()}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
