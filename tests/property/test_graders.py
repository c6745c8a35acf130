"""Graders' arithmetic: whatever numbers and texts come, values stay in [0, 1], and maps never fall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.improve.grading import signals
from windlass.improve.grading.calibration import agreement, isotonic, platt
from windlass.improve.grading.numeric import last_number

UNIT = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=80))
def test_any_pairs_give_values_in_the_unit_interval_that_never_fall(pairs: list[tuple[float, float]]) -> None:
    found = agreement(pairs)
    assert found is not None
    assert 0.0 <= found.low <= found.high <= 1.0
    assert 0.0 <= found.ece <= 1.0
    values, labels = np.array(pairs).T
    for curve in (platt(values, labels), isotonic(values, labels)):
        said = [curve(v) for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert all(0.0 <= one <= 1.0 for one in said)
        assert all(one <= other + 1e-12 for one, other in zip(said, said[1:], strict=False))


@given(st.lists(st.tuples(st.integers(0, 5), UNIT), min_size=1, max_size=30))
def test_isotonic_keeps_the_mean_of_the_labels(pairs: list[tuple[int, float]]) -> None:
    values, labels = np.array([v / 5 for v, _ in pairs]), np.array([y for _, y in pairs])
    curve = isotonic(values, labels)
    assert float(np.mean([curve(v) for v in values])) == pytest.approx(float(labels.mean()))


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarities_are_symmetric_and_in_the_unit_interval(one: str, other: str) -> None:
    for measure in (signals.similarity, signals.alike):
        assert measure(one, other) == pytest.approx(measure(other, one))
        assert 0.0 <= measure(one, other) <= 1.0
    assert signals.similarity(one, one) == 1.0


@given(st.floats(-1e12, 1e12).map(lambda value: round(value, 3)))
def test_a_number_that_is_written_is_read(value: float) -> None:
    found = last_number(f"Before 3, now {value!r} apples.")
    assert found is not None
    assert found.value == pytest.approx(value)
    plain = last_number(f"so {value:,.3f}")
    assert plain is not None
    assert plain.value == pytest.approx(value)
