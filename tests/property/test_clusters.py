"""Clusters of any finite points: every one has a cluster, that of the nearest center, and no cluster is empty."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from windlass.stats.clusters import partition, silhouette

POINTS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 40), st.integers(1, 5)),
    elements=st.floats(-1e6, 1e6, allow_nan=False, width=32),
)


@given(POINTS, st.sets(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_every_point_is_with_a_nearest_center(points: np.ndarray, counts: set[int], seed: int) -> None:
    found = partition(points, counts, np.random.default_rng(seed))
    sizes = np.bincount(found.labels, minlength=len(found.centers))
    assert 1 <= len(found.centers) <= max(counts)
    assert sizes.sum() == len(points)
    assert sizes.min() > 0
    assert (np.diff(sizes) <= 0).all()
    apart = np.linalg.norm(points[:, None, :] - found.centers[None], axis=2)
    scale = 1e-9 * (1.0 + np.abs(points).max())
    assert (found.distances <= apart.min(axis=1) + scale).all()
    assert -1.0 <= silhouette(points, found) <= 1.0
    again = partition(points, counts, np.random.default_rng(seed))
    assert (again.labels == found.labels).all()
