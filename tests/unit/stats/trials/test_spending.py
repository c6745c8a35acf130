"""Boundaries against the published ones, and against the process that they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.trials import spending
from windlass.stats.trials.spending import Spending, boundaries, crossing, drift_for, expected_share


def test_published_boundaries() -> None:
    """Five equal looks: O'Brien-Fleming and Pocock type, as printed for the program of Lan and DeMets (Reboussin,
    DeMets, Kim, Lan, Controlled Clinical Trials 21, 2000)."""
    fifths = [0.2, 0.4, 0.6, 0.8, 1.0]
    assert boundaries(fifths) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    assert boundaries(fifths, spending="pocock") == pytest.approx([2.4380, 2.4268, 2.4101, 2.3966, 2.3859], abs=2e-4)


def test_one_look_is_an_ordinary_test() -> None:
    assert boundaries([1.0], 0.05) == pytest.approx([1.959964], abs=1e-5)
    assert drift_for([1.0], [1.959964], 0.8) == pytest.approx(1.959964 + 0.841621, abs=1e-4)


@pytest.mark.parametrize("kind", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("fractions", [[0.1, 0.11, 0.5, 1.0], [0.3, 1.2], [k / 50 for k in range(1, 51)]])
def test_what_is_spent_is_the_level(kind: Spending, fractions: list[float]) -> None:
    above, below = crossing(fractions, boundaries(fractions, 0.05, kind).tolist(), 0.0)
    assert above.sum() + below.sum() == pytest.approx(0.05, abs=1e-8)
    assert above == pytest.approx(below, abs=1e-10)
    used = np.cumsum(above + below)
    assert used == pytest.approx([spending.spent(kind, t, 0.05) for t in fractions], abs=1e-8)


def test_what_happens_to_walks() -> None:
    """20,000 walks with and without a drift, looked at ten times: shares are off by 0.012 with a chance below 1e-3."""
    tenths = np.arange(1, 11) / 10
    limits = boundaries(tenths.tolist())
    drift = drift_for(tenths.tolist(), limits.tolist(), 0.8)
    rng = np.random.default_rng(2)
    walks = rng.normal(scale=math.sqrt(0.1), size=(20_000, 10)).cumsum(axis=1)
    for real, power in ((0.0, 0.025), (drift, 0.8)):
        z = (walks + real * tenths) / np.sqrt(tenths)
        left = np.abs(z) >= limits
        first = np.where(left.any(axis=1), left.argmax(axis=1), 9)
        found = left.any(axis=1) & (z[np.arange(20_000), first] > 0)
        assert found.mean() == pytest.approx(power, abs=0.012)
        said = expected_share(tenths.tolist(), limits.tolist(), real)
        assert tenths[first].mean() == pytest.approx(said, abs=0.012)


def test_looks_that_are_missed_spend_later() -> None:
    """A boundary depends on the looks up to it alone; what was not spent is there at the next."""
    assert boundaries([0.2, 0.5]) == pytest.approx(boundaries([0.2, 0.5, 0.9, 1.0])[:2])
    assert boundaries([0.5, 1.0])[0] < boundaries([0.2, 0.5, 1.0])[1] + 1e-3


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [0.5, 0.5], [0.6, 0.4], [math.nan], [0.1, math.inf]])
def test_looks_that_are_none(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="must be above 0 and rise"):
        boundaries(fractions)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_levels_that_are_none(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        boundaries([1.0], alpha)
