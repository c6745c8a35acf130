"""Quantiles of bounded size."""

from __future__ import annotations

import math

import pytest

from windlass.watch.sketch import Sketch


def _of(*values: float) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def test_an_empty_sketch_has_no_quantile() -> None:
    assert [Sketch().quantile(q) for q in (0.0, 0.5, 1.0)] == [None, None, None]
    assert Sketch().counts() == ()


@pytest.mark.parametrize("value", [1e-3, 0.5, 1.0, 12.5, 999.0, 1e9])
def test_one_value_is_every_quantile_within_one_percent(value: float) -> None:
    for q in (0.0, 0.5, 0.99, 1.0):
        assert _of(value).quantile(q) == pytest.approx(value, rel=0.01 + 1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_counted(value: float) -> None:
    assert _of(value).count == 0
    assert _of(value, 5.0).quantile(1.0) == pytest.approx(5.0, rel=0.01)


@pytest.mark.parametrize(("value", "border"), [(0.0, 1e-3), (-7.0, 1e-3), (1e-300, 1e-3), (1e300, 1e9)])
def test_what_is_out_of_range_counts_at_the_border(value: float, border: float) -> None:
    assert _of(value).quantile(0.5) == pytest.approx(border, rel=0.01)


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    values = [0.0, -1.0, 1e-3, 5.0, 5.0, 120.5, math.nan, 1e9, 1e300, math.inf, math.nextafter(1e9, 0.0)]
    together = Sketch()
    together.add(*values)
    together.add()
    assert (together.counts(), together.count) == (_of(*values).counts(), 9)


def test_the_median_of_a_million_to_one() -> None:
    sketch = _of(*[1.0] * 99, 1e6)
    assert sketch.quantile(0.5) == pytest.approx(1.0, rel=0.01)
    assert sketch.quantile(1.0) == pytest.approx(1e6, rel=0.01)


def test_its_size_is_bounded_whatever_comes() -> None:
    sketch = _of(*(10 ** (exponent / 50) for exponent in range(-1_000, 1_000)))
    assert len(sketch.counts()) < 1_500


def test_its_counts_make_it_again() -> None:
    sketch = _of(1.0, 2.0, 2.0, 3.0)
    again = Sketch(sketch.counts())
    assert (again.count, again.counts()) == (4, sketch.counts())
    assert again.quantile(0.5) == sketch.quantile(0.5)


def test_merging_leaves_the_other_as_it_was() -> None:
    one, other = _of(1.0), _of(2.0, 2.0)
    one.merge(other)
    assert (one.count, other.count) == (3, 2)
    assert one.counts() == _of(1.0, 2.0, 2.0).counts()
