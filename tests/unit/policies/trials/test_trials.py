"""Experiments in the loop and in the fold: who gets what with which odds, what is counted, and how they end."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from tests.unit.policies.test_replay import ACME, ACTIONS, Story, call, erasure, outcome, said
from tests.unit.policies.trials.test_plan import planned

from windlass.errors import PolicyError
from windlass.ledger.ledger import Entry
from windlass.policies.loop import DEFAULT_POLICY, Loop, PointOptions
from windlass.policies.points import GuardOptions, ShadowOptions
from windlass.policies.replay import Learner, erased
from windlass.policies.rollout import Advance, Always, Begin, End, Promote, SetMode, Ship, rollout
from windlass.policies.trials.plan import METRICS, Guardrail, Variant
from windlass.records import Scope

HALF = planned(ramp=(1.0,), size=100)
SHADOWS = (ShadowOptions("bold", "fixed", {"action": "deep"}), ShadowOptions("shy", "fixed", {"action": "fast"}))


class World(Story):
    """A learner, and calls that its loop decides; each is told in full before the next one."""

    def __init__(self, mode="live", policy="fixed", guards=(), share=0.0, options=None):
        point = PointOptions(
            mode=mode,
            policy=policy,
            options=options or ({"action": "fast"} if policy == "fixed" else {}),
            guards=guards,
            shadows=SHADOWS,
            randomised_share=share,
        )
        super().__init__(Loop({"model": point}), window=100_000)
        self.calls = 0

    def changed(self, change, scope=ACME, name=""):
        made = rollout(change, id=name or f"decision_r{self.seq}", at=float(self.seq), scope=scope, by="key:ops")
        return self.tell(made)

    def decide(self, name="", user="", scope=ACME, actions=ACTIONS, context=None):
        self.calls += 1
        name = name or f"call_{self.calls}"
        _, decisions = self.learner.loop.decide(
            "model",
            call_id=name,
            at=float(self.seq),
            scope=scope,
            context=context or {"x": 0.5},
            actions=actions,
            featuriser="f@1",
            user=user,
        )
        return name, decisions

    def run(self, count, quality, user=lambda number: "", scope=ACME, **ended):
        """So many calls, each with its feedback; quality: of an action, or None for none."""
        taken = Counter()
        for number in range(count):
            who = user(number)
            name, decisions = self.decide(user=who, scope=scope)
            taken[decisions[0].action] += 1
            told = {key: value(decisions[0].action) for key, value in ended.items()}
            self.tell(call(name, scope, user=who), *decisions, outcome(name, scope, **told))
            value = quality(decisions[0].action)
            if value is not None:
                self.tell(said(value, name, scope))
        return taken

    @property
    def trial(self):
        return self.learner.trials.of(ACME)[0]


def assignment(decisions):
    found = [one for one in decisions if one.point == "experiment"]
    return found[0] if found else None


class TestDeciding:
    def test_half_of_the_calls_get_the_variant_with_honest_odds(self):
        world = World().changed(Begin(HALF))
        taken, odds = Counter(), set()
        for _ in range(2_000):
            _, decisions = world.decide()
            made = assignment(decisions)
            taken[made.action] += 1
            assert decisions[0].action == {"usual": "fast", "b": "deep"}[made.action]
            assert decisions[0].policy == "fixed@1"
            assert (made.policy, made.actions, made.propensity) == (HALF.id, ("usual", "b"), 0.5)
            odds.add(decisions[0].propensity)
        assert abs(taken["b"] / 2_000 - 0.5) < 0.045
        assert odds == {0.5}

    @pytest.mark.parametrize("share", [0.0, 0.2])
    def test_propensities_are_those_of_the_whole(self, share):
        plan = planned(
            variants=(Variant("usual", 0.6), Variant("b", 0.3, action="deep"), Variant("c", 0.1, shadow="shy"))
        )
        world = World(share=share).changed(Begin(plan)).changed(Advance("model", "deeper", 1))
        taken, odds = Counter(), {}
        for _ in range(20_000):
            _, decisions = world.decide()
            taken[decisions[0].action] += 1
            odds.setdefault(decisions[0].action, set()).add(round(float(decisions[0].propensity), 9))
        expected = {"fast": 0.7 * (1 - share) + share / 2, "deep": 0.3 * (1 - share) + share / 2}
        for action, chance in expected.items():
            assert odds[action] == {round(chance, 9)}
            assert abs(taken[action] / 20_000 - chance) < 4 * (chance * (1 - chance) / 20_000) ** 0.5

    def test_guards_stand_around_every_variant(self):
        world = World(guards=(GuardOptions("allowed", {"allow": ["fast"]}),)).changed(Begin(HALF))
        assert {world.decide()[1][0].action for _ in range(200)} == {"fast"}

    def test_off_is_off_whatever_is_tried_or_stands(self):
        world = World().changed(Always("model", "deep")).changed(Begin(HALF)).changed(SetMode("model", "off"))
        for _ in range(50):
            (only,) = world.decide()[1]
            assert (only.action, only.policy) == ("fast", DEFAULT_POLICY)

    def test_the_default_is_usual_where_no_policy_acts(self):
        world = World(mode="shadow", options={"action": "deep"}).changed(Begin(HALF))
        for _ in range(100):
            _, decisions = world.decide()
            made = assignment(decisions)
            assert decisions[0].action == {"usual": "fast", "b": "deep"}[made.action]
            assert (decisions[0].policy, decisions[0].live, decisions[0].propensity) == (DEFAULT_POLICY, True, 0.5)

    def test_a_named_model_and_another_workspace_are_not_in_it(self):
        world = World().changed(Begin(HALF))
        assert assignment(world.decide(actions=("deep",))[1]) is None
        assert assignment(world.decide(actions=("fast", "other"))[1]) is None
        assert assignment(world.decide(scope=Scope("other", "main"))[1]) is None
        assert assignment(world.decide(scope=Scope("acme", "else"))[1]) is None

    def test_a_user_keeps_the_variant(self):
        world = World().changed(Begin(planned(unit="user", ramp=(1.0,))))
        seen = {}
        for number in range(600):
            made = assignment(world.decide(user=f"user {number % 30}")[1])
            assert seen.setdefault(number % 30, made.action) == made.action
        assert set(seen.values()) == {"usual", "b"}
        assert assignment(world.decide()[1]) is None, "nobody is named"

    def test_experiments_of_one_name_at_two_points_leave_an_assignment_each(self):
        points = {name: PointOptions(mode="live", policy="fixed", options={"action": "fast"}) for name in "ab"}
        story = Story(Loop(points))
        made = []
        for name in points:
            begin = Begin(planned(point=name, ramp=(1.0,)))
            story.tell(rollout(begin, id=f"decision_{name}", at=0.0, scope=ACME, by="me"))
            asked = {"call_id": "call_1", "at": 1.0, "scope": ACME, "context": {}, "featuriser": "f@1"}
            made += story.learner.loop.decide(name, actions=ACTIONS, **asked)[1]
        assert len(made) == len({one.id for one in made}) == 4

    def test_a_shadows_policy_that_raises_costs_no_call(self, monkeypatch):
        plan = planned(variants=(Variant("usual", 0.5), Variant("b", 0.5, shadow="bold")), ramp=(1.0,))
        world = World().changed(Begin(plan))
        monkeypatch.setattr("windlass.policies.fixed.Fixed.choose", lambda *_: 1 / 0)
        made = [world.decide()[1][0] for _ in range(20)]
        assert {one.action for one in made} == {"fast"}
        assert all(one.fallback.startswith("ZeroDivisionError") for one in made)

    def test_the_odds_count_what_is_taken_in_the_place_of_a_policy_that_raises(self, monkeypatch):
        plan = planned(variants=(Variant("usual", 0.5), Variant("b", 0.5, action="deep")), ramp=(1.0,))
        world = World(share=0.4).changed(Begin(plan))
        for failing in ("choose", "probabilities"):
            monkeypatch.setattr(f"windlass.policies.fixed.Fixed.{failing}", lambda *_: 1 / 0)
        made = [world.decide()[1][0] for _ in range(20)]
        assert {(one.action, float(one.propensity)) for one in made} == {("fast", 1.0)}


class TestStanding:
    def test_a_promoted_shadow_decides_within_the_guards_and_back(self):
        world = World(share=0.1).changed(Promote("model", "bold"))
        _, decisions = world.decide()
        assert decisions[0].policy == "fixed@1"
        shares = Counter(world.decide()[1][0].action for _ in range(2_000))
        assert 0.93 < shares["deep"] / 2_000 < 0.97, "its own randomised share is not the point's"
        explained = {arm.action: arm.probability for arm in world.learner.loop.explain("model", ACME, {}, ACTIONS)}
        assert explained == pytest.approx({"fast": 0.05, "deep": 0.95})
        world.changed(Promote("model"))
        assert Counter(world.decide()[1][0].action for _ in range(200))["fast"] > 170

    def test_always_an_action_and_only_in_that_workspace(self):
        world = World().changed(Always("model", "deep"))
        assert world.decide()[1][0].action == "deep"
        assert world.decide(scope=Scope("other", "main"))[1][0].action == "fast"
        _, decisions = world.decide(actions=("fast", "other"))
        assert (decisions[0].action, decisions[0].fallback) == ("fast", "deep not eligible")

    @pytest.mark.parametrize("change", [Promote("model", "shy"), Always("model", "fast")])
    def test_a_floor_holds_whatever_stands(self, change):
        floor = GuardOptions("floor", {"reference": "deep", "share_of_reference": 95, "audit_share": 0.1})
        world = World(policy="linear_thompson", guards=(floor,)).changed(change)
        world.run(1_500, lambda action: 0.0 if action == "fast" else 1.0)
        late = Counter(world.decide()[1][0].action for _ in range(200))
        assert late["deep"] > 150, "what is not as good as the reference is not let through"

    def test_what_the_settings_have_no_more_is_left_out(self):
        world = World()
        world.learner.loop.standing["acme", "main", "model"] = ("", "gone")  # as an older state may have it
        world.changed(Promote("model", "unknown"))
        assert world.learner.ignored == {"rollout to an unknown shadow": 1}
        with pytest.raises(PolicyError, match="no shadow policy 'unknown'; it has bold, shy"):
            world.learner.check(Promote("model", "unknown"), ACME)

    def test_the_promoted_policy_learns_and_so_does_the_own_one(self):
        shadow = (ShadowOptions("bold", "epsilon_greedy"),)
        loop = Loop({"model": PointOptions(mode="live", policy="linear_thompson", shadows=shadow)})
        story = Story(loop).tell(rollout(Promote("model", "bold"), id="decision_r", at=0.0, scope=ACME, by="me"))
        _, decisions = loop.decide(
            "model", call_id="call_1", at=1.0, scope=ACME, context={"x": 1.0}, actions=ACTIONS, featuriser="f@1"
        )
        assert decisions[0].policy == "epsilon_greedy@1"
        story.tell(call(), *decisions, outcome(), said(1.0))
        assert sum(story.observations().values()) == 1
        own = loop.look("model", ACME, lambda policy: policy.explain({"x": 1.0}, ACTIONS))
        assert sum(arm.observations for arm in own) == 1


class TestFolding:
    def test_values_are_counted_by_variant_and_corrections_replace(self):
        world = World().changed(Begin(HALF))
        world.run(40, lambda action: 1.0 if action == "deep" else 0.5, latency_ms=lambda action: 100.0)
        samples = [dict(zip(METRICS, of_variant, strict=True)) for of_variant in world.trial.samples]
        assert [sample["quality"].total for sample in samples] == [
            0.5 * samples[0]["quality"].n,
            samples[1]["quality"].n,
        ]
        assert sum(world.trial.assigned) == sum(sample["quality"].n for sample in samples) == 40
        name, decisions = world.decide()
        at = ("usual", "b").index(assignment(decisions).action)
        before = world.trial.samples[at][0].total
        world.tell(call(name), *decisions, outcome(name), said(1.0, name, name="feedback_x"))
        world.tell(said(0.25, name, name="feedback_y"), said(1.0, name, name="feedback_x"))
        assert world.trial.samples[at][0].total == before + 0.25
        assert world.trial.samples[at][0].n == samples[at]["quality"].n

    def test_what_comes_twice_or_in_another_order_counts_once(self):
        world = World().changed(Begin(HALF))
        _, decisions = world.decide("call_7")
        told = [call("call_7"), *decisions, outcome("call_7"), said(1.0, "call_7")]
        shuffled = told * 2
        random.Random(3).shuffle(shuffled)
        world.tell(*shuffled)
        assert sum(world.trial.assigned) == 1
        assert sum(of_variant[0].n for of_variant in world.trial.samples) == 1
        assert sum(of_variant[0].total for of_variant in world.trial.samples) == 1.0

    def test_harm_ends_it_for_everybody_at_once(self):
        world = World().changed(Begin(planned(size=10_000)))
        world.run(4_000, lambda action: 0.0 if action == "deep" else 1.0)
        trial = world.trial
        assert trial.state == "alarmed"
        assert (trial.alarm.variant, trial.alarm.metric) == ("b", "quality")
        assert trial.alarm.after < 60
        assert world.learner.loop.assigning == {}
        assert {world.decide()[1][0].action for _ in range(200)} == {"fast"}

    def test_no_harm_no_alarm_and_looks_at_planned_sizes(self):
        world, rng = World().changed(Begin(HALF)), random.Random(1)
        world.run(400, lambda action: rng.random())
        trial = world.trial
        assert trial.state == "running"
        assert [look.units for look in trial.looks] == [10 * (k + 1) for k in range(10)]

    def test_the_ramp_goes_on_and_counts_anew(self):
        world = World().changed(Begin(planned()))
        world.run(100, lambda action: 0.5)
        assert not any(sample.n for of_variant in world.trial.samples for sample in of_variant)
        world.changed(Advance("model", "deeper", 1))
        taken = world.run(100, lambda action: 0.5)
        assert 30 < taken["deep"] < 70
        assert sum(of_variant[0].n for of_variant in world.trial.samples) == 100

    def test_shipping_lets_everybody_have_it(self):
        world = World().changed(Begin(HALF)).changed(Ship("model", "deeper", "b"))
        assert (world.trial.state, world.trial.shipped) == ("shipped", "b")
        _, decisions = world.decide()
        assert decisions[0].action == "deep"
        assert assignment(decisions) is None

    def test_a_variant_is_not_shipped_whose_policy_the_settings_have_no_more(self):
        gone = planned(variants=(Variant("usual", 0.5), Variant("b", 0.5, shadow="gone")))
        world = World().changed(Begin(gone))  # as an older ledger may have it
        world.learner.check(Ship("model", "deeper", "usual"), ACME)
        with pytest.raises(PolicyError, match="no shadow policy 'gone'; it has bold, shy"):
            world.learner.check(Ship("model", "deeper", "b"), ACME)

    @pytest.mark.parametrize(("how", "state"), [("stop", "stopped"), ("rollback", "rolled back")])
    def test_an_end_gives_everybody_what_is_usual(self, how, state):
        world = World().changed(Begin(HALF)).changed(End("model", "deeper", how))
        assert world.trial.state == state
        assert world.decide()[1][0].action == "fast"
        name, decisions = world.decide()
        world.tell(call(name), *decisions, outcome(name), said(1.0, name))
        assert not any(of_variant[0].n for of_variant in world.trial.samples)

    def test_what_cannot_be_is_counted_and_changes_nothing(self):
        world = World().changed(Begin(HALF))
        before = world.learner.trials.stored()
        wrong = [
            Begin(planned(name="second")),
            Begin(HALF),
            Advance("model", "deeper", 0),
            Advance("model", "deeper", 7),
            Advance("model", "other", 1),
            End("model", "other", "stop"),
            Ship("model", "deeper", "nobody"),
        ]
        for number, change in enumerate(wrong):
            with pytest.raises(PolicyError):
                world.learner.check(change, ACME)
            world.changed(change, name=f"decision_w{number}")
        assert world.learner.ignored == {"rollout of an experiment that is not there, or at another stage": len(wrong)}
        assert world.learner.trials.stored() == before
        world.changed(End("model", "deeper", "stop"))
        with pytest.raises(PolicyError, match="just this plan"):
            world.learner.check(Begin(HALF), ACME)

    @pytest.mark.parametrize("change", [Promote("model", "bold"), Promote("model"), Always("model", "deep")])
    def test_nobody_is_promoted_beneath_an_experiment(self, change):
        world = World().changed(Begin(HALF))
        with pytest.raises(PolicyError, match="deeper is under way at model"):
            world.learner.check(change, ACME)
        world.changed(change)
        assert world.learner.loop.standing == {}
        assert world.learner.ignored == {"rollout of who decides, within an experiment": 1}

    def test_the_ended_of_one_workspace_push_out_nobody_elses(self):
        world, other = World(), Scope("other", "main")
        world.changed(Begin(planned(name="theirs")), other).changed(End("model", "theirs", "stop"), other)
        for number in range(103):
            name = f"mine-{number}"
            world.changed(Begin(planned(name=name)), name=f"decision_b{number}")
            world.changed(End("model", name, "stop"), name=f"decision_e{number}")
        mine = [trial.plan.name for trial in world.learner.trials.of(ACME)]
        assert (len(mine), mine[0]) == (100, "mine-102")
        assert [trial.plan.name for trial in world.learner.trials.of(other)] == ["theirs"]

    def test_two_who_ship_at_once_are_told_apart(self):
        world = World().changed(Begin(HALF))
        first, second = Ship("model", "deeper", "b"), Ship("model", "deeper", "usual")
        world.changed(first, name="decision_first").changed(second, name="decision_second")
        world.learner.made(first, ACME, "decision_first")
        with pytest.raises(PolicyError, match="came first"):
            world.learner.made(second, ACME, "decision_second")
        assert world.trial.shipped == "b"

    def test_another_tenants_feedback_moves_nothing(self):
        other = Scope("other", "main")
        world = World().changed(Begin(HALF))
        name, decisions = world.decide()
        world.tell(call(name), *decisions, outcome(name))
        before = msgspec.msgpack.encode(world.learner.trials.stored())
        forged = [msgspec.structs.replace(one, tenant="other", id=f"{one.id}x") for one in decisions]
        world.tell(said(0.0, name, other), call(name, other), *forged, outcome(name, other))
        assert msgspec.msgpack.encode(world.learner.trials.stored()) == before

    @pytest.mark.parametrize(
        "forged",
        [
            {"featuriser": "stage:7"},
            {"featuriser": "stage:-1"},
            {"featuriser": "x"},
            {"action": "c", "actions": ("a", "b", "c")},
            {"action": "nobody"},
            {"policy": "unknown@1"},
        ],
    )
    def test_assignments_that_make_no_sense_count_nothing(self, forged):
        world = World().changed(Begin(HALF))
        name, decisions = world.decide()
        wrong = [one if one.point == "model" else msgspec.structs.replace(one, **forged) for one in decisions]
        world.tell(call(name), *wrong, outcome(name), said(1.0, name))
        assert not any(of_variant[0].n for of_variant in world.trial.samples)

    @pytest.mark.parametrize("ended", [{"latency_ms": -5.0}, {"cost_nusd": -5}, {"latency_ms": 1e300}])
    def test_outcomes_that_make_no_sense_break_nothing(self, ended):
        guards = tuple(Guardrail(metric) for metric in METRICS)
        world = World().changed(Begin(planned(ramp=(1.0,), guardrails=guards)))
        world.run(30, lambda action: 0.5, **{key: lambda action, value=value: value for key, value in ended.items()})
        assert world.trial.state == "running"


class TestState:
    def _full(self, unit):
        guards = (Guardrail("quality"), Guardrail("latency", 0.1))
        world, rng = World(), random.Random(5)
        world.changed(Begin(planned(unit=unit, guardrails=guards)))
        world.run(80, lambda action: rng.random(), user=lambda number: f"user {number % 17}")
        world.changed(Advance("model", "deeper", 1))
        world.run(80, lambda action: rng.random(), user=lambda number: f"user {number % 17}")
        return world.changed(Promote("model", "bold")).changed(SetMode("model", "shadow"))

    @pytest.mark.parametrize("unit", ["call", "session", "user"])
    def test_a_restored_learner_goes_on_bit_by_bit(self, unit):
        world = self._full(unit)
        other = World()
        other.learner.restore(world.learner.state())
        assert other.learner.digest() == world.learner.digest()
        assert other.learner.loop.assigning == world.learner.loop.assigning
        other.seq, other.calls = world.seq, world.calls
        for one in (world, other):
            values = iter(random.Random(9).choices(range(100), k=60))
            one.run(60, lambda action, values=values: next(values) / 100, user=lambda number: f"user {number % 19}")
        assert other.learner.digest() == world.learner.digest()

    def test_folding_again_gives_the_same(self):
        world = self._full("user")
        again = Learner(World().learner.loop, 100_000)
        again.fold(*world.told)
        assert again.digest() == world.learner.digest()

    def test_a_forgotten_user_leaves_no_number(self):
        world = self._full("user")
        numbers = set(world.trial.units) | set(world.trial.guarded)
        gone = erasure("user 3")
        state = erased(world.learner.state(), gone)
        world.told.append(Entry(world.seq + 1, gone))
        world.learner.fold(world.told[-1])
        left = set(world.trial.units) | set(world.trial.guarded)
        assert len(numbers - left) == 1
        other = World()
        other.learner.restore(state)
        (trial,) = other.learner.trials.of(ACME)
        assert set(trial.units) | set(trial.guarded) == left
