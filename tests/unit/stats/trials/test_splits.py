"""Sample ratios: one look, and as many as one likes."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.stats.trials.splits import Mismatch, chi_square


def test_one_look() -> None:
    assert chi_square([5_100, 4_900], [1, 1]) == pytest.approx(0.0455, abs=5e-5)
    assert chi_square([0, 0], [0.5, 0.5]) == 1.0
    assert chi_square([20, 30, 50], [0.2, 0.3, 0.5]) == 1.0


@pytest.mark.parametrize(("counts", "shares"), [([1], [1.0]), ([1, 2], [1.0]), ([1, 2], [1.0, 0.0])])
def test_shares_that_are_none(counts: list[int], shares: list[float]) -> None:
    with pytest.raises(ValueError, match="share above 0"):
        chi_square(counts, shares)


def first_alarm(rng: np.random.Generator, real: float, n: int) -> int:
    """After how many assignments a planned half is doubted at 0.05, looked at after every tenth; n: never."""
    test, hits = Mismatch([0.5, 0.5], [0, 0]), rng.random(n) < real
    for start in range(0, n, 10):
        b = int(hits[start : start + 10].sum())
        test.counts = [test.counts[0] + 10 - b, test.counts[1] + b]
        if test.p() <= 0.05:
            return start + 10
    return n


def test_it_may_be_looked_at_all_the_time() -> None:
    """400 experiments as planned: more than 32 alarms (level 0.05) have a chance below 1e-2, and it is conservative.
    A split of 0.55 is found in all of 50 within 10,000."""
    rng = np.random.default_rng(1)
    alarms = sum(first_alarm(rng, 0.5, 2_000) < 2_000 for _ in range(400))
    assert alarms <= 32
    assert all(first_alarm(rng, 0.55, 10_000) < 10_000 for _ in range(50))
