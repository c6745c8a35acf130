"""The guard `personal`: users who differ get what they like, users who do not get what all get, none is remembered."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.ledger.ledger import Entry
from windlass.policies import registry
from windlass.policies.check import check_policy
from windlass.policies.lifts import LIFT, USER
from windlass.policies.loop import Loop
from windlass.policies.personal import Personal, PersonalOptions
from windlass.policies.personal_state import number_of, without
from windlass.policies.points import GuardOptions, PointOptions
from windlass.policies.policy import Arm, Choice, evenly, guards_of, require
from windlass.policies.replay import Learner, erased
from windlass.records import Call, Erasure, Feedback, Outcome, Scope, user_digest

ACTIONS = ("a", "b", "c")


class Open:
    """Takes the best by what it expects, which is the same of all, lifts added."""

    name, version = "open", 1

    def expected(self, context, action):
        return 0.6

    def probabilities(self, context, actions):
        require(actions)
        means = np.array([arm.mean for arm in self._arms(context, actions)])
        return evenly(means == means.max())

    def choose(self, context, actions, rng):
        chances = self.probabilities(context, actions)
        place = int(rng.choice(len(actions), p=chances))
        return Choice(actions[place], float(chances[place]), "open")

    def learn(self, decision, reward, previous):
        if not math.isfinite(reward) or not (previous is None or math.isfinite(previous)):
            raise ValueError(f"reward {reward}")

    def state(self):
        return b"\x90"

    def restore(self, state):
        if state != b"\x90":
            raise PolicyError("no state of open")

    def explain(self, context, actions):
        chances = self.probabilities(context, actions).tolist()
        return tuple(
            msgspec.structs.replace(arm, probability=p)
            for arm, p in zip(self._arms(context, actions), chances, strict=True)
        )

    def _arms(self, context, actions):
        return [Arm(action, 0.6 + context.get(f"{LIFT}{action}", 0.0), 0.1, 0.0, 0) for action in actions]


def taught(policy, decided, *, taste, users=40, rounds=30, seed=1, kindness=0.1):
    """Rewards of users who rate at random; returns the taste of each user about each action."""
    rng = np.random.default_rng(seed)
    own, kindly = rng.normal(0, taste, (users, 3)), rng.normal(0, kindness, users)
    for number in range(users * rounds):
        user, place = int(rng.integers(users)), int(rng.integers(3))
        reward = float(0.6 + kindly[user] + own[user, place] + rng.normal(0, 0.2))
        policy.learn(
            decided(ACTIONS[place], {USER: user + 1.0}, id=f"decision_{number}", actions=ACTIONS), reward, None
        )
    return own


def lifts(policy, user):
    return policy.lifts({USER: user + 1.0})


def test_users_who_differ_get_what_they_like_best(decided):
    policy = Personal(Open())
    own = taught(policy, decided, taste=0.2)
    found = np.array([[lifts(policy, user).get(action, 0.0) for action in ACTIONS] for user in range(40)])
    assert np.corrcoef(found.ravel(), (own - own.mean(axis=1, keepdims=True)).ravel())[0, 1] > 0.75
    gained = own[np.arange(40), found.argmax(axis=1)].mean()
    assert gained > 0.7 * own.max(axis=1).mean() > 0.0
    user = int(np.abs(found).max(axis=1).argmax())
    choice = policy.choose({USER: user + 1.0}, ACTIONS, np.random.default_rng(0))
    assert choice.action == ACTIONS[found[user].argmax()]
    assert choice.why.startswith("open; for this user ")


def test_users_who_do_not_differ_are_treated_alike(decided):
    policy = Personal(Open())
    taught(policy, decided, taste=0.0, kindness=0.3)
    assert all(lifts(policy, user) == {} for user in range(40))


@pytest.mark.parametrize("user", [-1.0, 0.0, math.nan, math.inf, 2.0**60, (1.0,), "1", None])
def test_what_is_no_user_learns_and_lifts_nothing(decided, user):
    policy = Personal(Open())
    taught(policy, decided, taste=0.3, rounds=5)
    before = policy.state()
    policy.learn(decided("a", {USER: user}, id="decision_x"), 0.9, None)
    assert policy.state() == before
    assert policy.choose({USER: user}, ACTIONS, np.random.default_rng(0)).why == "open"


def test_somebody_unknown_gets_what_all_get(decided):
    policy = Personal(Open())
    taught(policy, decided, taste=0.3)
    assert policy.lifts({USER: 999.0}) == {}
    assert policy.lifts({}) == {}


def test_a_correction_is_as_if_the_first_word_had_been_right(decided):
    told, right = Personal(Open()), Personal(Open())
    for policy in (told, right):
        taught(policy, decided, taste=0.2, rounds=10)
    one = decided("a", {USER: 3.0}, id="decision_x", actions=ACTIONS)
    told.learn(one, 0.1, None)
    told.learn(one, 0.9, 0.1)
    right.learn(one, 0.9, None)
    for policy in (told, right):
        taught(policy, decided, taste=0.2, rounds=10, seed=2)
    for user in range(40):
        assert lifts(told, user) == pytest.approx(lifts(right, user), rel=1e-9)


def test_a_correction_of_what_is_no_more_known_changes_nothing(decided):
    policy = Personal(Open())
    taught(policy, decided, taste=0.2, rounds=10)
    one = decided("a", {USER: 3.0}, id="decision_x", actions=ACTIONS)
    policy.learn(one, 0.1, None)
    policy.forget(3)
    policy.learn(decided("a", {USER: 3.0}, id="decision_y", actions=ACTIONS), 0.5, None)
    before = policy.state()
    policy.learn(one, 0.9, 0.1)
    policy.learn(decided("b", {USER: 5.0}, id="decision_never", actions=ACTIONS), 0.9, 0.1)
    assert policy.state() == before


def test_the_state_is_taken_over_bit_by_bit(decided):
    policy, other = Personal(Open()), Personal(Open())
    taught(policy, decided, taste=0.2, rounds=20)
    policy.forget(7)
    other.restore(policy.state())
    for one in (policy, other):
        taught(one, decided, taste=0.2, rounds=20, users=60, seed=2)
    assert other.state() == policy.state()
    for user in range(60):
        assert lifts(other, user) == lifts(policy, user)


def test_those_heard_of_least_lately_go_and_memory_is_bounded(decided):
    policy = Personal(Open(), PersonalOptions(users=50))
    for number in range(20_000):
        decision = decided(f"m{number % 70}", {USER: 1.0 + number % 3_001}, id=f"decision_{number}")
        policy.learn(decision, 0.5 + 0.3 * (number % 2), None)
    assert policy.users == 50
    assert len(policy.state()) < 400_000
    assert policy._sums.nbytes <= 3 * 8 * 18_432
    assert 1 + 19_999 % 3_001 in policy._rows


def test_a_forgotten_user_leaves_no_byte(decided):
    policy = Personal(Open())
    taught(policy, decided, taste=0.3)
    user = number_of(user_digest(Scope(), "ann"))
    for number in range(40):
        policy.learn(decided("a", {USER: float(user)}, id=f"decision_ann_{number}", actions=ACTIONS), 1.0, None)
    mark = msgspec.msgpack.encode(user)
    kept = policy.state()
    assert mark in kept
    assert policy.lifts({USER: float(user)})["a"] > 0.0
    policy.forget(user)
    assert mark not in policy.state()
    assert policy.lifts({USER: float(user)}) == {}
    assert mark not in without(kept, user)
    other = Personal(Open())
    other.restore(without(kept, user))
    assert other.state() == policy.state()
    assert without(kept, 12_345) == kept


def test_a_kept_state_is_stripped_whatever_is_around_it(decided):
    policy = registry.guarded(Open(), [("floor", {"reference": "a"}), ("service", {}), ("personal", {})], 0.02)
    *_, guard = guards_of(policy)
    taught(guard, decided, taste=0.3, rounds=5)
    kept, mark = policy.state(), msgspec.msgpack.encode((3, guard._rows[3].since))
    assert mark in kept
    stripped = without(kept, 3)
    assert mark not in stripped
    guard.forget(3)
    policy.restore(stripped)
    assert policy.state() == stripped
    assert 3 not in guard._rows
    for other in (b"", b"\xc1", b"\x90", registry.make("linear_thompson", {}).state()):
        assert without(other, 3) == other


def test_a_state_that_cannot_be_is_refused_and_leaves_no_trace(decided):
    policy = Personal(Open())
    taught(policy, decided, taste=0.2, rounds=5)
    before = policy.state()
    parts = msgspec.msgpack.decode(before)
    damaged = [
        Personal(Open(), PersonalOptions(users=9)).state(), b"", b"\x90", before[:-3],
        *(msgspec.msgpack.encode([*parts[:place], value, *parts[place + 1 :]]) for place, value in (
            (6, parts[6][:-8]), (6, b"\xff" * len(parts[6])), (3, parts[3] * 2), (5, [*parts[5][:-1], parts[5][0]]),
            (8, [math.nan, 0.0, 0.0]),
        )),
    ]  # fmt: skip
    for state in damaged:
        with pytest.raises(PolicyError):
            policy.restore(state)
        assert policy.state() == before


def test_choosing_changes_nothing_and_is_honest(decided):
    policy = Personal(Open())
    taught(policy, decided, taste=0.3)
    before, context = policy.state(), {USER: 5.0}
    chances = policy.probabilities(context, ACTIONS)
    for seed in range(20):
        choice = policy.choose(context, ACTIONS, np.random.default_rng(seed))
        assert choice.propensity == chances[ACTIONS.index(choice.action)]
    assert [arm.probability for arm in policy.explain(context, ACTIONS)] == chances.tolist()
    assert policy.state() == before


def test_it_keeps_the_contract():
    check_policy(lambda: Personal(Open()), 2_000)
    check_policy(lambda: registry.guarded(registry.make("linear_thompson", {}), [("personal", {})], 0.1), 2_000)


@pytest.mark.parametrize("users", [0, 2_049, -1])
def test_options_out_of_range_are_refused(users):
    with pytest.raises(PolicyError, match="personal: users is"):
        PersonalOptions(users)


class TestInTheFold:
    """Through the learner: what is asked of it when somebody is forgotten."""

    def learner(self):
        point = PointOptions(mode="live", policy="open", guards=(GuardOptions("personal"),), randomised_share=0.0)
        make = lambda name, options: Open() if name == "open" else registry.make(name, options)  # noqa: E731
        return Learner(Loop({"model": point}, make=make), 10_000)

    def told(self, learner, tenant="acme"):
        seq, rng = learner.cursor, np.random.default_rng(9)
        for number in range(900):
            user, action = f"user{number % 30}", ACTIONS[int(rng.integers(3))]
            owner = {"tenant": tenant, "workspace": "main"}
            call = f"call_{tenant}{number}"
            scope = Scope(tenant, "main")
            who = {USER: float(number_of(user_digest(scope, user)))}
            _, (made, *_) = learner.loop.decide(
                "model", call_id=call, at=1.0, scope=scope, context=who, actions=(action,), featuriser="x@1"
            )
            value = 0.9 if (number % 30) % 3 == ACTIONS.index(action) else 0.3
            records = (
                Call(id=call, at=1.0, endpoint="chat", model="auto", user=user, **owner),
                made,
                Outcome(id=f"outcome_{call}", at=2.0, call=call, model=action, provider="p", status=200, latency_ms=1.0,
                        first_byte_ms=1.0, prompt_tokens=1, completion_tokens=1, cost_nusd=1, **owner),
                Feedback(id=f"feedback_{call}", at=3.0, target=call, kind="rating", source="user",
                         value=value + 0.05 * float(rng.random()), **owner),
            )  # fmt: skip
            learner.fold(*(Entry(seq + place, record) for place, record in enumerate(records, 1)))
            seq += len(records)
        return seq

    def guard(self, learner, tenant="acme"):
        *_, found = guards_of(learner.loop._learned[tenant, "main", "model"])
        return found

    def test_somebody_who_is_forgotten_is_forgotten_by_the_policy_and_by_every_snapshot(self):
        learner = self.learner()
        self.told(learner)
        seq = self.told(learner, "globex")
        digest = user_digest(Scope("acme", "main"), "user4")
        user, kept = number_of(digest), learner.state()
        mark = msgspec.msgpack.encode(user)
        assert mark in kept
        assert self.guard(learner).lifts({USER: float(user)})[ACTIONS[1]] > 0.1
        others = self.guard(learner, "globex").state()
        erasure = Erasure(id="erasure_1", at=9.0, tenant="acme", workspace="main", user=digest)
        learner.fold(Entry(seq + 1, erasure))
        assert mark not in learner.state()
        assert self.guard(learner, "globex").state() == others
        stripped = erased(kept, erasure)
        assert mark not in stripped
        fresh = self.learner()
        fresh.restore(stripped)
        assert self.guard(fresh).state() == self.guard(learner).state()

    def test_what_is_replayed_from_a_stripped_snapshot_is_what_was_learned(self):
        learner = self.learner()
        seq = self.told(learner)
        digest = user_digest(Scope("acme", "main"), "user4")
        erasure = Erasure(id="erasure_1", at=9.0, tenant="acme", workspace="main", user=digest)
        kept, said = learner.state(), []
        for number in range(805, 809):
            call, who = f"call_acme{number}", {"tenant": "acme", "workspace": "main"}
            said.append(
                Feedback(id=f"again_{call}", at=8.0, target=call, kind="rating", source="user", value=0.5, **who)
            )
        rest = [Entry(seq + place, record) for place, record in enumerate((*said, erasure), 1)]
        learner.fold(*rest)
        fresh = self.learner()
        fresh.restore(erased(kept, erasure))
        fresh.fold(*rest)
        assert fresh.digest() == learner.digest()

    def test_each_of_several_guards_forgets(self):
        guards = (GuardOptions("personal"), GuardOptions("personal", {"users": 100}))
        point = PointOptions(mode="live", policy="open", guards=guards, randomised_share=0.0)
        make = lambda name, options: Open() if name == "open" else registry.make(name, options)  # noqa: E731
        learner = Learner(Loop({"model": point}, make=make), 10_000)
        seq, scope = self.told(learner), Scope("acme", "main")
        digest = user_digest(scope, "user4")
        kept, mark = learner.state(), msgspec.msgpack.encode(number_of(digest))
        erasure = Erasure(id="erasure_1", at=9.0, tenant="acme", workspace="main", user=digest)
        assert mark in kept
        assert mark not in erased(kept, erasure)
        learner.fold(Entry(seq + 1, erasure))
        assert mark not in learner.state()

    def test_an_erasure_of_what_is_no_digest_breaks_nothing(self):
        learner = self.learner()
        seq = self.told(learner)
        before = self.guard(learner).state()
        learner.fold(Entry(seq + 1, Erasure(id="erasure_1", at=9.0, tenant="acme", workspace="main", user="not hex")))
        assert self.guard(learner).state() == before
