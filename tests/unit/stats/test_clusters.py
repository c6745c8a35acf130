"""Clusters of points: found where they are, the same for the same seed, whatever the points are like."""

from __future__ import annotations

import time

import numpy as np
import pytest

from windlass.stats.clusters import Partition, kmeans, partition, silhouette

COUNTS = range(4, 9)


def _blobs(count: int, each: int, seed: int, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = np.eye(64)[:count]
    truth = np.repeat(np.arange(count), each)
    return centers[truth] + spread * rng.standard_normal((count * each, 64)) / 8.0, truth


@pytest.mark.parametrize("count", COUNTS)
def test_groups_that_lie_apart_are_found_and_counted(count: int) -> None:
    points, truth = _blobs(count, 40, seed=count)
    found = partition(points, COUNTS, np.random.default_rng(7))
    assert len(found.centers) == count
    assert all(len(set(found.labels[truth == group])) == 1 for group in range(count))
    assert silhouette(points, found) > 0.8


def test_the_same_seed_finds_the_same() -> None:
    points = np.random.default_rng(3).standard_normal((300, 64))
    first, again = (partition(points, COUNTS, np.random.default_rng(11)) for _ in range(2))
    assert (first.labels == again.labels).all()
    assert (first.centers == again.centers).all()


def test_every_point_is_with_the_nearest_center_and_the_largest_cluster_is_first() -> None:
    rng = np.random.default_rng(5)
    points = np.concatenate([rng.normal(0.0, 1.0, (200, 3)), rng.normal(9.0, 1.0, (20, 3))])
    found = partition(points, (2,), rng)
    assert np.bincount(found.labels).tolist() == [200, 20]
    apart = np.linalg.norm(points[:, None] - found.centers[None], axis=2)
    assert (apart.argmin(axis=1) == found.labels).all()
    assert found.distances == pytest.approx(apart.min(axis=1))
    first = found.nearest(0)
    assert (np.diff(found.distances[first]) >= 0.0).all()
    assert set(found.labels[first]) == {0}


def test_points_that_are_alike_are_one_cluster_whatever_was_asked_for() -> None:
    alike = np.ones((50, 64))
    assert len(partition(alike, COUNTS, np.random.default_rng(0)).centers) == 1
    two = np.concatenate([alike, np.zeros((10, 64))])
    found = partition(two, COUNTS, np.random.default_rng(0))
    assert np.bincount(found.labels).tolist() == [50, 10]
    assert (found.distances == 0.0).all()


def test_one_point_is_a_cluster() -> None:
    found = kmeans(np.array([[1.0, 2.0]]), 8, np.random.default_rng(0))
    assert found.centers.tolist() == [[1.0, 2.0]]
    assert silhouette(np.array([[1.0, 2.0]]), found) == 0.0


@pytest.mark.parametrize("points", [np.empty((0, 4)), np.array([[np.nan, 0.0]]), np.array([[np.inf, 0.0]]), np.ones(4)])
def test_what_are_no_points_is_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        kmeans(points, 2, np.random.default_rng(0))


def test_no_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        kmeans(np.ones((3, 2)), 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no number"):
        partition(np.ones((3, 2)), (), np.random.default_rng(0))


def test_points_far_from_the_origin_are_told_apart() -> None:
    points = 1e8 + np.repeat(np.arange(3.0), 20)[:, None]
    found = partition(points, (3,), np.random.default_rng(1))
    assert sorted(found.centers[:, 0] - 1e8) == [0.0, 1.0, 2.0]


def test_it_takes_little_time() -> None:
    points = np.random.default_rng(2).standard_normal((2_000, 64))
    began = time.process_time()
    assert isinstance(partition(points, COUNTS, np.random.default_rng(2)), Partition)
    assert time.process_time() - began < 10.0
