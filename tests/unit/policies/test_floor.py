"""Floor: it audits by lot, alarms where the floor is not kept, comes back, and is a fold of the rewards."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.ledger.ledger import Entry
from windlass.policies import registry
from windlass.policies.check import check_policy
from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.floor import Floor, FloorOptions
from windlass.policies.linear import LinearThompson
from windlass.policies.loop import Loop, PointOptions
from windlass.policies.points import GuardOptions
from windlass.policies.policy import Randomised
from windlass.policies.replay import Learner
from windlass.policies.split import Split, SplitOptions
from windlass.records import Feedback, Scope

ACTIONS = ("large", "small")
QUICK = {"reference": "large", "audit_share": 0.2, "window": 200, "margin": 10.0}


def floor_around(policy=None, **options):
    return Floor(policy or Fixed(FixedOptions("small")), FloorOptions(**(QUICK | options)))


@pytest.fixture
def drive(decided):
    """Let a guard choose and learn: `quality` is action -> mean of binary rewards. Returns the choices."""
    numbers = itertools.count(1)

    def run(guard, quality, calls, *, seed=0, context=None, actions=ACTIONS, policy="fixed@1"):
        rng = np.random.default_rng(seed)
        choices = []
        for _ in range(calls):
            number = next(numbers)
            choice = guard.choose(context or {}, actions, rng)
            reward = float(rng.random() < quality[choice.action])
            guard.learn(
                decided(
                    choice.action,
                    context,
                    id=f"decision_{number}",
                    at=float(number),
                    actions=actions,
                    propensity=choice.propensity,
                    policy=policy,
                ),
                reward,
                None,
            )
            choices.append(choice)
        return choices

    return run


def alarmed(guard, drive, quality=None, **more):
    """Until it raises its alarm: 0.3 against a floor of 0.76; not within 2,000 calls has a chance below 1e-9."""
    for turn in range(100):
        drive(guard, quality or {"large": 0.8, "small": 0.3}, 20, seed=100 + turn, **more)
        if any(report.moved for report in guard.reports()):
            return guard
    raise AssertionError(guard.reports())


def test_the_audited_share_takes_the_reference_and_says_so():
    guard = floor_around(audit_share=0.1)
    assert guard.probabilities({}, ACTIONS).tolist() == pytest.approx([0.1, 0.9])
    rng = np.random.default_rng(0)
    choices = [guard.choose({}, ACTIONS, rng) for _ in range(500)]
    assert {c.action: c.propensity for c in choices} == pytest.approx({"large": 0.1, "small": 0.9})
    assert {c.why for c in choices if c.action == "large"} == {"floor: audited share of 10.0%"}
    assert {c.fallback for c in choices} == {""}


def test_an_alarm_moves_the_traffic_and_says_why(drive):
    guard = alarmed(floor_around(), drive)
    (report,) = guard.reports()
    assert (report.alarms, report.moved, report.percent) == (1, True, 95.0)
    assert guard.probabilities({}, ACTIONS).tolist() == pytest.approx([0.8, 0.2])
    choice = next(c for c in drive(guard, {"large": 0.8, "small": 0.3}, 20, seed=5) if c.action == "large")
    assert choice.why == choice.fallback == f"floor: {report.why}"
    assert choice.propensity == pytest.approx(0.8)
    for words in ("routed 0.", "reference large 0.", "(95 % of the reference)", "it is below the floor", "alarm 1"):
        assert words in choice.fallback
    probe = next(c for c in drive(guard, {"large": 0.8, "small": 0.3}, 60, seed=6) if c.action == "small")
    assert (probe.propensity, probe.fallback) == (pytest.approx(0.2), "")
    assert probe.why.endswith("floor: audited share of 20.0%")


def test_it_comes_back_where_the_evidence_says_so(drive):
    guard = alarmed(floor_around(), drive)
    drive(guard, {"large": 0.8, "small": 0.3}, 1_500, seed=1)
    assert guard.reports()[0].moved, "a chance of at most 0.05 by the promise, far less at this distance"
    drive(guard, {"large": 0.8, "small": 0.95}, 3_000, seed=2)
    (report,) = guard.reports()
    assert (report.moved, report.why, report.alarms) == (False, "", 1)
    assert guard.choose({}, ACTIONS, np.random.default_rng(1)).fallback == ""


def test_rewards_of_the_phase_before_that_come_after_its_end_count_for_neither(drive, decided):
    """While the reference acts it has a propensity of 0.8; such choices, rated late, are no evidence for the router."""
    guard = alarmed(floor_around(), drive)
    drive(guard, {"large": 0.8, "small": 0.95}, 3_000, seed=2)
    (report,) = guard.reports()
    assert not report.moved
    guard = alarmed(floor_around(), drive)
    for seed in range(3_000):
        drive(guard, {"large": 0.8, "small": 0.95}, 1, seed=seed)
        if not guard.reports()[0].moved:
            break
    late = {"policy": "fixed@1", "actions": ACTIONS, "at": 1e9}
    for number in range(500):
        of_reference = decided("large", {}, id=f"decision_late_{number}", propensity=0.8, **late)
        of_router = decided("small", {}, id=f"decision_late_small_{number}", propensity=0.2, **late)
        guard.learn(of_reference, 1.0, None)
        guard.learn(of_router, 0.0, None)
    assert [(one.audited, one.window) for one in guard.reports()] == [(0, guard.reports()[0].window)]
    guard.learn(decided("small", {}, id="decision_new", propensity=0.8, **(late | {"at": 2e9})), 1.0, None)
    guard.learn(decided("large", {}, id="decision_newer", propensity=0.2, **(late | {"at": 2e9})), 1.0, None)
    assert guard.reports()[0].audited == 1


def test_a_good_router_is_left_alone(drive):
    """Equal to the reference, a floor of 80 %: a false alarm has a chance below 1e-4 in these windows."""
    guard = floor_around(share_of_reference=80.0)
    drive(guard, {"large": 0.8, "small": 0.8}, 5_000)
    (report,) = guard.reports()
    assert report.alarms == 0
    assert report.window > 3, "windows that were shown to keep the floor give way to new ones"


def test_a_later_drop_is_found(drive):
    guard = floor_around(share_of_reference=80.0)
    drive(guard, {"large": 0.8, "small": 0.8}, 5_000)
    drive(guard, {"large": 0.8, "small": 0.4}, 2_000, seed=3)
    assert guard.reports()[0].alarms >= 1


def test_a_router_that_is_not_shown_to_keep_it_is_left_at_the_end_of_the_window(drive):
    """One point below the floor with a margin of 1: with this seed neither is shown in 50 audited calls."""
    guard = floor_around(window=50, margin=1.0)
    for turn in range(100):
        drive(guard, {"large": 0.8, "small": 0.75}, 10, seed=turn)
        if guard.reports()[0].moved:
            break
    assert "not shown to be less than 1 points below the floor by 50 audited calls" in guard.reports()[0].why


def test_each_content_type_has_its_own_floor(drive):
    guard = floor_around(contents={"task:code": 90.0, "task:chat": 50.0})
    code, chat, other = (
        {"task:code": 1.0},
        {"task:chat": 1.0, "task:code": 0.0},
        {"task:code": math.nan, "task:chat": ()},
    )
    for _ in range(60):
        drive(guard, {"large": 0.8, "small": 0.5}, 10, context=code)
        drive(guard, {"large": 0.8, "small": 0.5}, 10, context=chat)
    found = {report.content: report for report in guard.reports()}
    assert (found["task:code"].moved, found["task:chat"].moved) == (True, False)
    assert (found["task:code"].percent, found["task:chat"].percent) == (90.0, 50.0)
    assert guard.probabilities(code, ACTIONS)[0] == pytest.approx(0.8)
    assert guard.probabilities(chat, ACTIONS)[0] == pytest.approx(0.2)
    assert guard.probabilities(other, ACTIONS)[0] == pytest.approx(0.2)
    rng = np.random.default_rng(2)
    words = {guard.choose(code, ACTIONS, rng).fallback for _ in range(20)}
    assert any(text.startswith("floor of task:code: routed") for text in words)


def test_without_its_reference_it_keeps_no_floor_and_says_so(drive):
    guard = floor_around()
    choice = guard.choose({}, ("medium", "small"), np.random.default_rng(0))
    assert (choice.action, choice.propensity) == ("small", 1.0)
    assert choice.fallback == "floor: large is not eligible, no floor is kept"
    assert guard.choose({}, ("small",), np.random.default_rng(0)).fallback == ""
    drive(guard, {"medium": 0.1, "small": 0.1}, 20, actions=("medium", "small"))
    drive(guard, {"small": 0.1}, 20, actions=("small",))
    assert [report.audited for report in guard.reports()] == [0]


@pytest.mark.parametrize(
    "fields",
    [
        {"policy": "default@1", "propensity": 1.0},
        {"policy": "fixed@2", "propensity": 0.8},
        {"propensity": 1.0},
        {"action": "large", "propensity": 0.1},
        {"actions": ("small",), "propensity": 0.8},
        {"at": math.nan, "propensity": 0.8},
    ],
)
def test_what_this_guard_did_not_stand_around_is_no_evidence(decided, fields):
    guard = floor_around()
    guard.learn(decided(**({"action": "small", "policy": "fixed@1", "actions": ACTIONS, "propensity": 0.8})), 1.0, None)
    before = guard.reports()
    values = {"action": "small", "policy": "fixed@1", "actions": ACTIONS, "id": "decision_other"} | fields
    guard.learn(decided(**values), 0.0, None)
    assert guard.reports() == before


def test_a_corrected_reward_counts_as_if_it_had_been_the_first(decided):
    once, corrected = floor_around(), floor_around()
    first = decided("large", id="decision_first", policy="fixed@1", actions=ACTIONS, propensity=0.2)
    once.learn(first, 0.9, None)
    corrected.learn(first, 0.1, None)
    for guard in (once, corrected):
        for number in range(20):
            kept = decided("small", id=f"decision_{number}", policy="fixed@1", actions=ACTIONS, propensity=0.8)
            guard.learn(kept, 0.7, None)
    assert once.reports() != corrected.reports()
    corrected.learn(first, 0.4, 0.1)
    corrected.learn(first, 0.9, 0.4)
    assert corrected.reports() == once.reports()
    mine, other = (guard._streams[""] for guard in (once, corrected))
    assert mine.below.logs == pytest.approx(other.below.logs, abs=1e-12)
    assert mine.shown.logs == pytest.approx(other.shown.logs, abs=1e-12)
    # Twice without `previous`, or a correction of what the window does not know: nothing.
    before = corrected.state()
    corrected.learn(first, 0.2, None)
    corrected.learn(decided("small", id="decision_new", policy="fixed@1", actions=ACTIONS, propensity=0.8), 0.0, 0.3)
    assert corrected.state() == before


def test_an_alarm_stays_where_what_raised_it_is_corrected_afterwards(drive, decided):
    guard = alarmed(floor_around(), drive)
    kept = decided("small", id="decision_1", at=1.0, policy="fixed@1", actions=ACTIONS, propensity=0.8)
    before = guard.state()
    guard.learn(kept, 1.0, 0.0)
    guard.learn(decided("small", id="decision_late", at=0.5, policy="fixed@1", propensity=0.8), 1.0, None)
    assert guard.state() == before


def test_the_order_of_rewards_does_not_matter_within_a_window(decided):
    one, other = floor_around(), floor_around()
    kept = [
        decided(
            ACTIONS[n % 3 > 0], id=f"decision_{n}", policy="fixed@1", actions=ACTIONS, propensity=(0.2, 0.8)[n % 3 > 0]
        )
        for n in range(60)
    ]
    for n in range(60):
        one.learn(kept[n], n / 60.0, None)
        other.learn(kept[59 - n], (59 - n) / 60.0, None)
    left, right = one._streams[""], other._streams[""]
    assert left.shown.logs == pytest.approx(right.shown.logs, abs=1e-9)
    assert (left.calls, left.sampled) == (right.calls, right.sampled) == (60, 20)


def test_refused_rewards_leave_no_trace(decided):
    guard = floor_around(LinearThompson())
    guard.learn(decided("small", id="decision_0", actions=ACTIONS, propensity=0.8), 0.5, None)
    before = guard.state()
    for reward in (math.nan, math.inf, -math.inf, 1e300):
        with pytest.raises(ValueError, match="finite"):
            guard.learn(decided("small", id="decision_1", actions=ACTIONS, propensity=0.8), reward, None)
    assert guard.state() == before


def test_rewards_beyond_their_range_count_as_its_ends(decided):
    one, other = floor_around(), floor_around()
    for number, (wild, tame) in enumerate([(1e6, 1.0), (-1e6, 0.0), (3.0, 1.0)]):
        kept = decided("large", id=f"decision_{number}", policy="fixed@1", actions=ACTIONS, propensity=0.2)
        one.learn(kept, wild, None)
        other.learn(kept, tame, None)
    assert one.state() == other.state()


def test_the_state_holds_both_and_belongs_to_its_options(drive):
    guard = floor_around(LinearThompson(), contents={"x": 80.0})
    drive(guard, {"large": 0.8, "small": 0.3}, 200, policy="linear_thompson@1")
    drive(guard, {"large": 0.8, "small": 0.3}, 100, policy="linear_thompson@1", context={"x": 1.0})
    again = floor_around(LinearThompson(), contents={"x": 80.0})
    again.restore(guard.state())
    assert again.state() == guard.state()
    assert again.reports() == guard.reports()
    for each in (guard, again):
        drive(each, {"large": 0.8, "small": 0.9}, 1, policy="linear_thompson@1")
    assert (guard.name, guard.version) == ("linear_thompson", 1)
    before = again.state()
    foreign = [
        b"",
        LinearThompson().state(),
        floor_around(LinearThompson()).state(),
        floor_around(LinearThompson(), contents={"x": 80.0}, delta=0.01).state(),
        floor_around(contents={"x": 80.0}).state(),
        guard.state()[:-3],
    ]
    for state in foreign:
        with pytest.raises(PolicyError, match="rebuild it from the ledger"):
            again.restore(state)
    assert again.state() == before


@pytest.mark.parametrize(
    "options",
    [
        {"reference": ""},
        {"share_of_reference": 0.0},
        {"share_of_reference": 101.0},
        {"contents": {"x": math.nan}},
        {"contents": {"": 90.0}},
        {"audit_share": 0.0},
        {"audit_share": 0.6},
        {"margin": math.nan},
        {"window": 10},
        {"delta": 0.0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match="floor: "):
        FloorOptions(**({"reference": "a"} | options))


def test_nothing_to_choose_from_is_refused():
    guard = floor_around()
    for ask in (guard.probabilities, guard.explain, lambda c, a: guard.choose(c, a, np.random.default_rng(0))):
        with pytest.raises(PolicyError, match="no eligible action"):
            ask({}, ())


def test_it_stands_around_the_randomised_share_so_that_the_audit_keeps_its_chance():
    guards = [("allowed", {"deny": ["gone"]}), ("floor", QUICK), ("cool_down", {}), ("budget", {})]
    policy = registry.guarded(Fixed(FixedOptions("small")), guards, 0.1)
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([0.2 + 0.8 * 0.05, 0.8 * 0.95])
    assert policy.probabilities({"budget_nusd": 0.0}, ACTIONS)[0] >= 0.2


def test_an_alarmed_guard_keeps_the_contract(drive):
    def make(state=None):
        guard = floor_around(Split(SplitOptions({"alpha": 1.0, "beta": 2.0})), reference="gamma")
        if state:
            guard.restore(state)
        return guard

    quality = {"alpha": 0.3, "beta": 0.3, "gamma": 0.8}
    state = alarmed(make(), drive, quality, actions=tuple(quality), policy="split@1").state()
    assert make(state).probabilities({}, tuple(quality)).tolist() == pytest.approx([0.2 / 3, 0.4 / 3, 0.8])
    check_policy(lambda: make(state))
    check_policy(lambda: Randomised(make(state), 0.1))


def test_the_alarm_is_in_the_decisions_of_the_ledger():
    """The whole loop, with feedback as it comes: the recorded decision says why the reference acts."""
    point = PointOptions(
        mode="live",
        policy="fixed",
        options={"action": "small"},
        guards=(GuardOptions(guard="floor", options=QUICK),),
    )
    loop = Loop({"model": point})
    learner = Learner(loop)
    rng, told = np.random.default_rng(8), []

    def tell(record):
        told.append(Entry(len(told) + 1, record))
        learner.fold(told[-1])

    fallbacks = set()
    for number in range(1_500):
        call = f"call_{number}"
        question = {"call_id": call, "at": float(number), "scope": Scope(), "context": {"task:code": 1.0}}
        action, (decision,) = loop.decide("model", **question, actions=ACTIONS, featuriser="f@1")
        fallbacks.add(decision.fallback)
        tell(decision)
        value = float(rng.random() < {"large": 0.8, "small": 0.3}[action])
        feedback = {"target": call, "kind": "rating", "source": "user", "value": value}
        tell(Feedback(id=f"feedback_{number}", at=float(number), **feedback))
    assert any(text.startswith("floor: routed 0.") and "it is below the floor" in text for text in fallbacks)
    assert loop.failures == {}
    again = Learner(Loop({"model": point}))
    for entry in told:
        again.fold(entry)
    assert again.digest() == learner.digest()
