"""What the policy of the point `model` is held to: read from it, through its guards, and from nobody else's."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from windlass.errors import PolicyError
from windlass.policies.floor import FloorReport
from windlass.policies.loop import Loop
from windlass.policies.points import GuardOptions, PointOptions, ShadowOptions
from windlass.records import Scope
from windlass.server.held import Held, floor_words, held, worth

ACTIONS = ("cheap", "dear")
ACME = Scope("acme", "main")
FLOOR = GuardOptions("floor", {"reference": "dear"})
CONTEXT = {"chars": 0.5, "cost_nusd:cheap": 1e4, "cost_nusd:dear": 1e6, "allowance_nusd": 1e5}


def _loop(policy: str = "joint_thompson", *guards: GuardOptions, **more: Any) -> Loop:
    return Loop({"model": PointOptions(mode="live", policy=policy, guards=guards, **more)})


def _taught(loop: Loop, calls: int = 40) -> Loop:
    for number in range(calls):
        asked = {"call_id": f"call_{number}", "at": float(number), "scope": ACME, "featuriser": "chat@1"}
        action, (decision, *_) = loop.decide("model", context=CONTEXT, actions=ACTIONS, **asked)
        assert loop.learn(decision, 0.9 if action == "dear" else 0.5, None)
        if "model" in loop.costed:
            assert loop.spend(decision, CONTEXT[f"cost_nusd:{action}"] * 2.0, None, "model")
    return loop


def test_a_policy_that_learns_costs_says_what_money_is_worth_and_what_calls_cost() -> None:
    loop = _taught(_loop())
    states = loop.states()
    found = held(loop, ACME, CONTEXT, ACTIONS)
    assert found.quality_per_usd is not None
    assert found.quality_per_usd > 0.0
    cheap, dear = found.expected_nusd
    assert 1e4 < cheap < 4e4 < dear
    assert loop.states() == states
    assert held(loop, Scope(), CONTEXT, ACTIONS).expected_nusd == pytest.approx((1e4, 1e6))
    assert loop.failures == {}


def test_without_a_budget_or_an_objective_cost_does_not_count() -> None:
    found = held(_taught(_loop()), ACME, {"chars": 0.5}, ACTIONS)
    assert found.quality_per_usd == 0.0


@pytest.mark.parametrize("policy", ["linear_thompson", "ucb1", "fixed"])
def test_a_policy_that_weighs_no_costs_says_nothing_of_them(policy: str) -> None:
    assert held(_loop(policy), ACME, CONTEXT, ACTIONS) == Held()


def test_floors_are_read_without_any_action_and_through_other_guards() -> None:
    loop = _taught(_loop("joint_thompson", FLOOR, GuardOptions("allowed", {"allow": ["*"]})))
    found = held(loop, ACME, {}, ())
    (report,) = found.floors
    assert (report.content, report.percent, report.moved) == ("", 95.0, False)
    assert (found.quality_per_usd, found.expected_nusd) == (None, ())
    assert held(loop, Scope(), {}, ()).floors == ()
    assert held(loop, ACME, CONTEXT, ACTIONS).floors == found.floors


def test_what_the_context_holds_breaks_nothing() -> None:
    odd = {"cost_nusd:cheap": math.inf, "cost_nusd:dear": (1.0, 2.0), "allowance_nusd": math.nan, "embedding": ()}
    found = held(_taught(_loop()), ACME, odd, (*ACTIONS, "\N{SNOWMAN}"))
    assert len(found.expected_nusd) == 3
    assert found.quality_per_usd is not None
    assert math.isfinite(found.quality_per_usd)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Held) == found
    spent = held(_taught(_loop()), ACME, {**CONTEXT, "allowance_nusd": 0.0}, ACTIONS)
    assert spent.quality_per_usd is not None
    assert math.isfinite(spent.quality_per_usd)


def test_a_shadow_policy_is_read_at_its_place_and_an_unknown_place_is_refused() -> None:
    loop = _loop("fixed", shadows=(ShadowOptions(name="joint", policy="joint_thompson"),))
    assert held(loop, ACME, CONTEXT, ACTIONS, "model-shadow-joint").expected_nusd
    with pytest.raises(PolicyError, match="unknown decision point"):
        held(loop, ACME, CONTEXT, ACTIONS, "model-shadow-none")


@pytest.mark.parametrize(
    ("quality_per_usd", "words"),
    [
        (0.0, "cost does not count now: the best quality is taken"),
        (-1.0, "cost does not count now: the best quality is taken"),
        (1e-9, "0.01 of quality may cost 10000000 USD more a call now"),
        (10.0, "0.01 of quality may cost 0.001 USD more a call now"),
        (1e15, "no quality may cost more now: the cheapest is taken"),
        (math.inf, "no quality may cost more now: the cheapest is taken"),
    ],
)
def test_the_price_of_money_in_words(quality_per_usd: float, words: str) -> None:
    assert worth(quality_per_usd) == words


def test_a_floor_in_words_says_who_acts_where_it_is_the_reference() -> None:
    kept = FloorReport("", 95.0, False, 0, 3, 7, "routed 0.80", "")
    assert floor_words(kept) == "floor: routed 0.80; window 3, 7 audited calls"
    moved = FloorReport("task:code", 95.0, True, 1, 4, 2, "routed 0.40", "it is below the floor")
    assert floor_words(moved) == (
        "floor of task:code: routed 0.40; window 4, 2 audited calls; the reference acts: it is below the floor"
    )
