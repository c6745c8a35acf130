"""Clusters of points: k-means with careful seeding, and how many clusters there are.

Sources: Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28, 1982; Arthur, Vassilvitskii,
"k-means++: the advantages of careful seeding", SODA 2007, section 2.2; for their number the silhouette of Rousseeuw
(J. Comput. Appl. Math. 20, 1987) with distances to centers in place of those to all members, as in Hruschka, de Castro,
Campello, "Evolutionary algorithms for clustering gene-expression data", ICDM 2004.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROUNDS = 30
RESTARTS = 3
"""The best of so many beginnings: each may end in another local optimum."""

Floats = NDArray[np.float64]


class Partition(NamedTuple):
    """Points in clusters. centers: (k, d); labels: (n,), the cluster of each point; distances: (n,), to its center."""

    centers: Floats
    labels: NDArray[np.intp]
    distances: Floats

    def nearest(self, cluster: int) -> NDArray[np.intp]:
        """The members of a cluster, those nearest to its center first; of two as near the earlier one."""
        members = np.flatnonzero(self.labels == cluster)
        return members[np.argsort(self.distances[members], kind="stable")]


def partition(points: Floats, counts: Iterable[int], rng: np.random.Generator) -> Partition:
    """The clusters of `points: (n, d)`, as many of `counts` as have the highest silhouette; of two as good the fewer.

    Largest cluster first. Fewer where there are not so many different points. ValueError where points are not finite,
    there are none, or no count is at least 1.
    """
    found = [kmeans(points, count, rng) for count in sorted(set(counts))]
    if not found:
        raise ValueError("no number of clusters is given")
    best = max(found, key=lambda one: silhouette(points, one))  # the first of those that are as good
    return _ordered(best)


def kmeans(points: Floats, count: int, rng: np.random.Generator) -> Partition:
    """`count` clusters of `points: (n, d)` with the smallest sum of squared distances that some beginnings lead to."""
    if points.ndim != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"points of shape {points.shape}: give one or more rows of finite numbers")
    if count < 1:
        raise ValueError(f"{count} clusters; give at least 1")
    found = [_settled(points, _seeds(points, count, rng)) for _ in range(RESTARTS if count > 1 else 1)]
    return min(found, key=lambda one: float(one.distances @ one.distances))


def silhouette(points: Floats, found: Partition) -> float:
    """How much nearer points are to their own center than to the next one on average, in [-1, 1]; 0 for one cluster."""
    if len(found.centers) < 2:
        return 0.0
    apart = np.sqrt(_squares(points, found.centers))
    own = apart[np.arange(len(points)), found.labels]
    apart[np.arange(len(points)), found.labels] = np.inf
    other = apart.min(axis=1)
    larger = np.maximum(own, other)
    return float(np.divide(other - own, larger, out=np.zeros(len(points)), where=larger > 0.0).mean())


def _seeds(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Up to `count` different points, each drawn in proportion to its squared distance from those before it."""
    places = [int(rng.integers(len(points)))]
    nearest = _squares(points, points[places])[:, 0]
    while len(places) < count and (total := float(nearest.sum())) > 0.0:
        places.append(int(np.searchsorted(np.cumsum(nearest), rng.random() * total, side="right")) % len(points))
        nearest = np.minimum(nearest, _squares(points, points[places[-1:]])[:, 0])
    return points[places]


def _settled(points: Floats, centers: Floats) -> Partition:
    """Each point to the nearest center, each center to the mean of its points, until none moves."""
    origin = points.mean(axis=0)
    shifted, centers = points - origin, centers - origin
    labels = _closest(shifted, centers)
    for _ in range(ROUNDS):
        kept, places = np.unique(labels, return_inverse=True)  # a center without points is none
        centers = np.stack([shifted[places == each].mean(axis=0) for each in range(len(kept))])
        moved = kept[_closest(shifted, centers)]
        if (moved == labels).all():
            break
        labels = moved
    kept, places = np.unique(labels, return_inverse=True)
    centers = np.stack([points[places == each].mean(axis=0) for each in range(len(kept))])
    squares = _squares(points, centers)
    labels = squares.argmin(axis=1)
    kept, places = np.unique(labels, return_inverse=True)  # by then a point on the border may be nearer to another one
    return Partition(centers[kept], places, np.sqrt(squares[np.arange(len(points)), labels]))


def _closest(points: Floats, centers: Floats) -> NDArray[np.intp]:
    """(n,) the place of the nearest center, by products: faster than differences, and exact enough around the origin.

    Not by `@`, which keeps every core of a server busy for it.
    """
    nearest: NDArray[np.intp] = ((centers**2).sum(axis=1) - 2.0 * np.einsum("nd,kd->nk", points, centers)).argmin(
        axis=1
    )
    return nearest


def _squares(points: Floats, centers: Floats) -> Floats:
    """(n, k) squared distances; exact where they are small, which a sum of products is not."""
    return np.stack([((points - center) ** 2).sum(axis=1) for center in centers], axis=1)


def _ordered(found: Partition) -> Partition:
    """The same clusters, the largest first."""
    sizes = np.bincount(found.labels, minlength=len(found.centers))
    order = np.argsort(-sizes, kind="stable")
    names = np.empty(len(order), np.intp)
    names[order] = np.arange(len(order))
    return Partition(found.centers[order], names[found.labels], found.distances)
