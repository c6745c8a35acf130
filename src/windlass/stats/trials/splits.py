"""Sample ratio: whether as many were assigned to each variant as was planned. If not, nothing else may be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from scipy import special


def chi_square(counts: Sequence[float], shares: Sequence[float]) -> float:
    """The p-value that `counts` came from these planned `shares`, for one look. ValueError where shares are none."""
    planned, seen = _planned(counts, shares), sum(counts)
    if not seen:
        return 1.0
    statistic = sum((count - seen * share) ** 2 / (seen * share) for count, share in zip(counts, planned, strict=True))
    return float(special.chdtrc(len(planned) - 1, statistic))


class Mismatch(msgspec.Struct, array_like=True):
    """A test of the shares that may be looked at after every assignment.

    The Bayes factor of "any shares" (a Dirichlet prior about the planned ones) against "the planned ones" is a
    martingale under the plan, so it ever reaches 1 / alpha with a chance of at most alpha: Lindon, Malek,
    "Anytime-valid inference for multinomial count data", NeurIPS 2022, theorem 3.1 and section 4.

    shares: planned, of sum 1. counts: so far. strength: pseudo-counts of the prior; the larger, the smaller the
    mismatch that it looks for.
    """

    shares: list[float]
    counts: list[int]
    strength: float = 100.0

    def log_evidence(self) -> float:
        """The logarithm of the Bayes factor."""
        n = sum(self.counts)
        total = math.lgamma(self.strength) - math.lgamma(self.strength + n)
        for share, count in zip(self.shares, self.counts, strict=True):
            prior = self.strength * share
            total += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
        return total

    def p(self) -> float:
        """A p-value for every moment at once; the smallest one seen may be reported."""
        return min(math.exp(-min(self.log_evidence(), 700.0)), 1.0)


def _planned(counts: Sequence[float], shares: Sequence[float]) -> list[float]:
    total = math.fsum(shares)
    if len(counts) != len(shares) or len(shares) < 2 or not all(share > 0.0 for share in shares):
        raise ValueError(f"{len(counts)} counts and shares {list(shares)[:8]}; give a share above 0 for each variant")
    return [share / total for share in shares]
