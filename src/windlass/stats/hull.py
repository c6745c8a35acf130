"""The static hull: the best quality that a fixed mix of options reaches at each cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
"""(cost, quality)."""


def upper(points: Sequence[Point]) -> list[int]:
    """The places in `points` of those on the hull, the cheapest first; no mix of others is as cheap and better.

    >>> upper([(1.0, 0.5), (4.0, 0.8), (2.0, 0.55), (5.0, 0.7)])
    [0, 1]
    """
    kept: list[int] = []
    # Of equally dear ones the best comes first, and the others add nothing.
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if kept and points[place][1] <= points[kept[-1]][1]:
            continue
        while len(kept) > 1 and _slope(points[kept[-2]], points[place]) >= _slope(points[kept[-2]], points[kept[-1]]):
            kept.pop()
        kept.append(place)
    return kept


def quality_at(points: Sequence[Point], cost: float) -> float | None:
    """The quality of the best mix that costs at most `cost`; None where everything costs more.

    >>> quality_at([(1.0, 0.5), (3.0, 0.7)], 2.0), quality_at([(1.0, 0.5)], 0.5), quality_at([(1.0, 0.5)], 9.0)
    (0.6, None, 0.5)
    """
    hull = [points[place] for place in upper(points)]
    if not hull or cost < hull[0][0]:
        return None
    for left, right in pairwise(hull):
        if left[0] <= cost < right[0]:
            return left[1] + (cost - left[0]) * _slope(left, right)
    return hull[-1][1]


def _slope(left: Point, right: Point) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])
