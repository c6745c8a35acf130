"""The sketch against the sorted list: at most one percent off, and the same in whatever pieces it came."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from windlass.watch.sketch import ACCURACY, Sketch

VALUES = st.floats(1e-3, 1e9)


def _of(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(st.lists(VALUES, min_size=1, max_size=300), st.floats(0.0, 1.0))
def test_a_quantile_is_within_one_percent_of_the_sorted_lists(values: list[float], q: float) -> None:
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    found = _of(values).quantile(q)
    assert found is not None
    assert abs(found - exact) <= ACCURACY * exact * (1 + 1e-9)


@given(st.lists(VALUES, max_size=60), st.lists(VALUES, max_size=60))
def test_merging_is_the_same_as_counting_together(left: list[float], right: list[float]) -> None:
    merged = _of(left)
    merged.merge(_of(right))
    assert merged.counts() == _of(left + right).counts()
    assert merged.count == len(left) + len(right)


@given(st.lists(VALUES, min_size=1, max_size=60), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_quantiles_rise(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    below, above = _of(values).quantile(low), _of(values).quantile(high)
    assert below is not None
    assert above is not None
    assert below <= above


@given(st.lists(st.floats(), max_size=60))
def test_whatever_is_counted_the_quantiles_are_finite(values: list[float]) -> None:
    sketch = _of(values)
    assert sketch.count == sum(map(math.isfinite, values))
    for q in (0.0, 0.5, 1.0):
        found = sketch.quantile(q)
        assert (found is None) == (sketch.count == 0)
        assert found is None or math.isfinite(found)
