"""The static hull: nothing beneath it stays, and mixes lie on its edges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from windlass.stats import hull

POINTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12)


@given(POINTS)
def test_no_mix_of_two_is_above_it(whole: list[tuple[int, int]]) -> None:
    points = [(float(cost), float(quality)) for cost, quality in whole]
    for cost, quality in points:
        at = hull.quality_at(points, cost)
        assert at is not None
        assert at >= quality - 1e-9
    for left, right in pairwise(sorted(points)):
        middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
        assert (hull.quality_at(points, middle[0]) or 0.0) >= middle[1] - 1e-9


def test_it_is_concave_and_ends_at_the_best() -> None:
    points = [(1.0, 0.5), (2.0, 0.55), (3.0, 0.9), (4.0, 0.85), (1.0, 0.4)]
    assert hull.upper(points) == [0, 2]
    assert hull.quality_at(points, 2.0) == 0.7
    assert hull.quality_at(points, 0.5) is None
    assert hull.quality_at(points, 100.0) == 0.9
    assert hull.upper([]) == []
