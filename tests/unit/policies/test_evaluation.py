"""Evaluation: values of policies on logs of which the truth is known, and refusals where a log cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies import registry
from windlass.policies.evaluation import Evaluation, evaluate
from windlass.policies.fixed import Fixed
from windlass.policies.logged import Logged
from windlass.policies.policy import Policy
from windlass.records import Decision
from windlass.stats.features import Context

MODELS = ("small", "large")
COSTS = (100.0, 900.0)
Quality = Callable[[float], tuple[float, float]]


def plain(x: float) -> tuple[float, float]:
    return 0.3 + 0.5 * x, 0.8


def log(
    n: int,
    *,
    large: float | Callable[[float], float] = 0.5,
    seed: int = 0,
    rated: tuple[float, float] = (1.0, 1.0),
    errors: float = 0.0,
    actions: Sequence[str] = MODELS,
    told: Callable[[float], float] = lambda p: p,
) -> list[Logged]:
    """n choices, the large model with chance `large` (of the feature x). rated: the chance that quality gets known, of
    each model. errors: the share that fails. told: what the log says in place of a propensity."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        x = float(rng.random())
        chance = large(x) if callable(large) else large
        arm = int(rng.random() < chance)
        propensity = chance if arm else 1.0 - chance
        failed = bool(rng.random() < errors)
        quality = 0.0 if failed else float(rng.random() < plain(x)[arm])
        known = failed or rng.random() < rated[arm]
        decision = Decision(
            id=f"decision_{number}",
            at=float(number),
            call=f"call_{number}",
            point="model",
            policy="log@1",
            actions=tuple(actions),
            action=MODELS[arm],
            propensity=told(propensity),
            live=True,
            context={"x": x, "cost_nusd:small": 100.0, "cost_nusd:large": 900.0},
        )
        cost = COSTS[arm] * (0.5 + float(rng.random()))
        found.append(Logged(decision, quality if known else None, cost, failed))
    return found


def always(action: str, share: float = 0.0) -> Policy:
    return registry.guarded(registry.make("fixed", {"action": action}), [], share)


def of(found: Evaluation) -> tuple[float, float]:
    assert found.cost.value is not None
    assert found.quality.value is not None
    return found.cost.value.value, found.quality.value.value


def test_a_fixed_model_costs_and_achieves_what_it_would_have() -> None:
    """Means over 4,000 choices: 6 standard errors of 0.01 and of 0.006 relative, a false alarm below 1e-8."""
    cost, quality = of(evaluate(log(4_000), always("small")))
    assert quality == pytest.approx(0.55, abs=0.06)
    assert cost == pytest.approx(100.0, rel=0.05)
    cost, quality = of(evaluate(log(4_000), always("large")))
    assert quality == pytest.approx(0.8, abs=0.06)
    assert cost == pytest.approx(900.0, rel=0.05)


def test_the_share_of_chance_is_counted() -> None:
    cost, _ = of(evaluate(log(4_000), always("small", 0.5)))
    assert cost == pytest.approx(300.0, rel=0.05)


def test_the_same_policy_changes_nothing() -> None:
    found = evaluate(log(2_000), registry.make("split", {"shares": {"small": 1, "large": 1}}))
    for answer in (found.cost, found.quality):
        assert answer.change is not None
        assert answer.change.low < 0.0 < answer.change.high
        assert answer.overlap.size == pytest.approx(2_000)
        assert (answer.uncovered, answer.clipped) == (0.0, 0.0)


def test_every_estimator_is_there_and_agrees_with_the_others() -> None:
    found = evaluate(log(3_000), always("small"))
    assert list(found.quality.values) == [
        "inverse propensity",
        "self-normalised",
        "direct",
        "doubly robust",
        "self-normalised doubly robust",
        "SWITCH",
        "DRos",
    ]
    assert all(abs(one.value - 0.55) < 0.06 for one in found.quality.values.values())
    assert found.quality.value == found.quality.values["doubly robust"]
    assert found.quality.sure is not None
    low, high = found.quality.sure
    assert low < 0.55 < high
    assert found.cost.sure is None, "nothing bounds a cost"


@pytest.mark.parametrize("seed", range(3))
def test_where_nobody_rates_one_model_as_often_as_the_other_quality_is_not_bent(seed: int) -> None:
    """6 standard errors of at most 0.02."""
    rated = log(6_000, rated=(0.15, 0.9), seed=seed)
    found = evaluate(rated, registry.make("split", {"shares": {"small": 1, "large": 1}}))
    assert found.quality.value is not None
    assert found.quality.value.value == pytest.approx((0.55 + 0.8) / 2, abs=0.1)
    assert found.quality.sure is None
    assert found.quality.known < found.cost.known == 6_000


def test_errors_count_once_although_they_are_always_known() -> None:
    found = evaluate(log(6_000, rated=(0.2, 0.2), errors=0.1), always("large"))
    assert found.quality.value is not None
    assert found.quality.value.value == pytest.approx(0.72, abs=0.08)


def test_without_any_rating_only_cost_is_answered() -> None:
    found = evaluate(log(1_000, rated=(0.0, 0.0), errors=0.1), always("small"))
    assert found.cost.value is not None
    assert found.quality.value is None
    assert "only cost can be answered" in found.quality.refused[0]


def test_a_model_whose_answers_nobody_rated_is_refused_for_quality() -> None:
    found = evaluate(log(2_000, rated=(1.0, 0.0), errors=0.1), always("large"))
    assert found.cost.value is not None
    assert "no overlap" in found.quality.refused[0]


REFUSED: dict[str, tuple[list[Logged], Policy, str]] = {
    "nothing logged": ([], always("small"), "holds no decision"),
    "never chosen": (log(2_000, large=0.0, told=lambda p: 0.5), always("large"), "large was never chosen"),
    "in part": (
        log(2_000, large=0.0, told=lambda p: 0.95),
        registry.make("split", {"shares": {"small": 9, "large": 1}}),
        "no overlap: the policy makes 10.0 %",
    ),
    "no dice": (log(2_000, large=lambda x: float(x > 0.5)), always("large"), "no overlap"),
    "too seldom": (log(2_000, large=0.01), always("large"), "effective sample size"),
    "too few": (log(150), always("large"), "effective sample size"),
    "left out by a guard": (
        log(5_000, large=lambda x: 0.5 if x < 0.5 else 0.0, told=lambda p: 0.5 if p < 1.0 else 0.999),
        always("large"),
        "in place of 1, so some of the policy's choices could not happen",
    ),
    "wrong propensities": (log(5_000, told=lambda p: p / 2), always("large"), "are not the chances"),
    "an unknown model": (log(2_000), always("huge"), "huge not eligible"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_that_cannot_tell_refuses(name: str) -> None:
    choices, policy, words = REFUSED[name]
    found = evaluate(choices, policy)
    for answer in (found.cost, found.quality):
        assert any(words in why for why in answer.refused), answer.refused
        assert (answer.value, answer.was, answer.change, answer.sure, answer.values) == (None, None, None, None, {})


def test_a_trace_of_the_policy_that_the_log_does_not_cover_widens_the_interval() -> None:
    choices = log(3_000, large=0.0, told=lambda p: 1.0 - 1e-6)
    share = registry.guarded(registry.make("fixed", {"action": "small"}), [], 0.01)
    found = evaluate(choices, share)
    assert found.quality.refused == ()
    assert found.quality.uncovered == pytest.approx(0.005)
    without = evaluate(choices, always("small"))
    assert found.quality.value is not None
    assert without.quality.value is not None
    wide, slim = (one.high - one.low for one in (found.quality.value, without.quality.value))
    assert wide > slim + 0.009


def test_nothing_is_clipped_unless_it_is_asked_for_and_then_it_is_told() -> None:
    choices = log(5_000, large=0.1)
    free, capped = (evaluate(choices, always("large"), cap=cap) for cap in (None, 4.0))
    assert (free.quality.clipped, free.quality.overlap.largest) == (0.0, pytest.approx(10.0))
    assert capped.quality.clipped == pytest.approx(0.6, abs=0.1)
    assert capped.quality.sure is None
    assert capped.quality.value is not None
    assert capped.quality.value.low <= 0.8 <= capped.quality.value.high


def test_actions_one_by_one() -> None:
    found = evaluate(log(4_000, large=0.3), always("small"))
    small, large = found.fixed
    assert (small.action, large.action, small.chosen + large.chosen) == ("small", "large", 4_000)
    assert small.cost is not None
    assert large.quality is not None
    assert small.cost.value == pytest.approx(100.0, rel=0.05)
    assert large.quality.value == pytest.approx(0.8, abs=0.06)
    thin = evaluate(log(4_000, large=0.01), always("small")).fixed[1]
    assert (thin.cost, thin.quality) == (None, None)


def test_a_learner_stays_as_it_is_unless_it_is_replayed() -> None:
    """Full of chance the log teaches that `large` is worth more; frozen it knows nothing and is fair to both."""
    choices = log(3_000)
    fresh = registry.make("linear_thompson", {})
    before = fresh.state()
    cost, _ = of(evaluate(choices, fresh))
    assert fresh.state() == before
    assert cost == pytest.approx(500.0, rel=0.05)
    learned, _ = of(evaluate(choices, registry.make("linear_thompson", {}), learning=True))
    assert learned > 700.0


class Spending(Fixed):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, float]] = []

    def spend(self, decision: Decision, cost_nusd: float, previous: float | None) -> None:
        self.told.append((decision.id, cost_nusd))

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        assert previous is None
        self.told.append((decision.id, reward))


def test_one_that_learns_costs_apart_is_told_both_and_quality_only_where_it_is_known() -> None:
    choices = log(300, rated=(0.5, 0.5))
    policy = Spending()
    evaluate(choices, policy, learning=True)
    expected: list[tuple[str, float]] = []
    for one in choices:
        assert one.cost_nusd is not None
        expected.append((one.decision.id, one.cost_nusd))
        expected += [(one.decision.id, one.quality)] if one.quality is not None else []
    assert policy.told == expected


class Broken(Fixed):
    def probabilities(self, context: Context, actions: Sequence[str]) -> Any:
        return np.array([0.9, 0.9])


@pytest.mark.parametrize("found", [[0.9, 0.9], [1.0], [float("nan"), 1.0], [-0.5, 1.5]])
def test_a_policy_without_a_distribution_is_named(found: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "probabilities", lambda *_: np.array(found))
    with pytest.raises(PolicyError, match="fixed answers"):
        evaluate(log(10), Broken())


def test_contexts_that_differ_are_read_together() -> None:
    choices = log(1_000)
    strange: list[dict[str, Any]] = [{}, {"x": 1e300}, {"v": (1.0, 2.0)}, {"v": (3.0,)}, {"v": 4.0, "x": float("nan")}]
    for place, context in enumerate(strange * 20):
        decision = choices[place].decision
        changed = Decision(
            **{name: getattr(decision, name) for name in decision.__struct_fields__} | {"context": context}
        )
        choices[place] = choices[place]._replace(decision=changed)
    cost, quality = of(evaluate(choices, always("small")))
    assert quality == pytest.approx(0.55, abs=0.12)
    assert cost == pytest.approx(100.0, rel=0.15)
