"""Drawing from a distribution and putting it into words."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.fixed import Fixed
from windlass.policies.policy import Arm, draw, identity, require, why


class Last:
    """A generator whose number lies as far right as it can."""

    def random(self):
        return 1.0 - 2.0**-53


def test_draws_follow_the_distribution():
    """20,000 draws; Hoeffding at 0.02: false alarm below 1e-6."""
    rng = np.random.default_rng(0)
    shares = np.array([0.1, 0.0, 0.6, 0.3])
    counts = np.bincount([draw(shares, rng) for _ in range(20_000)], minlength=4) / 20_000
    assert np.abs(counts - shares).max() < 0.02
    assert counts[1] == 0.0


@pytest.mark.parametrize("shares", [[0.5, 0.5 - 1e-9, 0.0], [0.0, 1.0, 0.0, 0.0]])
def test_rounding_never_ends_on_an_impossible_action(shares):
    assert draw(np.array(shares), Last()) == 1


def test_nothing_to_choose_from_is_refused():
    require(("a",))
    with pytest.raises(PolicyError, match="name at least one"):
        require(())


def test_identity_names_policy_and_version():
    assert identity(Fixed()) == "fixed@1"


def test_why_shows_mean_and_deviation():
    arms = (Arm("quotes-fast", 0.71, 0.05, 0.1, 30), Arm("quotes-semantic", 0.78, 0.04, 0.9, 9))
    assert why(arms) == "quotes-fast 0.71 +- 0.05, quotes-semantic 0.78 +- 0.04"


def test_why_shows_shares_where_there_is_no_model():
    assert why((Arm("a", None, None, 0.25, 0), Arm("b", None, None, 0.75, 0))) == "a share 0.25, b share 0.75"


def test_why_stays_short():
    arms = [Arm(f"m{n}", 0.5, 0.1, n / 1225, n) for n in range(50)]
    assert why(arms).startswith("m49 0.50 +- 0.10, m48")
    assert why(arms).endswith("m45 0.50 +- 0.10, 45 more")
