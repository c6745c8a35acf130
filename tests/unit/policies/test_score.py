"""Scores: the estimate is honest, corrections replace, and what cannot be known is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.unit.policies.test_replay import ACME, Story, call, decision, new_loop, outcome, said

from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions, ShadowOptions
from windlass.policies.score import MAX_WEIGHT, Scores, weight
from windlass.records import Scope

KEY = ("acme", "main", "model")


def shadowed(mode="live"):
    return Loop({"model": PointOptions(mode=mode, shadows=(ShadowOptions("bold", "fixed", {"action": "deep"}),))})


def shadow(name="call_1", action="deep", **fields):
    values = {"policy": "fixed@1", "live": False, "id": f"shadow_{name}", "extra": {"shadow": "bold"}}
    return decision(name, action, **(values | fields))


def rows(story, scope=ACME):
    return {(s.policy, s.shadow, s.live): s for s in story.learner.scores(scope, "model")}


def test_live_and_shadow_stand_side_by_side():
    story = Story(shadowed())
    story.tell(call(), decision(), shadow(), outcome(), said(1.0))
    story.tell(call("call_2"), decision("call_2", "deep"), shadow("call_2"), outcome("call_2"), said(0.25, "call_2"))
    live, bold = story.learner.scores(ACME, "model")
    assert (live.policy, live.live, live.decisions, live.matched, live.value) == (
        "linear_thompson@1",
        True,
        2,
        2,
        0.625,
    )
    assert live.half_width == pytest.approx(1.96 * math.sqrt(2 * 0.375**2) / 2)
    assert (bold.policy, bold.shadow, bold.live) == ("fixed@1", "bold", False)
    assert (bold.decisions, bold.matched, bold.value, bold.half_width) == (2, 1, 0.25, None)
    assert bold.mean_weight == 1.0
    assert story.learner.scores(Scope(), "model") == []
    assert story.learner.scores(ACME, "other") == []


def test_a_point_in_shadow_scores_the_default_against_its_policy():
    story = Story(new_loop("shadow"))
    story.tell(call(), decision(policy="default@1", propensity=1.0))
    story.tell(decision(action="deep", live=False, id="decision_call_1-shadow"), outcome())
    found = rows(story)
    assert found["default@1", "", True].value == 0.5
    own = found["linear_thompson@1", "", False]
    assert (own.decisions, own.matched, own.value, own.mean_weight) == (1, 0, None, 0.0)


@pytest.mark.parametrize("order", range(6))
def test_the_order_of_arrival_and_corrections_leave_the_last_reward(order):
    import itertools

    parts = [decision(action="deep", propensity=0.25), shadow(), outcome()]
    story = Story(shadowed()).tell(*list(itertools.permutations(parts))[order], call())
    story.tell(said(1.0), said(0.0), said(0.75, name="feedback_c"))
    for score in rows(story).values():
        assert (score.decisions, score.matched, score.value) == (1, 1, 0.75)
    assert rows(story)["fixed@1", "bold", False].mean_weight == 4.0


def test_the_estimate_is_that_of_the_policy_had_it_acted():
    """20,000 calls, live 80:20; the shadow policy would take `deep` (worth 0.7 against 0.4) in three of four. Its true
    value 0.625 lies within 4.5 standard errors (a false alarm below 1e-5), the live mean 0.46 far outside."""
    rng, scores = np.random.default_rng(11), Scores()
    for _ in range(20_000):
        live, propensity = ("fast", 0.8) if rng.random() < 0.8 else ("deep", 0.2)
        reward = float(rng.random() < (0.7 if live == "deep" else 0.4))
        wanted = "deep" if rng.random() < 0.75 else "fast"
        scores.count(KEY, ("live@1", "", True), 1.0, reward, None)
        scores.count(KEY, ("x@1", "x", False), weight(propensity) if wanted == live else 0.0, reward, None)
    live, found = scores.of(KEY)
    assert abs(found.value - 0.625) < 4.5 / 1.96 * found.half_width
    assert found.half_width < 0.03
    assert abs(found.mean_weight - 1.0) < 0.05
    assert abs(live.value - 0.46) < 4.5 / 1.96 * live.half_width


@pytest.mark.parametrize(
    ("propensity", "counts"), [(0.5, 2.0), (1.0, 1.0), (1e-9, MAX_WEIGHT), (0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0)]
)
def test_weights_are_clipped_and_no_propensity_weighs_nothing(propensity, counts):
    assert weight(propensity) == counts


def test_rows_are_bounded_and_a_correction_of_a_row_that_went_is_dropped():
    scores = Scores()
    for number in range(200):
        scores.count(KEY, (f"p{number}@1", "", True), 1.0, 0.5, None)
    assert len(scores.of(KEY)) == 64
    scores.count(KEY, ("p0@1", "", True), 1.0, 1.0, 0.5)
    assert all(score.value == 0.5 for score in scores.of(KEY))


def test_what_unknown_shadows_say_is_passed_over():
    story = Story(shadowed()).tell(call(), decision(), shadow(extra={"shadow": "gone"}), shadow(policy="fixed@2"))
    story.tell(shadow(extra={"shadow": ["bold"]}), shadow(extra={"shadow": None}, id="s2"), outcome())
    assert set(rows(story)) == {("linear_thompson@1", "", True)}


def test_a_shadow_policy_learns_from_what_was_rewarded_whether_it_decided_there_or_not():
    shadows = (ShadowOptions("twin", "linear_thompson"),)
    loop = Loop({"model": PointOptions(mode="live", shadows=shadows)})
    story = Story(loop).tell(call(), decision(), outcome(), call("call_2"), decision("call_2"))
    story.tell(shadow("call_2", policy="linear_thompson@1", extra={"shadow": "twin"}), outcome("call_2"))
    own, twin = (loop.explain("model", ACME, {}, ("fast", "deep"), shadow=name) for name in ("", "twin"))
    assert [arm.observations for arm in own] == [2, 0]
    assert [arm.observations for arm in twin] == [2, 0]


def test_who_listens_hears_each_reward_and_what_it_replaced():
    story, heard = Story(shadowed()), []
    story.learner.on_credit(heard.append)
    story.tell(call(), decision(action="deep", propensity=0.5), shadow(), outcome(), said(1.0), said(1.0, name="again"))
    story.tell(call("call_2"), decision("call_2", policy="default@1"), shadow("call_2"), said(0.0, "call_2"))
    told = [(c.seq, c.policy, c.shadow, c.action, c.live, c.weight, c.reward, c.previous) for c in heard]
    assert told == [
        (4, "linear_thompson@1", "", "deep", True, 1.0, 0.5, None),
        (4, "fixed@1", "bold", "deep", False, 2.0, 0.5, None),
        (5, "linear_thompson@1", "", "deep", True, 1.0, 1.0, 0.5),
        (5, "fixed@1", "bold", "deep", False, 2.0, 1.0, 0.5),
        (10, "default@1", "", "fast", True, 1.0, 0.0, None),
    ]
    assert {(c.scope, c.at, c.point) for c in heard} == {(ACME, 1.0, "model")}
