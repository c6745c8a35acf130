"""A quantile sketch of bounded size: counts in logarithmic buckets, relative error at most `ACCURACY`.

Source: Masson, Rim & Lee 2019, "DDSketch", section 2 (bucket i holds gamma^(i-1) < x <= gamma^i).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
_SMALLEST = 1e-3
_LARGEST = 1e9


class Sketch:
    """Positive numbers in, quantiles out. Merging two sketches is exact."""

    def __init__(self, counts: Iterable[tuple[int, int]] = ()):
        self._counts: dict[int, int] = dict(counts)
        self.count = sum(self._counts.values())

    def add(self, *values: float) -> None:
        """Count values; what is not finite is ignored, what is out of range counts at the border."""
        buckets = [
            math.ceil(math.log(value if _SMALLEST < value < _LARGEST else _border(value)) / _LOG_GAMMA)
            for value in values
            if math.isfinite(value)
        ]
        for bucket, count in Counter(buckets).items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += len(buckets)

    def merge(self, other: Sketch) -> None:
        """Take in all that `other` has counted."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count

    def quantile(self, q: float) -> float | None:
        """The `q`-quantile by nearest rank, q in [0, 1]: the least value that a share of q does not exceed, so that
        the highest of few is not hidden; None of an empty sketch."""
        if not self.count:
            return None
        rank, seen = math.ceil(q * self.count), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= max(rank, 1):
                return 2 * _GAMMA**bucket / (_GAMMA + 1)
        raise AssertionError("the counts of a sketch add up to less than its count")

    def counts(self) -> tuple[tuple[int, int], ...]:
        """The state: (bucket, count), sorted."""
        return tuple(sorted(self._counts.items()))


def _border(value: float) -> float:
    return _SMALLEST if value <= _SMALLEST else _LARGEST
