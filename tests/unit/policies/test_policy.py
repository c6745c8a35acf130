"""Drawing from a distribution and putting it into words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies import registry
from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.linear import LinearThompson
from windlass.policies.policy import Arm, Randomised, draw, identity, require, why
from windlass.stats.chance import Propensity

MODELS = ("small", "medium", "large")
COSTS = {"cost_nusd:small": 1e4, "cost_nusd:medium": 1e5, "cost_nusd:large": 1e7}


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


def share_of(context, share=0.1, actions=MODELS):
    """What the randomised share alone takes, (k,), sums to 1."""
    guard = Randomised(Fixed(FixedOptions("medium")), share)
    inner = np.array([action == "medium" for action in actions]) * (1.0 - share)
    return (guard.probabilities(context, actions) - inner) / share


@pytest.mark.parametrize("allowance", [1e8, 6.7e6, 1e6, 1e5, 3e4])
def test_the_randomised_share_costs_a_twentieth_of_the_allowance_at_most(allowance):
    shares = share_of({**COSTS, "allowance_nusd": allowance})
    assert shares.sum() == pytest.approx(1.0)
    assert (shares >= 0.01 / 3 - 1e-12).all()
    # Beside it a hundredth of an even share, which no price takes away.
    floor = 0.01 / 3 * (1e5 + 1e7)
    assert 0.1 * float(shares @ np.array(list(COSTS.values()))) <= 0.05 * allowance + 0.1 * floor
    assert (shares[0] == pytest.approx(1 / 3)) == (allowance > 0.1 / 0.05 * 3.37e6)
    assert shares[1] == pytest.approx(1 / 3) if allowance >= 1e6 else shares[1] < 1 / 3


def test_the_randomised_share_costs_little_where_nothing_is_left():
    assert share_of({**COSTS, "allowance_nusd": 0.0}) == pytest.approx([1.0 - 0.02 / 3, 0.01 / 3, 0.01 / 3])


@pytest.mark.parametrize(
    "changed",
    [
        {"allowance_nusd": 1e9},
        {"allowance_nusd": math.nan},
        {"allowance_nusd": -1.0},
        {"allowance_nusd": (1.0, 2.0)},
        {"cost_nusd:large": math.inf},
        {"cost_nusd:large": math.nan},
        {"cost_nusd:large": (1.0,)},
        {f"cost_nusd:{model}": 1e7 for model in MODELS},
        {"allowance_nusd": None},
        {"cost_nusd:small": None},
    ],
)
def test_the_randomised_share_is_uniform_where_money_does_not_matter_or_is_not_known(changed):
    context = {**COSTS, "allowance_nusd": 10.0, **changed}
    context = {name: value for name, value in context.items() if value is not None}
    guard, plain = (Randomised(LinearThompson(), 0.5) for _ in range(2))
    bare = {"x": 1.0}
    for seed in range(20):
        one = guard.choose(context | bare, MODELS, np.random.default_rng(seed))
        other = plain.choose(bare, MODELS, np.random.default_rng(seed))
        assert one.action == other.action
    assert share_of(context) == pytest.approx([1 / 3] * 3)


def test_what_a_budget_leaves_of_the_share_is_drawn_as_it_is_recorded():
    """20,000 draws; Hoeffding at 0.02: false alarm below 1e-6."""
    guard = Randomised(Fixed(FixedOptions("medium")), 0.5)
    context = {**COSTS, "allowance_nusd": 4e6}
    rng = np.random.default_rng(0)
    choices = [guard.choose(context, MODELS, rng) for _ in range(20_000)]
    chances = guard.probabilities(context, MODELS)
    for model, chance in zip(MODELS, chances.tolist(), strict=True):
        mine = [choice for choice in choices if choice.action == model]
        assert abs(len(mine) / len(choices) - chance) < 0.02
        assert [choice.propensity for choice in mine] == pytest.approx([chance] * len(mine))
    assert chances[0] > 0.5 / 3 > chances[2] > 0.0


def test_a_propensity_behind_a_budgeted_share_is_still_put_off_and_true():
    guard = Randomised(registry.make("joint_thompson", {}), 0.2)
    context = {**COSTS, "allowance_nusd": 3e6, "x": 0.5}
    expected = dict(zip(MODELS, guard.probabilities(context, MODELS).tolist(), strict=True))
    choices = [guard.choose(context, MODELS, np.random.default_rng(seed)) for seed in range(60)]
    assert any(type(choice.propensity) is Propensity for choice in choices)
    for choice in choices:
        assert float(choice.propensity) == pytest.approx(expected[choice.action], abs=1e-8)
