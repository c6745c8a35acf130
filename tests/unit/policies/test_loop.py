"""The loop: what each mode decides and records, and that no policy can fail a call."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading

import msgspec
import numpy as np
import pytest

from windlass.errors import PolicyError, SettingsError
from windlass.policies import registry
from windlass.policies.fixed import Fixed
from windlass.policies.loop import Dice, Loop
from windlass.policies.points import GuardOptions, PointOptions, ShadowOptions
from windlass.policies.policy import Arm, Choice
from windlass.policies.reward import RewardOptions
from windlass.records import Decision, Scope, decode, encode
from windlass.stats.chance import Propensity

ACTIONS = ("fast", "deep")
ACME = Scope("acme", "main")


class Stub(Fixed):
    """A policy whose choice and learning are what a test says they are."""

    name = "stub"
    answer: object = Choice("deep", 0.25, "because")
    lesson: BaseException | None = None
    account: object = None

    def choose(self, context, actions, rng):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def learn(self, decision, reward, previous):
        if self.lesson:
            raise self.lesson

    def explain(self, context, actions):
        if isinstance(self.account, BaseException):
            raise self.account
        return super().explain(context, actions) if self.account is None else self.account


def loop(mode="live", policy="linear_thompson", make=registry.make, **options):
    return Loop({"model": PointOptions(mode=mode, policy=policy, **options)}, make=make)


def stubbed(mode="live", answer=None, lesson=None, account=None):
    def make(name, options):
        policy = Stub()
        policy.answer = answer if answer is not None else policy.answer
        policy.lesson = lesson
        policy.account = account
        return policy

    return loop(mode, "stub", make, randomised_share=0.0)


def ask(asked, call_id="call_0192", actions=ACTIONS, context=None, scope=ACME, point="model"):
    return asked.decide(
        point,
        call_id=call_id,
        at=12.5,
        scope=scope,
        context={"x": 0.5} if context is None else context,
        actions=actions,
        featuriser="chat@1",
    )


def test_live_acts_and_records_everything():
    action, (decision,) = ask(stubbed())
    assert action == "deep"
    assert decision == Decision(
        id="decision_0192-model",
        at=12.5,
        tenant="acme",
        workspace="main",
        call="call_0192",
        point="model",
        policy="stub@1",
        actions=ACTIONS,
        action="deep",
        propensity=0.25,
        live=True,
        context={"x": 0.5},
        featuriser="chat@1",
        fallback="",
        extra={"why": "because"},
    )


def test_shadow_records_the_policy_and_takes_the_default():
    action, (live, shadow) = ask(stubbed("shadow"))
    assert action == "fast"
    assert (live.policy, live.action, live.propensity, live.live) == ("default@1", "fast", 1.0, True)
    assert (shadow.policy, shadow.action, shadow.propensity, shadow.live) == ("stub@1", "deep", 0.25, False)
    assert (live.id, shadow.id) == ("decision_0192-model", "decision_0192-model-shadow")


def test_off_takes_and_records_the_default_and_asks_nobody():
    action, (decision,) = ask(stubbed("off", answer=RuntimeError("asked")))
    assert action == "fast"
    assert (decision.policy, decision.propensity, decision.live, decision.fallback) == ("default@1", 1.0, True, "")


@pytest.mark.parametrize(
    ("default", "action", "fallback"),
    [("", "fast", ""), ("deep", "deep", ""), ("gone", "fast", "default 'gone' not eligible")],
)
def test_the_default_action(default, action, fallback):
    taken, (decision,) = ask(loop("off", default=default))
    assert (taken, decision.action, decision.fallback) == (action, action, fallback)


@pytest.mark.parametrize("mode", ["live", "shadow"])
@pytest.mark.parametrize(
    ("answer", "fallback"),
    [
        (RuntimeError("no luck"), "RuntimeError: no luck"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: "),
        (ValueError("x" * 10_000), "ValueError: xxx"),
        (Choice("gone", 0.5, ""), "PolicyError: chose 'gone', which is not one of fast, deep"),
        (Choice("deep", 0.0, ""), "PolicyError: propensity 0.0 is not in"),
        (Choice("deep", -0.5, ""), "PolicyError: propensity -0.5"),
        (Choice("deep", 1.5, ""), "PolicyError: propensity 1.5"),
        (Choice("deep", math.nan, ""), "PolicyError: propensity nan"),
        (Choice("deep", math.inf, ""), "PolicyError: propensity inf"),
        (Choice("deep", "certain", ""), "ValueError: "),
        ("no choice at all", "AttributeError: "),
        (UnicodeError("\ud800"), "UnicodeError: ?"),
    ],
)
def test_a_policy_that_breaks_never_fails_the_call(mode, answer, fallback):
    asked = stubbed(mode, answer)
    action, decisions = ask(asked)
    assert action == "fast"
    assert decisions[-1].policy == "stub@1"
    assert (decisions[-1].action, decisions[-1].propensity) == ("fast", 1.0)
    assert decisions[-1].fallback.startswith(fallback)
    assert len(decisions[-1].fallback) <= 200
    assert all(decode(encode(decision), Decision) == decision for decision in decisions)
    assert sum(asked.failures.values()) == 1


def test_what_ends_the_process_is_not_caught():
    with pytest.raises(KeyboardInterrupt):
        ask(stubbed(answer=KeyboardInterrupt()))


def test_a_propensity_above_one_by_rounding_alone_is_one():
    _, (decision,) = ask(stubbed(answer=Choice("deep", np.float64(1.0 + 2e-16), "")))
    assert decision.propensity == 1.0
    assert type(decision.propensity) is float


def test_the_fallback_of_the_policy_itself_is_recorded():
    _, (decision,) = ask(loop(policy="fixed", options={"action": "gone"}, randomised_share=0.0))
    assert (decision.action, decision.fallback) == ("fast", "gone not eligible")


def test_no_actions_is_the_fault_of_the_caller():
    with pytest.raises(PolicyError, match="name at least one"):
        ask(loop(), actions=())


def test_an_unknown_point_is_named():
    with pytest.raises(PolicyError, match="unknown decision point 'modle'; known: model"):
        ask(loop(), point="modle")
    with pytest.raises(PolicyError, match="known: none"):
        Loop({}).policy_id("model")


@pytest.mark.parametrize("mode", ["off", "shadow", "live"])
def test_a_single_action_is_still_a_decision(mode):
    action, decisions = ask(loop(mode), actions=("only", "only"))
    assert action == "only"
    assert all(d.actions == ("only",) and d.propensity == 1.0 for d in decisions)


def test_the_same_call_draws_the_same_and_another_does_not():
    one, other = loop(), loop()
    taken = [ask(one, f"call_{n}")[0] for n in range(64)]
    assert taken == [ask(other, f"call_{n}")[0] for n in range(64)]
    assert set(taken) == set(ACTIONS)


def test_points_draw_independently():
    options = PointOptions(mode="live")
    both = Loop({"model": options, "prompt": options})
    taken = [[ask(both, f"call_{n}", point=point)[0] for n in range(64)] for point in ("model", "prompt")]
    assert taken[0] != taken[1]


def test_the_randomised_share_is_kept_and_counted():
    """2,000 draws of a 50 % share; Hoeffding at 0.07: false alarm below 1e-8."""
    asked = loop(policy="fixed", options={"action": "fast"}, randomised_share=0.5)
    decisions = [ask(asked, f"call_{n}")[1][0] for n in range(2_000)]
    assert {(d.action, d.propensity) for d in decisions} == {("fast", 0.75), ("deep", 0.25)}
    assert abs(sum(d.action == "deep" for d in decisions) / 2_000 - 0.25) < 0.07


def test_the_recorded_context_can_be_stored_and_is_what_the_policy_saw():
    _, (decision,) = ask(loop(), context={"nan": math.nan, "t": (math.inf, 1.0), "np": np.float64(2.0)})
    assert decision.context == {"nan": 0.0, "t": (0.0, 1.0), "np": 2.0}
    assert decode(encode(decision), Decision) == decision


def test_ids_without_a_type_still_make_an_id():
    _, (decision,) = ask(loop("off"), call_id="17")
    assert decision.id == "decision_17-model"


def test_one_tenant_never_moves_another():
    asked = loop()
    _, (decision,) = ask(asked)
    before = {scope: asked.explain("model", scope, {"x": 0.5}, ACTIONS) for scope in (ACME, Scope("acme"), Scope())}
    assert asked.learn(decision, 1.0, None)
    after = {scope: asked.explain("model", scope, {"x": 0.5}, ACTIONS) for scope in before}
    assert after[ACME] != before[ACME]
    assert after[Scope("acme")] == before[Scope("acme")]
    assert after[Scope()] == before[Scope()]


def test_deciding_leaves_no_state():
    asked = loop()
    ask(asked)
    assert asked.states() == []


def test_a_lesson_that_raises_is_counted_and_survived():
    asked = stubbed(lesson=ZeroDivisionError("oh"))
    _, (decision,) = ask(asked)
    assert asked.learn(decision, 1.0, None) is False
    assert asked.failures == {"model: ZeroDivisionError": 1}
    assert ask(asked)[0] == "deep"


def test_states_restore_into_equal_settings_only():
    asked, again = loop(), loop()
    _, (decision,) = ask(asked)
    asked.learn(decision, 1.0, None)
    again.restore(asked.states())
    assert again.states() == asked.states()
    assert [key for key, _ in again.states()] == [("acme", "main", "model")]
    other = loop(options={"alpha": 0.5})
    with pytest.raises(PolicyError):
        other.restore(asked.states())
    with pytest.raises(PolicyError, match="unknown decision point"):
        Loop({}).restore(asked.states())
    assert other.states() == []


def test_the_fingerprint_follows_what_learning_depends_on():
    base = loop().fingerprint()
    assert loop("shadow", default="fast", randomised_share=0.5).fingerprint() == base
    assert loop(options={"alpha": 0.5}).fingerprint() != base
    assert loop(policy="fixed").fingerprint() != base
    changed = Loop({"model": PointOptions(mode="live")}, RewardOptions(latency_weight=0.2))
    assert changed.fingerprint() != base


@pytest.mark.parametrize(
    "options", [{"mode": "on"}, {"randomised_share": 1.5}, {"randomised_share": math.nan}, {"randomised_share": -0.1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(SettingsError, match=next(iter(options))):
        PointOptions(**options)


@pytest.mark.parametrize("point", ["", "model-shadow", "model-shadow-bold", "rollout"])
def test_names_that_would_collide_are_refused(point):
    with pytest.raises(SettingsError, match="decision point"):
        Loop({point: PointOptions()})


def test_unknown_policies_are_found_at_the_start():
    with pytest.raises(PolicyError, match="unknown policy 'none'"):
        loop(policy="none")


def test_threads_may_decide_while_another_learns():
    asked = loop()
    _, (decision,) = ask(asked)
    errors = []

    def work(number):
        try:
            for step in range(40):
                if number == 0:
                    asked.learn(decision, step / 40, None)
                else:
                    ask(asked, f"call_{number}_{step}")
        except Exception as exc:  # handed to the assertion below
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert asked.failures == {}
    assert {arm.observations for arm in asked.explain("model", ACME, {}, ACTIONS)} == {0, 40}


def shadowed(mode="live", **options):
    shadows = (ShadowOptions("bold", "fixed", {"action": "deep"}), ShadowOptions("twin", "linear_thompson"))
    return loop(mode, shadows=shadows, **options)


def test_shadow_policies_are_recorded_beside_the_one_that_acts():
    action, decisions = ask(shadowed())
    assert [(d.id, d.policy, d.live) for d in decisions] == [
        ("decision_0192-model", "linear_thompson@1", True),
        ("decision_0192-model-shadow-bold", "fixed@1", False),
        ("decision_0192-model-shadow-twin", "linear_thompson@1", False),
    ]
    assert action == decisions[0].action
    assert [d.extra.get("shadow") for d in decisions] == [None, "bold", "twin"]
    assert decisions[1].propensity in (0.99, 0.01)  # its own randomised share counts
    assert all(d.point == "model" and d.context == {"x": 0.5} for d in decisions)
    assert len(ask(shadowed("shadow"))[1]) == 4
    assert len(ask(shadowed("off"))[1]) == 1


def test_shadow_policies_throw_dice_of_their_own():
    """The same policy on the same call: were the dice the same, it would always agree with the live one.

    256 independent fair agreements; Hoeffding at 64: false alarm below 1e-13."""
    asked = shadowed()
    pairs = [ask(asked, f"call_{n}")[1] for n in range(256)]
    assert 64 < sum(live.action == twin.action for live, _, twin in pairs) < 192


def test_a_shadow_policy_that_breaks_costs_nothing():
    def make(name, options):
        policy = Stub()
        policy.answer = RuntimeError("oh") if options.get("bad") else policy.answer
        return policy

    shadows = (ShadowOptions("bad", "stub", {"bad": True}, randomised_share=0.0),)
    asked = loop(policy="stub", make=make, shadows=shadows, randomised_share=0.0)
    action, (live, shadow) = ask(asked)
    assert (action, live.action, shadow.action, shadow.fallback) == ("deep", "deep", "fast", "RuntimeError: oh")
    assert asked.failures == {"model-shadow-bad: RuntimeError": 1}


def test_each_place_learns_by_itself():
    asked = shadowed()
    _, (decision, *_) = ask(asked)
    assert asked.learn(decision, 1.0, None, "model-shadow-twin")
    assert [key for key, _ in asked.states()] == [("acme", "main", "model-shadow-twin")]
    own, twin = (asked.explain("model", ACME, {}, ACTIONS, shadow=name) for name in ("", "twin"))
    assert sum(arm.observations for arm in own) == 0
    assert sum(arm.observations for arm in twin) == 1
    with pytest.raises(PolicyError, match="no shadow policy 'none'"):
        asked.explain("model", ACME, {}, ACTIONS, shadow="none")
    again = shadowed()
    again.restore(asked.states())
    assert again.states() == asked.states()
    with pytest.raises(PolicyError, match="unknown decision point 'model-shadow-twin'"):
        loop().restore(asked.states())


def test_shadows_are_part_of_the_fingerprint():
    assert shadowed().fingerprint() != loop().fingerprint()
    assert shadowed("shadow").fingerprint() == shadowed().fingerprint()


@pytest.mark.parametrize("name", ["", "a b", "a-b", "x" * 41, "ünï", "a\n"])
def test_shadow_names_that_would_break_ids_are_refused(name):
    with pytest.raises(SettingsError, match="shadow policy"):
        ShadowOptions(name, "fixed")


def test_two_shadows_need_two_names_and_known_policies():
    with pytest.raises(SettingsError, match="name of its own"):
        PointOptions(shadows=(ShadowOptions("a", "fixed"), ShadowOptions("a", "threshold")))
    with pytest.raises(SettingsError, match="randomised_share is nan"):
        ShadowOptions("a", "fixed", randomised_share=math.nan)
    with pytest.raises(PolicyError, match="unknown policy 'none'"):
        loop(shadows=(ShadowOptions("a", "none"),))


def test_guards_hold_whatever_the_policy_and_the_dice_say():
    guards = (GuardOptions("allowed", {"allow": ["deep"]}),)
    asked = loop(policy="fixed", options={"action": "fast"}, randomised_share=1.0, guards=guards)
    taken = {ask(asked, f"call_{n}")[0] for n in range(100)}
    assert taken == {"deep"}
    with pytest.raises(PolicyError, match="unknown guard 'none'"):
        loop(guards=(GuardOptions("none"),))


def test_a_decided_mode_holds_for_its_scope_alone():
    asked = stubbed("shadow")
    asked.modes[("acme", "main", "model")] = "live"
    assert asked.mode("model", ACME) == "live"
    assert [d.live for d in ask(asked)[1]] == [True]
    for scope in (Scope("acme"), Scope()):
        assert asked.mode("model", scope) == "shadow"
        assert [d.live for d in ask(asked, scope=scope)[1]] == [True, False]
    assert asked.policy_id("model") == "stub@1"
    with pytest.raises(PolicyError, match="unknown decision point"):
        asked.mode("other", ACME)


def test_a_policy_can_be_replaced_by_what_it_was():
    asked, key = loop(), ("acme", "main", "model")
    _, (decision,) = ask(asked)
    asked.learn(decision, 1.0, None)
    ((_, kept),) = asked.states()
    asked.learn(decision, 0.0, 1.0)
    assert asked.states() != [(key, kept)]
    with pytest.raises(PolicyError):
        asked.replace(key, b"rubbish")
    with pytest.raises(PolicyError, match="unknown decision point"):
        asked.replace(("acme", "main", "other"), None)
    asked.replace(key, kept)
    assert asked.states() == [(key, kept)]
    asked.replace(key, None)
    assert asked.states() == []


@pytest.mark.parametrize("leaving", [SystemExit(3), GeneratorExit(), asyncio.CancelledError("policy")], ids=repr)
def test_a_policy_that_leaves_the_program_fails_no_call(leaving):
    """`sys.exit` in a plugin is no `Exception`; it must not end the server."""
    asked = stubbed(answer=leaving, lesson=leaving, account=leaving)
    action, (decision,) = ask(asked)
    assert (action, decision.propensity) == ("fast", 1.0)
    assert decision.fallback.startswith(type(leaving).__name__)
    assert not asked.learn(decision, 1.0, None)
    assert asked.explain("model", ACME, {}, ACTIONS) == ()
    assert asked.failures == {f"model: {type(leaving).__name__}": 3}


def test_who_interrupts_the_program_is_heard():
    with pytest.raises(KeyboardInterrupt):
        ask(stubbed(answer=KeyboardInterrupt()))


@pytest.mark.parametrize(
    "account",
    [
        *(RuntimeError("broken"), "words", 7, (), (None, None), [Arm("fast", None, None, 1.0, 0)]),
        [Arm("deep", None, None, 0.5, 0), Arm("fast", None, None, 0.5, 0)],
        [Arm("fast", math.nan, None, 0.5, 0), Arm("deep", None, None, 0.5, 0)],
        [Arm("fast", "much", None, 0.5, 0), Arm("deep", None, None, 0.5, 0)],
        [Arm("fast", None, None, None, 0), Arm("deep", None, None, 0.5, 0)],
    ],
    ids=repr,
)
def test_a_policy_that_cannot_explain_itself_breaks_no_page(account):
    asked = stubbed(account=account)
    assert asked.explain("model", ACME, {}, ACTIONS) == ()
    assert sum(asked.failures.values()) == 1
    with pytest.raises(PolicyError, match="unknown decision point"):
        asked.explain("modle", ACME, {}, ACTIONS)
    with pytest.raises(PolicyError, match="no eligible action"):
        asked.explain("model", ACME, {}, ())


@pytest.mark.parametrize("policy", ["linear_thompson", "ucb", "epsilon_greedy"])
def test_a_shadow_beside_a_policy_that_reads_prices_learns_none_of_them(policy):
    prices = {"cost_nusd:fast": 1e4, "cost_nusd:deep": 7e5, "allowance_nusd": 2e5, "objective:best": 1.0}
    shadow = ShadowOptions(name="beside", policy=policy)
    known = []
    for extra in ({}, prices):
        asked = loop(policy="joint_thompson", shadows=(shadow,))
        for number in range(30):
            context = {"x": number % 7 / 7.0, **{name: value * (1 + number % 3) for name, value in extra.items()}}
            _, (decision, *_) = ask(asked, call_id=f"call_{number}", context=context)
            taught = msgspec.structs.replace(decision, action=ACTIONS[number % 2])
            assert asked.learn(taught, 0.4 + 0.4 * (number % 2), None, "model-shadow-beside")
        known.append(asked.explain("model", ACME, {"x": 0.5, **extra}, ACTIONS, "beside"))
        assert asked.failures == {}
    assert known[0] == known[1]


def test_a_look_reads_the_policy_of_the_scope_alone():
    asked = loop()
    _, (decision,) = ask(asked)
    assert asked.learn(decision, 1.0, None)
    before = asked.states()
    own, other, again = (asked.look("model", scope, lambda policy: policy.state()) for scope in (ACME, Scope(), ACME))
    assert own == again == before[0][1]
    assert other != own
    assert asked.states() == before
    assert asked.failures == {}


def test_a_look_at_a_shadow_policy_is_one_at_its_place():
    asked = loop(shadows=(ShadowOptions(name="bold", policy="fixed", options={"action": "deep"}),))
    assert asked.look("model-shadow-bold", ACME, lambda policy: policy.name) == "fixed"
    for place in ("modle", "model-shadow-none", ""):
        with pytest.raises(PolicyError, match="unknown decision point"):
            asked.look(place, ACME, lambda policy: policy.name)


@pytest.mark.parametrize("raised", [RuntimeError("broken"), SystemExit(3)], ids=repr)
def test_a_look_that_fails_is_counted_and_says_nothing(raised):
    def view(policy):
        raise raised

    asked = loop()
    assert asked.look("model", ACME, view) is None
    assert asked.failures == {f"model: {type(raised).__name__}": 1}


def test_the_dice_are_those_of_a_generator_made_for_the_call():
    """Philox keyed by BLAKE2b of (policy id, place, call id), though one generator serves all calls."""
    dice = Dice()
    for call_id in ("call_1", "call_2", "call_1"):
        key = hashlib.blake2b(msgspec.msgpack.encode(("x@1", "model", call_id)), digest_size=16).digest()
        fresh = np.random.Generator(np.random.Philox(key=np.frombuffer(key, "<u8")))
        again = dice.keyed("x@1", "model", call_id)
        for draws in (lambda rng: rng.random(), lambda rng: rng.integers(7, dtype=np.uint32)):
            assert draws(again) == draws(fresh)
        np.testing.assert_array_equal(again.standard_normal(9), fresh.standard_normal(9))


def test_a_probability_may_wait_for_the_ledger():
    """With three actions nobody works it out on the way of the call; it is the true one all the same."""
    action, (decision,) = ask(loop(), actions=("fast", "deep", "slow"))
    assert type(decision.propensity) is Propensity
    assert float(decision.propensity) == pytest.approx(1 / 3, abs=1e-9)
    assert decode(encode(decision), Decision).propensity == float(decision.propensity)
    assert action in ("fast", "deep", "slow")


@pytest.mark.parametrize("mixed", [(0.5, 0.9), (-0.1, 1.0), (0.0, 0.0)])
def test_a_chance_that_might_be_none_is_looked_at_at_once(mixed):
    """A guard that mixes dishonestly: 0.5 + 0.9 p may be above 1, -0.1 + p below 0."""
    certain = Propensity([0.9, 0.1, 0.05], [0.1, 0.01, 0.01], 0).mixed(*mixed)
    _, (decision,) = ask(stubbed(answer=Choice("deep", certain, "")))
    assert decision.propensity in (1.0, float(certain))
    assert type(decision.propensity) is float
    assert 0.0 < decision.propensity <= 1.0
