"""The learner: who is credited with what, late, twice, out of order; and that replay is exact."""

from __future__ import annotations

import math
import random
import struct

import msgspec
import pytest

from windlass.errors import PolicyError
from windlass.ledger.ledger import Entry
from windlass.ledger.memory import MemoryLedger
from windlass.policies.fixed import Fixed
from windlass.policies.loop import Loop, PointOptions
from windlass.policies.points import GuardOptions, ShadowOptions
from windlass.policies.replay import Learner, erased, rebuild
from windlass.records import (
    Call,
    Decision,
    Erasure,
    Feedback,
    Outcome,
    RunEvent,
    Scope,
    StepResult,
    user_digest,
)

ACTIONS = ("fast", "deep")
ACME = Scope("acme", "main")


def new_loop(mode="live", **options):
    return Loop({"model": PointOptions(mode=mode, **options)})


class Story:
    """A learner that is told records one by one, numbered as a ledger would."""

    def __init__(self, loop=None, window=100):
        self.learner = Learner(loop or new_loop(), window)
        self.seq = 0
        self.told = []

    def tell(self, *records):
        for record in records:
            self.seq += 1
            self.told.append(Entry(self.seq, record))
            self.learner.fold(self.told[-1])
        return self

    def rewards(self):
        """Last reward learned per decision id."""
        accounts = self.learner._accounts
        return {
            accounts.decision(key, acted).id: acted.learned.get("model")
            for key, account in accounts.calls.items()
            for acted in account.acted
        }

    def observations(self, scope=ACME):
        arms = self.learner.loop.explain("model", scope, {}, ACTIONS)
        return {arm.action: arm.observations for arm in arms}


def call(name="call_1", scope=ACME, parent="", user=""):
    return Call(
        id=name,
        at=1.0,
        tenant=scope.tenant,
        workspace=scope.workspace,
        endpoint="chat",
        model="auto",
        parent=parent,
        user=user,
    )


def decision(name="call_1", action="fast", scope=ACME, **fields):
    values = {
        "id": f"decision_{name}",
        "at": 1.0,
        "tenant": scope.tenant,
        "workspace": scope.workspace,
        "call": name,
        "point": "model",
        "policy": "linear_thompson@1",
        "actions": ACTIONS,
        "action": action,
        "propensity": 0.5,
        "live": True,
        "context": {"x": 0.5},
    }
    return Decision(**(values | fields))


def outcome(name="call_1", scope=ACME, **fields):
    values = {
        "id": f"outcome_{name}",
        "at": 2.0,
        "tenant": scope.tenant,
        "workspace": scope.workspace,
        "call": name,
        "model": "m",
        "provider": "p",
        "status": 200,
        "latency_ms": 0.0,
        "first_byte_ms": 0.0,
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "cost_nusd": 0,
    }
    return Outcome(**(values | fields))


def said(value, target="call_1", scope=ACME, name=None, **fields):
    values = {
        "id": name or f"feedback_{target}_{value}",
        "at": 3.0,
        "tenant": scope.tenant,
        "workspace": scope.workspace,
        "target": target,
        "kind": "rating",
        "source": "user",
        "value": value,
    }
    return Feedback(**(values | fields))


def test_an_outcome_teaches_and_feedback_replaces():
    story = Story().tell(call(), decision(), outcome())
    assert story.rewards() == {"decision_call_1": 0.5}
    story.tell(said(1.0))
    assert story.rewards() == {"decision_call_1": 1.0}
    assert story.observations() == {"fast": 1, "deep": 0}


def test_nothing_is_learned_before_something_is_observed():
    story = Story().tell(call(), decision())
    assert story.observations() == {"fast": 0, "deep": 0}
    assert story.learner.loop.states() == []


def test_a_failed_call_is_worth_nothing():
    story = Story().tell(call(), decision(), outcome(error="rate_limited", status=429), said(1.0))
    assert story.rewards() == {"decision_call_1": 0.0}
    story.tell(call("call_2"), decision("call_2"), outcome("call_2", status=502))
    assert story.rewards()["decision_call_2"] == 0.0


def test_feedback_on_a_parent_reaches_every_call_beneath_it():
    story = Story()
    for number in (1, 2):
        story.tell(call(f"call_{number}", parent="answer_9"), decision(f"call_{number}"), outcome(f"call_{number}"))
    story.tell(call("call_3", parent="call_2"), decision("call_3"), call("call_4"), decision("call_4"))
    story.tell(said(1.0, "answer_9"))
    assert story.rewards() == {
        "decision_call_1": 1.0,
        "decision_call_2": 1.0,
        "decision_call_3": 1.0,
        "decision_call_4": None,
    }


def test_a_decision_on_something_that_is_no_call_is_credited_too():
    story = Story().tell(decision("answer_9"), call(parent="answer_9"), decision(), said(1.0, "answer_9"))
    assert story.rewards() == {"decision_answer_9": 1.0, "decision_call_1": 1.0}


def test_feedback_waits_for_its_call():
    story = Story().tell(said(1.0, "answer_9"), said(0.0, "call_2"))
    story.tell(outcome(), decision(), call(parent="answer_9"))
    story.tell(call("call_2"), decision("call_2"))
    assert story.rewards() == {"decision_call_1": 1.0, "decision_call_2": 0.0}


def test_the_newest_feedback_counts_whatever_it_was_said_of():
    story = Story().tell(call(parent="answer_9"), decision(), said(1.0, "answer_9"), said(0.0, "call_1"))
    assert story.rewards() == {"decision_call_1": 0.0}
    story.tell(said(0.75, "answer_9"))
    assert story.rewards() == {"decision_call_1": 0.75}


def test_parents_in_a_ring_end():
    story = Story().tell(call("call_1", parent="call_2"), call("call_2", parent="call_1"), decision(), said(1.0))
    assert story.rewards() == {"decision_call_1": 1.0}
    story.tell(call("call_3", parent="call_3"), decision("call_3"), said(0.0, "call_3"))
    assert story.rewards()["decision_call_3"] == 0.0


def test_the_same_feedback_again_changes_nothing():
    story = Story().tell(call(), decision(), said(1.0, name="feedback_a"), said(0.0, name="feedback_b"))
    before = story.learner.loop.states()
    story.tell(said(1.0, name="feedback_a"), said(0.5, name="feedback_b"))
    assert story.learner.loop.states() == before
    assert story.rewards() == {"decision_call_1": 0.0}


def test_feedback_of_another_scope_changes_nothing():
    story = Story().tell(call(), decision(), outcome())
    before = story.learner.loop.states()
    for scope in (Scope("evil", "main"), Scope("acme", "other"), Scope()):
        story.tell(said(0.0, scope=scope, name="feedback_x"), call("call_z", scope, parent="call_1"))
    assert story.learner.loop.states() == before
    story.tell(said(1.0, name="feedback_x"))
    assert story.rewards() == {"decision_call_1": 1.0}


def test_one_tenant_learns_nothing_from_another():
    story = Story().tell(call(), decision(), outcome())
    assert story.observations(Scope()) == {"fast": 0, "deep": 0}


@pytest.mark.parametrize(
    ("feedback", "reason"),
    [
        (said(math.nan), "value outside [0, 1]"),
        (said(-1.0), "value outside [0, 1]"),
        (said(None), "rating without a value"),
    ],
)
def test_unusable_feedback_is_counted_and_never_learned(feedback, reason):
    story = Story().tell(call(), decision(), outcome(), feedback)
    assert story.rewards() == {"decision_call_1": 0.5}
    assert story.learner.ignored == {reason: 1}


def test_a_suggestion_carries_no_reward_and_is_no_fault():
    story = Story().tell(call(), decision(), said(1.0, kind="suggestion"))
    assert story.rewards() == {"decision_call_1": None}
    assert story.learner.ignored == {}


def test_nobody_can_fill_the_memory_with_metrics():
    story = Story(window=1000).tell(call(), decision())
    for number in range(200):
        story.tell(said(1.0, name=f"feedback_{number}", metric=f"metric {number}"))
    assert story.learner.ignored == {"too many metrics": 136}
    story.tell(said(0.0, name="feedback_again", metric="metric 3"))
    assert 0.9 < story.rewards()["decision_call_1"] < 1.0


def test_a_shadow_policy_learns_from_what_really_happened():
    story = Story(new_loop("shadow"))
    shadow = decision(action="deep", live=False, id="decision_call_1-shadow", propensity=0.9)
    story.tell(call(), decision(policy="default@1", propensity=1.0), shadow, outcome(), said(1.0))
    assert story.observations() == {"fast": 1, "deep": 0}


@pytest.mark.parametrize("nobody", ["default@1", "named@1"])
def test_what_nobody_chose_teaches_nothing(nobody):
    story = Story().tell(call(), decision(policy=nobody), outcome(), said(1.0))
    assert story.observations() == {"fast": 0, "deep": 0}


def test_other_settings_start_with_all_that_is_known():
    """What a policy decided teaches the one that the settings name afterwards, and what stands in its shadow."""
    told = Story(new_loop(policy="ucb")).tell(
        call(), decision(policy="ucb@1"), outcome(), said(1.0), said(0.0, name="so")
    )
    for number in range(2, 12):
        story = told.tell(call(f"call_{number}"), decision(f"call_{number}", policy="ucb@1"), outcome(f"call_{number}"))
    shadows = (ShadowOptions("before", "ucb"),)
    swapped = Story(new_loop(shadows=shadows)).tell(*(entry.record for entry in story.told))
    for name in ("", "before"):
        arms = swapped.learner.loop.explain("model", ACME, {}, ACTIONS, shadow=name)
        assert [arm.observations for arm in arms] == [11, 0]
    again = Story(new_loop(shadows=shadows)).tell(*(entry.record for entry in story.told[:20]))
    again.learner.restore(again.learner.state())
    again.tell(*(entry.record for entry in story.told[20:]))
    assert again.learner.digest() == swapped.learner.digest()


def test_what_is_inherited_is_no_guard_s_business():
    """A guard that rests what disappointed it has seen nothing of what others decided; its policy has."""
    guards = (GuardOptions("cool_down", {"below": 0.5, "bad": 1, "rest": 5}),)
    records = [call(), decision(policy="ucb@1"), outcome(), said(0.0)]
    story = Story(new_loop(guards=guards)).tell(*records)
    policy = story.learner.loop.look("model", ACME, lambda found: found.state())
    fresh = Story(new_loop(guards=guards)).tell(call("call_9"))
    assert policy != fresh.learner.loop.look("model", ACME, lambda found: found.state())
    own = Story(new_loop(guards=guards)).tell(call(), decision(), outcome(), said(0.0))
    resting, free = (
        one.learner.loop.decide(
            "model", call_id="call_x", at=0.0, scope=ACME, context={}, actions=ACTIONS, featuriser=""
        )
        for one in (own, story)
    )
    assert "cool-down" in resting[1][0].extra["why"]
    assert "cool-down" not in free[1][0].extra["why"]


def test_points_without_settings_are_passed_over():
    story = Story().tell(call(), decision(point="unknown"), outcome())
    assert story.rewards() == {}


def test_the_decision_may_come_last():
    story = Story().tell(said(1.0), outcome(), call(), decision())
    assert story.rewards() == {"decision_call_1": 1.0}


def test_a_decision_or_an_entry_twice_is_one():
    story = Story().tell(call(), decision(), outcome(), decision(action="deep"), call(parent="answer_9"))
    assert story.observations() == {"fast": 1, "deep": 0}
    digest = story.learner.digest()
    for entry in story.told:
        story.learner.fold(entry)
    assert story.learner.digest() == digest


def test_run_events_only_move_the_cursor():
    story = Story()
    event = RunEvent(id="event_1", at=0.0, run="run_1", workflow="w", step="s", result=StepResult(status="ok"))
    story.tell(event)
    assert story.learner.cursor == 1
    assert story.rewards() == {}


def test_the_window_drops_the_oldest_first():
    story = Story(window=3)
    for number in range(6):
        name = f"call_{number}"
        story.tell(call(name, parent="answer_9"), decision(name), outcome(name))
    assert sorted(story.rewards()) == ["decision_call_3", "decision_call_4", "decision_call_5"]
    story.tell(said(1.0, "answer_9"), said(0.0, "call_0"))
    assert set(story.rewards().values()) == {1.0}
    for number in range(10):
        story.tell(said(1.0, f"elsewhere_{number}"))
    assert len(story.learner.state()) < 3_000
    assert Story(window=1).tell(*(entry.record for entry in story.told)).rewards() == {"decision_call_5": 1.0}


def test_a_window_holds_at_least_one_call():
    with pytest.raises(PolicyError, match="window is 0"):
        Learner(new_loop(), 0)


def erasure(user="ada", scope=ACME, name="erasure_1"):
    digest = user_digest(scope, user)
    return Erasure(id=name, at=9.0, tenant=scope.tenant, workspace=scope.workspace, user=digest)


def test_an_erased_user_leaves_numbers_and_no_byte_of_text_or_context():
    secret = 0.123456789
    story = Story(window=50)
    story.tell(call(user="ada lovelace", parent="answer_9"), decision("answer_9", context={"asked": secret}))
    story.tell(decision(context={"topic": (secret, 0.5)}), outcome(), said(1.0, metric="ada said so"))
    story.tell(call("call_2", user="bob"), decision("call_2"), outcome("call_2"), said(0.25, "call_2"))
    raw = struct.pack("<d", secret)
    held = story.learner.state()
    assert b"ada lovelace" not in held
    assert raw in held
    assert b"ada said so" in held
    learned = story.learner.loop.states()
    story.tell(erasure("ada lovelace"))
    state = story.learner.state()
    for trace in (b"ada", raw, b"call_1", b"answer_9", user_digest(ACME, "ada lovelace").encode()):
        assert trace not in state
    assert bytes.fromhex(user_digest(ACME, "ada lovelace")) not in state
    assert story.learner.loop.states() == learned
    assert story.rewards() == {"decision_call_2": 0.25}
    story.tell(said(1.0, "answer_9"), said(0.0, "call_1"))
    assert story.learner.loop.states() == learned


def test_an_erasure_takes_nobody_else_with_it():
    story = Story()
    for number, (user, scope) in enumerate([("ada", ACME), ("bob", ACME), ("", ACME), ("ada", Scope("acme"))]):
        name = f"call_{number}"
        story.tell(call(name, scope, user=user, parent="answer_9"), decision(name, scope=scope), outcome(name, scope))
    story.tell(erasure())
    assert sorted(story.rewards()) == ["decision_call_1", "decision_call_2", "decision_call_3"]
    story.tell(said(1.0, "answer_9"))
    assert story.rewards() == {"decision_call_1": 1.0, "decision_call_2": 1.0, "decision_call_3": 0.5}
    digest = story.learner.digest()
    story.tell(erasure("nobody", name="erasure_2"), erasure("", name="erasure_3"), erasure("bob", Scope("evil")))
    assert sorted(story.rewards()) == ["decision_call_1", "decision_call_2", "decision_call_3"]
    assert story.learner.digest() != digest  # the cursor moved


def test_an_erasure_takes_what_was_made_for_the_user_alone():
    """The answer above ada's call, the calls beneath it; not what also stands above or beneath another user's."""
    story = Story()
    story.tell(decision("answer_1"), decision("answer_2"), call("call_1", parent="answer_1", user="ada"))
    story.tell(call("call_2", parent="call_1"), decision("call_2"), call("call_3", parent="call_2", user="bob"))
    story.tell(decision("call_3"), decision(), call("call_4", parent="answer_2", user="ada"), decision("call_4"))
    story.tell(call("call_5", parent="answer_2", user="bob"), decision("call_5"), erasure())
    assert sorted(story.rewards()) == ["decision_answer_2", "decision_call_3", "decision_call_5"]


def test_an_erasure_ends_where_parents_form_a_ring():
    story = Story().tell(call("call_1", parent="call_2", user="ada"), call("call_2", parent="call_1"))
    story.tell(call("call_3", parent="call_3", user="ada"), decision(), decision("call_2"), erasure())
    assert story.rewards() == {}


def test_a_kept_state_can_be_rid_of_a_user():
    story = Story(window=50).tell(call(user="ada"), decision(context={"x": 0.123}), outcome(), said(1.0))
    story.tell(call("call_2", user="bob"), decision("call_2"), outcome("call_2"))
    rid = erased(story.learner.state(), erasure())
    again = Learner(new_loop(), 50)
    again.restore(rid)
    assert again.cursor == story.seq
    assert again.loop.states() == story.learner.loop.states()
    story.tell(erasure())
    again.fold(story.told[-1])
    assert again.digest() == story.learner.digest()
    with pytest.raises(PolicyError, match="not the state of a learner"):
        erased(b"rubbish", erasure())


def test_a_snapshot_is_compact():
    """A call with a context of twelve numbers took 770 bytes when whole decisions were kept."""
    story = Story(window=1000)
    context = {f"feature {number}": number / 7 for number in range(12)}
    for number in range(200):
        name = f"call_{number:032x}"
        story.tell(call(name), decision(name, context=context, id=f"decision_{number:032x}-model"), outcome(name))
    assert len(story.learner.state()) / 200 < 260


def test_a_rule_needs_no_lesson_and_counts_as_one_that_had_it():
    loop = new_loop(policy="fixed")
    assert not new_loop().unteachable(("acme", "main", "model"))
    assert loop.states() == []
    told = Story(loop).tell(call(), decision(policy="fixed@1"), outcome(), said(1.0))
    assert [key for key, _ in loop.states()] == [("acme", "main", "model")]
    assert told.rewards() == {"decision_call_1": None}, "who knows what is not noted"
    assert told.learner.scores(ACME, "model")[0].value == 1.0
    taught = new_loop(policy="fixed")
    taught.learn(decision(policy="fixed@1"), 1.0, None)
    assert loop.states() == taught.states()


def ruled(**options):
    """Nothing is learned at `model`; at `prompt` something is, if only in shadow."""
    shadow = ShadowOptions("bold", "linear_thompson")
    points = {"model": PointOptions(mode="live", policy="fixed", **options)}
    return Loop(points | {"prompt": PointOptions(mode="live", policy="fixed", shadows=(shadow,))})


def test_a_context_is_kept_where_a_policy_learns_from_it():
    needless, needed = struct.pack("<d", 0.123456789), struct.pack("<d", 0.987654321)
    story = Story(ruled())
    story.tell(call(), decision(policy="fixed@1", context={"secret": 0.123456789}))
    story.tell(decision(policy="fixed@1", point="prompt", context={"asked": 0.987654321}, id="decision_2"), outcome())
    state = story.learner.state()
    assert needless not in state
    assert b"secret" not in state
    assert needed in state
    assert b"asked" in state


def test_a_state_from_when_all_contexts_were_kept_goes_on_as_if_they_had_not_been():
    """And so do the numbers of the forms: that of two contexts with other names was another."""
    told = []
    for number in range(6):
        name = f"call_{number}"
        told += [call(name), decision(name, policy="fixed@1", context={f"name {number % 3}": 0.1 * number})]
        told += [decision(name, policy="fixed@1", point="prompt", id=f"decision_p{number}"), outcome(name)]
    full, lean, later = (Story(ruled(), window=4) for _ in range(3))
    full.learner._accounts.taught = {"model", "prompt"}
    full.tell(*told)
    lean.tell(*told)
    assert b"name 1" in full.learner.state()
    later.learner.restore(full.learner.state())
    assert later.learner.state() == lean.learner.state()
    later.seq = lean.seq
    for story in (lean, later):
        story.tell(said(1.0, "call_4"), decision("call_9", policy="fixed@1"), outcome("call_9"))
    assert later.learner.digest() == lean.learner.digest()


def test_a_state_from_when_lessons_of_rules_were_noted_goes_on_as_if_they_had_not_been():
    told = [call(), decision(policy="fixed@1"), outcome()]
    noted, plain, later = (Story(new_loop(policy="fixed")) for _ in range(3))
    noted.tell(*told)
    plain.tell(*told)
    for account in noted.learner._accounts.calls.values():
        account.acted[0].taught("model", account.acted[0].scored)
    assert noted.learner.state() != plain.learner.state()
    later.learner.restore(noted.learner.state())
    assert later.learner.state() == plain.learner.state()


def _one_call(name, **fields):
    return [call(name), decision(name, policy="fixed@1", id=f"decision_{name[5:]}-model", **fields), outcome(name)]


def _decided_by(record, ids):
    """The record as the loop's own policies would have left it."""
    own = ids.get(record.point) if isinstance(record, Decision) else None
    return msgspec.structs.replace(record, policy=own) if own else record


BESIDE = {
    "as usual": _one_call("call_2", action="fast"),
    "of a user": [call("call_2", user="ada"), *_one_call("call_2")[1:]],
    "failed over": [*_one_call("call_2", action="fast")[:2], outcome("call_2", model="deep")],
    "failed": [*_one_call("call_2")[:2], outcome("call_2", status=502)],
    "under another": [call("call_2", parent="call_1"), *_one_call("call_2")[1:]],
    "two points": [*_one_call("call_2")[:2], decision("call_2", policy="fixed@1", point="prompt", id="d"),
                   outcome("call_2", model="fast")],
    "two of one id": [*_one_call("call_2")[:2], *_one_call("call_2", action="deep")[1:]],
    "without an outcome": _one_call("call_2")[:2],
    "of another point": [call("call_2"), decision("call_2", point="nowhere"), outcome("call_2")],
    "in shadow": [call("call_2"), decision("call_2", policy="fixed@1", live=False), outcome("call_2")],
    "of another tenant": [call("call_2"), decision("call_2", scope=Scope("b", "main"), policy="fixed@1"),
                          outcome("call_2")],
    "ended by another": [*_one_call("call_2")[:2], outcome("call_2", scope=Scope("b", "main"))],
    "of another call": [call("call_2"), decision("call_3", policy="fixed@1"), outcome("call_2")],
    "ended elsewhere": [*_one_call("call_2")[:2], outcome("call_3")],
    "spoken of before": [said(1.0, "call_2"), *_one_call("call_2")],
    "named before": [call("call_3", parent="call_2"), *_one_call("call_2"), said(1.0, "call_2")],
    "told twice": [*_one_call("call_2"), *_one_call("call_2")],
    "ended before": [outcome("call_2"), *_one_call("call_2")[:2]],
}  # fmt: skip


@pytest.mark.parametrize("window", [1, 2, 100])
@pytest.mark.parametrize("points", [new_loop, ruled], ids=["learning", "ruled"])
@pytest.mark.parametrize("told", BESIDE.values(), ids=BESIDE.keys())
def test_a_call_told_at_once_is_one_told_bit_by_bit(told, points, window):
    """What stands together is taken together; it must not show in a bit, nor in who hears of what."""
    heard = {}
    for name, step in (("bit by bit", 1), ("at once", 100)):
        records = [*_one_call("call_1", context={"x": 0.5}), *told, *_one_call("call_9"), said(0.5, "call_9")]
        loop = points()
        entries = [Entry(seq, _decided_by(record, loop.ids)) for seq, record in enumerate(records, start=1)]
        learner, credits = Learner(loop, window), []
        learner.on_credit(credits.append)
        for start in range(0, len(entries), step):
            learner.fold(*entries[start : start + step])
        heard[name] = (learner.state(), learner.cursor, credits)
    assert heard["bit by bit"] == heard["at once"]
    assert heard["at once"][2], "something was earned"


def test_a_guard_or_a_policy_that_learns_for_itself_is_taught_around_a_rule():
    class Listening(Fixed):
        def learn(self, decision, reward, previous):
            heard.append((decision.action, previous))

    heard = []
    rests = new_loop(policy="fixed", guards=(GuardOptions("cool_down", {}),))
    assert not rests.unteachable(("acme", "main", "model"))
    own = Loop({"model": PointOptions(mode="live", policy="fixed")}, make=lambda name, options: Listening())
    Story(own).tell(call(), decision(policy="fixed@1"), outcome())
    assert heard == [("fast", None)]


def test_a_lesson_that_failed_is_no_earlier_reward():
    """The second reward must not be handed over as a correction of one that was never learned."""

    class Picky:
        name, version = "picky", 1

        def __init__(self):
            self.heard = []

        def learn(self, decision, reward, previous):
            if reward == 0.5:
                raise RuntimeError("no")
            self.heard.append((reward, previous))

        def state(self):
            return repr(self.heard).encode()

    loop = Loop(
        {"model": PointOptions(mode="live", policy="picky", randomised_share=0.0)}, make=lambda name, options: Picky()
    )
    story = Story(loop).tell(call(), decision(policy="picky@1"), outcome(), said(1.0), said(0.0))
    assert loop.states()[0][1] == b"[(1.0, None), (0.0, 1.0)]"
    assert loop.failures == {"model: RuntimeError": 1}
    assert story.rewards() == {"decision_call_1": 0.0}


def chaos(seed, calls=40):
    """A shuffled life of many calls in two scopes: late, doubled, corrected, misdirected and hostile records."""
    rng = random.Random(seed)
    records = []
    for number in range(calls):
        scope = rng.choice([ACME, Scope()])
        name = f"call_{number}"
        records.append(call(name, scope, parent=rng.choice(["", f"answer_{number % 7}", f"call_{number // 2}"])))
        live = rng.random() < 0.7
        context = {"x": rng.gauss(0, 1), f"late {number // 10}": 1.0, "t": (rng.random(), rng.random())}
        action = rng.choice(ACTIONS)
        policy = "linear_thompson@1" if live else "default@1"
        records.append(decision(name, action, scope, policy=policy, context=context))
        if not live:
            records.append(decision(name, "deep", scope, live=False, id=f"decision_{name}-shadow", context=context))
        records.append(outcome(name, scope, latency_ms=rng.expovariate(1e-3), error=rng.choice(["", "", "timeout"])))
        for _ in range(rng.randrange(4)):
            target = rng.choice([name, f"answer_{number % 7}", "call_0"])
            value = rng.choice([0.0, 1.0, rng.random(), math.nan, 7.0, None])
            source = rng.choice(["user", "qa", "system", "manager"])
            metric = rng.choice(["quality", "citation_verified"])
            fid = f"feedback_{rng.randrange(80)}"
            records.append(said(value, target, scope, fid, source=source, metric=metric))
    rng.shuffle(records)
    return records


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("window", [1000, 9])
def test_replay_and_restart_are_bitwise_equal(seed, window):
    story = Story(window=window).tell(*chaos(seed))
    assert story.learner.loop.states() != []
    again = Learner(new_loop(), window)
    for entry in story.told:
        if entry.seq % 17 == 0:
            restarted = Learner(new_loop(), window)
            restarted.restore(again.state())
            assert restarted.state() == again.state()
            again = restarted
        again.fold(entry)
    assert again.state() == story.learner.state()
    assert again.digest() == story.learner.digest()


def test_deciding_in_between_changes_nothing():
    quiet, busy = Story(), Story()
    for number, record in enumerate(chaos(3)):
        quiet.tell(record)
        busy.tell(record)
        busy.learner.loop.decide(
            "model", call_id=f"call_x{number}", at=0.0, scope=ACME, context={"n": 1.0}, actions=ACTIONS, featuriser=""
        )
    assert quiet.learner.digest() == busy.learner.digest()


def test_the_order_of_arrival_changes_nothing_but_rounding():
    """Without contradicting feedback, the same records in any order teach the same."""
    records = []
    for number in range(30):
        name = f"call_{number}"
        records += [call(name, parent=f"answer_{number % 5}"), decision(name, ACTIONS[number % 2]), outcome(name)]
    records += [said(number / 4, f"answer_{number}") for number in range(5)]
    arms = []
    for seed in range(3):
        random.Random(seed).shuffle(records)
        arms.append(Story().tell(*records).learner.loop.explain("model", ACME, {"x": 1.0}, ACTIONS))
    for other in arms[1:]:
        for one, two in zip(arms[0], other, strict=True):
            assert (one.mean, one.sd, one.observations) == pytest.approx((two.mean, two.sd, two.observations))


def ledger_of(records):
    ledger = MemoryLedger()
    for record in records:
        ledger.append_now(record)
    return ledger


def finite_records(seed):
    """A ledger refuses NaN before the learner could see it, and the same id a second time."""
    return [r for r in chaos(seed) if not (isinstance(r, Feedback) and r.value is not None and math.isnan(r.value))]


def test_catching_up_reads_the_ledger_to_its_end_or_to_a_point():
    ledger = ledger_of(finite_records(1))
    head = ledger.head()
    learner = Learner(new_loop())
    assert learner.catch_up(ledger, limit=7, until=20) == 20
    assert learner.cursor == 20
    assert learner.catch_up(ledger, limit=7) == head - 20
    assert learner.catch_up(ledger) == 0
    assert learner.cursor == head
    ledger.append_now(call("call_new"))
    assert learner.catch_up(ledger) == 1


def test_a_rebuild_from_zero_or_from_a_snapshot_is_bitwise_equal():
    ledger = ledger_of(finite_records(2))
    live = Learner(new_loop())
    live.catch_up(ledger, until=50)
    snapshot = live.state()
    live.catch_up(ledger)
    assert rebuild(ledger, new_loop()).digest() == live.digest()
    assert rebuild(ledger, new_loop(), snapshot=snapshot).digest() == live.digest()
    assert rebuild(ledger, new_loop(), until=50).state() == snapshot
    assert rebuild(ledger, new_loop(), until=50).digest() != live.digest()


def test_a_state_under_other_settings_is_refused_and_changes_nothing():
    story = Story().tell(*chaos(4))
    for other in (
        Learner(new_loop(options={"alpha": 0.5}), 100),
        Learner(new_loop(policy="fixed"), 100),
        Learner(new_loop(), 101),
    ):
        before = other.state()
        with pytest.raises(PolicyError, match="rebuild it from the ledger"):
            other.restore(story.learner.state())
        assert other.state() == before
    same = Learner(new_loop("shadow", randomised_share=0.0), 100)
    same.restore(story.learner.state())
    assert same.cursor == story.learner.cursor


def test_a_damaged_state_is_refused_and_changes_nothing():
    story = Story().tell(*chaos(5))
    before = story.learner.state()
    fields = msgspec.msgpack.decode(before)
    fields[3] = [[key, b"damaged"] for key, _ in fields[3]]
    newer = [99, *msgspec.msgpack.decode(before)[1:]]
    hostile = [
        b"",
        b"\xff\xff",
        before[:-3],
        b"\x91\x01",
        msgspec.msgpack.encode(fields),
        msgspec.msgpack.encode(newer),
    ]
    for state in hostile:
        with pytest.raises(PolicyError, match="rebuild it from the ledger"):
            story.learner.restore(state)
        assert story.learner.state() == before


def test_a_model_that_did_not_answer_earns_nothing_whoever_answered_instead() -> None:
    """Fail-over: the call went well, but not by the model that was decided on."""
    loop = Loop({"model": PointOptions(mode="live", policy="linear_thompson", randomised_share=0.0)})
    learner = Learner(loop)
    for number in range(30):
        call = f"call_{number}"
        acted = Decision(
            id=f"decision_{number}", at=1.0, call=call, point="model", policy=loop.policy_id("model"),
            actions=("broken", "sound"), action="broken", propensity=1.0, live=True, context={"x": 1.0},
        )  # fmt: skip
        ended = Outcome(
            id=f"outcome_{number}", at=1.0, call=call, model="sound", provider="p", status=200, latency_ms=1.0,
            first_byte_ms=1.0, prompt_tokens=1, completion_tokens=1, cost_nusd=1,
        )  # fmt: skip
        said = Feedback(id=f"feedback_{number}", at=1.0, target=call, kind="rating", source="user", value=1.0)
        order = (acted, ended, said) if number % 2 else (ended, acted, said)
        learner.fold(*(Entry(3 * number + place, record) for place, record in enumerate(order, start=1)))
    arms = {arm.action: arm for arm in loop.explain("model", Scope(), {"x": 1.0}, ("broken", "sound"))}
    assert arms["broken"].observations == 30
    assert arms["broken"].mean is not None
    assert arms["sound"].mean is not None
    assert arms["broken"].mean < 0.1 < arms["sound"].mean
