"""A policy that learns costs apart from quality: what it is told, when, and what a roll-back or a correction does."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.ledger.ledger import Entry
from windlass.policies import registry
from windlass.policies.budget import BudgetOptions
from windlass.policies.check import PromiseBroken, check_policy
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions, ShadowOptions
from windlass.policies.policy import Choice, Guard, Randomised, innermost, require
from windlass.policies.replay import Learner
from windlass.policies.reward import RewardOptions, graded
from windlass.policies.rollout import RollBack, spell
from windlass.records import Call, Decision, Feedback, Outcome, Scope

ACTIONS = ("fast", "deep")
ACME = Scope("acme", "main")


class Purse:
    """Counts what it is told. heard: (what, decision, value, previous) in order."""

    name, version = "purse", 1

    def __init__(self):
        self.heard = []

    def probabilities(self, context, actions):
        require(actions)
        return np.full(len(actions), 1 / len(actions))

    def choose(self, context, actions, rng):
        require(actions)
        return Choice(actions[int(rng.integers(len(actions)))], 1 / len(actions), "")

    def learn(self, decision, reward, previous):
        self._note("quality", decision, reward, previous)

    def spend(self, decision, cost_nusd, previous):
        self._note("cost", decision, cost_nusd, previous)

    def _note(self, what, decision, value, previous):
        if not math.isfinite(value) or (what == "cost" and value < 0):
            raise ValueError(f"{what} {value}")
        self.heard.append((what, decision.id, value, previous))

    def state(self):
        return msgspec.msgpack.encode(self.heard)

    def restore(self, state):
        self.heard = [tuple(one) for one in msgspec.msgpack.decode(state)]

    def explain(self, context, actions):
        return ()


class Story:
    """A learner that is told records one by one, and the purse of the tenant acme."""

    def __init__(self, place="model", **options):
        def make(name, given):
            return Purse() if name == "purse" else registry.make(name, given)

        point = PointOptions(**{"mode": "live", "policy": "purse", "randomised_share": 0.0} | options)
        self.learner = Learner(Loop({"model": point}, make=make), 100, lambda cursor: self.kept[cursor])
        self.kept, self.place, self.told = {}, place, 0

    def tell(self, *records):
        for record in records:
            self.told += 1
            self.learner.fold(Entry(self.told, record))
        return self

    def keep(self):
        self.kept[self.told] = self.learner.state()
        return self.told

    @property
    def heard(self):
        policy = self.learner.loop._learned.get(("acme", "main", self.place))
        return innermost(policy).heard if policy is not None else []


def call(name="call_1"):
    return Call(id=name, at=1.0, tenant="acme", workspace="main", endpoint="chat", model="auto")


def decision(name="call_1", action="fast", **fields):
    values = {
        "id": f"decision_{name}", "at": 1.0, "tenant": "acme", "workspace": "main", "call": name, "point": "model",
        "policy": "purse@1", "actions": ACTIONS, "action": action, "propensity": 0.5, "live": True,
        "context": {"x": 0.5},
    }  # fmt: skip
    return Decision(**(values | fields))


def outcome(cost=700, name="call_1", **fields):
    values = {
        "id": f"outcome_{name}_{cost}", "at": 2.0, "tenant": "acme", "workspace": "main", "call": name, "model": "m",
        "provider": "p", "status": 200, "latency_ms": 10.0, "first_byte_ms": 0.0, "prompt_tokens": 1,
        "completion_tokens": 1, "cost_nusd": cost,
    }  # fmt: skip
    return Outcome(**(values | fields))


def said(value, target="call_1"):
    return Feedback(
        id=f"feedback_{target}_{value}", at=3.0, tenant="acme", workspace="main", target=target, kind="rating",
        source="user", value=value,
    )  # fmt: skip


def test_cost_and_quality_come_apart_and_each_once():
    story = Story().tell(call(), decision(), outcome())
    assert story.heard == [("cost", "decision_call_1", 700.0, None)]
    story.tell(said(0.75), said(0.75), outcome())
    assert story.heard[1:] == [("quality", "decision_call_1", 0.75, None)]


def test_corrections_replace():
    story = Story().tell(call(), decision(), outcome(700), said(0.75), outcome(900), said(0.25))
    assert story.heard[2:] == [
        ("cost", "decision_call_1", 900.0, 700.0),
        ("quality", "decision_call_1", 0.25, 0.75),
    ]


def test_a_call_that_failed_has_no_quality():
    story = Story().tell(call(), decision(), outcome(status=502, error="upstream_server_error"))
    assert [(what, value) for what, _, value, _ in story.heard] == [("cost", 700.0), ("quality", 0.0)]


def test_a_call_that_came_to_nothing_says_nothing_of_costs():
    """Or a model that was down would be believed to be free."""
    story = Story().tell(call(), decision(), outcome(0, status=502, error="upstream_server_error"))
    assert [(what, value) for what, _, value, _ in story.heard] == [("quality", 0.0)]


def test_what_another_model_cost_is_not_the_chosen_ones():
    story = Story().tell(call(), decision(action="fast"), outcome(model="deep"))
    assert [(what, value) for what, _, value, _ in story.heard] == [("quality", 0.0)]


def test_late_feedback_finds_its_decision():
    story = Story().tell(said(1.0), outcome(), call(), decision())
    assert sorted(what for what, *_ in story.heard) == ["cost", "quality"]


def test_a_costed_policy_in_shadow_hears_of_the_live_decisions():
    shadow = ShadowOptions(name="purse", policy="purse", randomised_share=0.0)
    story = Story("model-shadow-purse", policy="linear_thompson", shadows=(shadow,))
    live = decision(policy="linear_thompson@1")
    beside = decision(id="decision_call_1-model-shadow-purse", live=False, extra={"shadow": "purse"})
    story.tell(call(), live, beside, outcome(), said(0.5))
    assert [(what, value) for what, _, value, _ in story.heard] == [("cost", 700.0), ("quality", 0.5)]
    arms = story.learner.loop.explain("model", ACME, {"x": 0.5}, ACTIONS)
    assert [arm.observations for arm in arms] == [1, 0], "the live one learns the whole reward as before"


def test_a_roll_back_takes_costs_back_and_never_tells_them_again():
    story = Story().tell(call(), decision(), outcome(), call("call_2"), decision("call_2"))
    cursor = story.keep()
    story.tell(outcome(5, "call_2"), said(1.0, "call_2"))
    story.tell(
        decision("call_9", point="rollout", action=spell(RollBack("model", cursor))), outcome(6, "call_2"), outcome(800)
    )
    assert story.heard == [
        ("cost", "decision_call_1", 700.0, None),
        ("cost", "decision_call_1", 800.0, 700.0),
    ]


def test_state_and_restore_keep_what_was_told():
    story, other = (Story().tell(call(), decision(), outcome()) for _ in range(2))
    restored = Story()
    restored.learner.restore(story.learner.state())
    restored.told = story.told
    for one in (restored, other):
        one.tell(outcome(900), said(0.5))
    assert restored.learner.digest() == other.learner.digest()


def test_a_policy_that_fails_to_take_a_cost_costs_nothing_and_is_counted():
    class Broke(Purse):
        def spend(self, decision, cost_nusd, previous):
            raise RuntimeError("no pocket")

    learner = Learner(Loop({"model": PointOptions(policy="purse")}, make=lambda name, options: Broke()))
    for seq, record in enumerate((call(), decision(), outcome(), said(1.0)), start=1):
        learner.fold(Entry(seq, record))
    assert learner.loop.failures == {"model: RuntimeError": 2}


def test_guards_hand_costs_on_and_the_budget_shows_them():
    class Around(Guard):
        def probabilities(self, context, actions):
            return self.policy.probabilities(context, actions)

        def choose(self, context, actions, rng):
            return self.policy.choose(context, actions, rng)

    purse = Purse()
    Randomised(Around(purse)).spend(decision(), 5.0, None)
    assert purse.heard == [("cost", "decision_call_1", 5.0, None)]
    context = {"x": 1.0, "budget_nusd": 5.0, "cost_nusd:fast": 3.0}
    assert registry.guard("budget", {}, purse).shown(context) == context
    assert registry.guard("budget", {}, registry.make("ucb", {})).shown(context) == {"x": 1.0}
    assert BudgetOptions().prefix == "cost_nusd:"
    Randomised(registry.make("ucb", {})).spend(decision(), 5.0, None)


@pytest.mark.parametrize(
    ("error", "feedback", "quality"),
    [("", {}, None), ("timeout", {}, 0.0), ("timeout", {("user", ""): 1.0}, 0.0), ("", {("user", ""): 0.3}, 0.3)],
)
def test_quality_alone(error, feedback, quality):
    assert graded(error, feedback, RewardOptions()) == pytest.approx(quality)


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0])
def test_the_contract_refuses_what_is_no_cost(cost):
    class Careless(Purse):
        """Takes any cost."""

        def spend(self, decision, cost_nusd, previous):
            if repr(cost_nusd) != repr(cost):
                super().spend(decision, cost_nusd, previous)
            else:
                self.heard.append(("cost", decision.id, 0.0, previous))

        def explain(self, context, actions):
            return registry.make("split", {"shares": dict.fromkeys(actions, 1)}).explain(context, actions)

        def restore(self, state):
            try:
                super().restore(state)
            except (msgspec.MsgspecError, TypeError) as exc:
                raise PolicyError(f"not a state of purse: {exc}") from exc

    with pytest.raises(PromiseBroken, match="a cost of"):
        check_policy(Careless, draws=1_000)
