"""Rollouts: what can be said, what is refused, and that modes and roll-backs are folded in their place."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.policies.test_replay import ACME, ACTIONS, Story, call, decision, erasure, new_loop, outcome, said

from windlass.errors import PolicyError
from windlass.policies.replay import Learner
from windlass.policies.rollout import RollBack, SetMode, parse, rollout
from windlass.records import Decision, Scope, decode, encode


def decided(change, scope=ACME, name="decision_r1", **fields):
    made = rollout(change, id=name, at=5.0, scope=scope, by="key:ops", reason="a test")
    return msgspec.structs.replace(made, **fields)


class Kept(Story):
    """A story whose states are kept at each entry, for roll-backs."""

    def __init__(self, loop=None, window=100):
        super().__init__(loop, window)
        self.states = {}
        self.learner = Learner(self.learner.loop, window, self.states.get)

    def tell(self, *records):
        for record in records:
            super().tell(record)
            self.states[self.seq] = self.learner.state()
        return self


@pytest.mark.parametrize(
    ("action", "change"),
    [
        ("model:mode=shadow", SetMode("model", "shadow")),
        ("model:mode=settings", SetMode("model", "settings")),
        ("model:snapshot=12345", RollBack("model", 12345)),
        ("model:snapshot=0", RollBack("model", 0)),
        ("a:b c:mode=off", SetMode("a:b c", "off")),
    ],
)
def test_what_can_be_said_is_read_back(action, change):
    assert parse(action) == change
    assert decided(change).action == action


@pytest.mark.parametrize(
    "action",
    [
        "",
        "model",
        "model:mode=",
        "model:mode=on",
        "model:mode=LIVE",
        "model:mode=live ",
        "model:mode=live\n",
        " :snapshot=1:",
        ":mode=live",
        "mode=live",
        "model:snapshot=-1",
        "model:snapshot=01",
        "model:snapshot=1.5",
        "model:snapshot=1e3",
        "model:snapshot=٣",
        "model:snapshot=" + "9" * 20,
        "mo\x00del:mode=live",
        "x" * 201 + ":mode=off",
    ],
)
def test_nonsense_is_refused_and_moves_nothing(action):
    with pytest.raises(PolicyError, match="rollout"):
        parse(action)
    story = Story().tell(call(), decision(), outcome(), said(1.0))
    before = story.learner.loop.states()
    story.tell(decided(SetMode("model", "off"), action=action))
    assert story.learner.ignored == {"rollout that cannot be read": 1}
    assert story.learner.loop.states() == before
    assert story.learner.loop.modes == {}


def test_a_rollout_is_a_decision_like_any_other():
    made = decided(SetMode("model", "live"))
    assert made == Decision(
        id="decision_r1",
        at=5.0,
        tenant="acme",
        workspace="main",
        call="decision_r1",
        point="rollout",
        policy="manual@1",
        actions=("model:mode=off", "model:mode=shadow", "model:mode=live", "model:mode=settings"),
        action="model:mode=live",
        propensity=1.0,
        live=True,
        extra={"by": "key:ops", "reason": "a test"},
    )
    assert decode(encode(made), Decision) == made
    back = rollout(RollBack("model", 7), id="decision_r2", at=5.0, scope=ACME, by="key:ops", kept=(30, 7))
    assert back.actions == ("model:snapshot=7", "model:snapshot=30")


@pytest.mark.parametrize("fields", [{"by": ""}, {"by": " "}, {"by": "x" * 201}, {"reason": "x" * 1001}])
def test_who_and_why_are_asked_for(fields):
    with pytest.raises(PolicyError, match="say who"):
        rollout(SetMode("model", "off"), **({"id": "d", "at": 0.0, "scope": ACME, "by": "key:ops"} | fields))


@pytest.mark.parametrize("change", [RollBack("model", -1), SetMode("", "off"), SetMode("a\nb", "off")])
def test_a_change_that_could_not_be_read_is_not_recorded(change):
    with pytest.raises(PolicyError):
        decided(change)


def test_a_mode_holds_from_its_place_for_its_scope():
    story = Story(new_loop("shadow")).tell(decided(SetMode("model", "live")))
    loop = story.learner.loop
    assert (loop.mode("model", ACME), loop.mode("model", Scope())) == ("live", "shadow")
    restarted = Learner(new_loop("shadow"), 100)
    restarted.restore(story.learner.state())
    assert restarted.loop.mode("model", ACME) == "live"
    story.tell(decided(SetMode("model", "off"), name="decision_r2"))
    assert loop.mode("model", ACME) == "off"
    story.tell(decided(SetMode("model", "settings"), name="decision_r3"))
    assert loop.mode("model", ACME) == "shadow"
    assert loop.modes == {}


def test_only_live_decisions_about_known_points_act():
    story = Story(new_loop("shadow"))
    story.tell(decided(SetMode("model", "live"), live=False), decided(SetMode("other", "live")))
    assert story.learner.loop.modes == {}
    assert story.learner.ignored == {"rollout in shadow": 1, "rollout of an unknown point": 1}


def test_a_roll_back_restores_what_was_learned_and_forgets_what_came_after():
    story = Kept().tell(call(), decision(), outcome(), said(1.0))
    good, cursor = story.learner.loop.states(), story.seq
    story.tell(said(0.0), call("call_2"), decision("call_2", "deep"), outcome("call_2"), said(0.25, "call_2"))
    story.tell(call("call_3"), decision("call_3"))
    assert story.learner.loop.states() != good
    story.tell(decided(RollBack("model", cursor)))
    assert story.learner.loop.states() == good
    # What was learned since teaches no more, however often it is corrected.
    story.tell(said(0.5, "call_2"), said(1.0, "call_2", name="feedback_z"))
    assert story.learner.loop.states() == good
    # What the snapshot knew is corrected from what it had learned: bit by bit as if nothing had come between.
    story.tell(said(0.75, name="feedback_c"), outcome("call_3"))
    straight = Story().tell(call(), decision(), outcome(), said(1.0), said(0.75), call("call_3"), decision("call_3"))
    straight.tell(outcome("call_3"))
    assert story.learner.loop.states() == straight.learner.loop.states()


def test_a_roll_back_can_itself_be_rolled_back():
    story = Kept().tell(call(), decision(), outcome(), said(1.0))
    story.tell(call("call_2"), decision("call_2", "deep"), outcome("call_2"))
    late, cursor = story.learner.loop.states(), story.seq
    story.tell(decided(RollBack("model", 4)), said(0.0, "call_2"))
    assert story.learner.loop.states() != late
    story.tell(decided(RollBack("model", cursor)))
    assert story.learner.loop.states() == late
    story.tell(said(0.75, "call_2", name="feedback_c"))
    straight = Story().tell(call(), decision(), outcome(), said(1.0), call("call_2"), decision("call_2", "deep"))
    straight.tell(outcome("call_2"), said(0.75, "call_2"))
    assert story.learner.loop.states() == straight.learner.loop.states()


def test_rolling_back_to_zero_forgets_everything_learned_and_needs_no_snapshot():
    story = Story().tell(call(), decision(), outcome(), said(1.0), decided(RollBack("model", 0)))
    assert story.learner.loop.states() == []
    story.tell(said(0.0))
    assert story.learner.loop.states() == []
    story.tell(call("call_2"), decision("call_2"), outcome("call_2"))
    assert story.observations() == {"fast": 1, "deep": 0}


def test_a_roll_back_moves_one_scope_and_one_point():
    from windlass.policies.loop import Loop
    from windlass.policies.points import PointOptions

    options = PointOptions(mode="live")
    story = Kept(Loop({"model": options, "prompt": options}))
    for number, scope in enumerate([ACME, Scope()]):
        name = f"call_{number}"
        prompt = decision(name, scope=scope, point="prompt", id=f"decision_{number}-prompt")
        story.tell(call(name, scope), decision(name, scope=scope), prompt, outcome(name, scope))
    before = dict(story.learner.loop.states())
    story.tell(decided(RollBack("model", 1)))
    assert dict(story.learner.loop.states()) == {k: v for k, v in before.items() if k != ("acme", "main", "model")}
    story.tell(said(1.0, "call_0"))
    assert story.observations() == {"fast": 0, "deep": 0}
    assert dict(story.learner.loop.states())[("acme", "main", "prompt")] != before[("acme", "main", "prompt")]


@pytest.mark.parametrize("kept", [None, b"", b"rubbish", "wrong cursor", "other settings"])
def test_a_snapshot_that_is_not_there_moves_nothing(kept):
    story = Kept().tell(call(), decision(), outcome(), said(1.0))
    if kept == "wrong cursor":
        kept = story.states[4]
    elif kept == "other settings":
        kept = Kept(new_loop(options={"prior_precision": 7.0})).tell(call(), decision(), outcome()).states[3]
    story.states[3] = kept
    before = story.learner.loop.states()
    story.tell(decided(RollBack("model", 3)))
    assert story.learner.loop.states() == before
    assert sum(story.learner.ignored.values()) == 1
    story.tell(said(0.0, name="feedback_b"))
    assert story.rewards() == {"decision_call_1": 0.0}


def test_nobody_rolls_back_to_the_future():
    story = Kept().tell(call(), decision(), outcome())
    story.states[4] = story.states[5] = story.learner.state()
    story.tell(decided(RollBack("model", 4)), decided(RollBack("model", 99), name="decision_r2"))
    assert sum(story.learner.ignored.values()) == 2
    assert story.observations() == {"fast": 1, "deep": 0}


def test_a_replay_does_not_know_the_snapshots_that_came_later():
    story = Kept().tell(decided(RollBack("model", 4)), call(), decision(), outcome())
    again = Learner(new_loop(), 100, story.states.get)
    again.fold(*story.told)
    assert again.digest() == story.learner.digest()
    assert story.observations() == {"fast": 1, "deep": 0}


def test_a_recall_that_fails_is_tried_again():
    """A database that cannot be read for a moment must not make a replay skip what people decided."""
    story = Kept().tell(call(), decision(), outcome(), said(1.0))
    good = story.learner.loop.states()
    story.tell(call("call_2"), decision("call_2"), outcome("call_2"))
    working, story.learner._recall = story.learner._recall, lambda cursor: 1 / 0
    with pytest.raises(ZeroDivisionError):
        story.tell(decided(RollBack("model", 4)))
    assert story.learner.cursor == story.seq - 1
    story.learner._recall = working
    story.learner.fold(story.told[-1])
    assert story.learner.loop.states() == good


def test_an_erasure_before_or_after_a_roll_back_gives_the_same():
    records = [call(user="ada"), decision(), outcome(), call("call_2"), decision("call_2"), outcome("call_2")]
    first = Kept().tell(*records, said(1.0, "call_2"), erasure(), decided(RollBack("model", 6)))
    then = Kept().tell(*records, said(1.0, "call_2"), decided(RollBack("model", 6)), erasure())
    for story in (first, then):
        story.tell(said(0.0), said(0.25, "call_2"))
    assert first.learner.digest() == then.learner.digest()
    assert first.learner.loop.explain("model", ACME, {}, ACTIONS)[0].observations == 2
