"""Each way of breaking the contract is found, and named in words."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.check import PROMISES, check_policy
from windlass.policies.linear import LinearThompson
from windlass.policies.policy import require
from windlass.policies.split import Split, SplitOptions
from windlass.policies.witness import PromiseBroken

COUNTER = itertools.count()


class Shares(Split):
    """An honest base that is fast to check."""

    def __init__(self):
        super().__init__(SplitOptions(shares={"alpha": 5.0, "beta": 3.0, "gamma": 2.0}))


class Dishonest(Shares):
    """Draws uniformly, records its shares."""

    def choose(self, context, actions, rng):
        action = actions[int(rng.integers(len(actions)))]
        return msgspec.structs.replace(
            super().choose(context, actions, rng),
            action=action,
            propensity=float(self.probabilities(context, actions)[actions.index(action)]),
        )


class Overconfident(Shares):
    def choose(self, context, actions, rng):
        return msgspec.structs.replace(super().choose(context, actions, rng), propensity=0.9)


class Impossible(Shares):
    def choose(self, context, actions, rng):
        return msgspec.structs.replace(super().choose(context, actions, rng), propensity=0.0)


class Elsewhere(Shares):
    def choose(self, context, actions, rng):
        return msgspec.structs.replace(super().choose(context, actions, rng), action="delta")


class Unnormalised(Shares):
    def probabilities(self, context, actions):
        return super().probabilities(context, actions) * 1.01


class Negative(Shares):
    def probabilities(self, context, actions):
        found = super().probabilities(context, actions)
        return found if len(found) == 1 else found + np.array([1.0, -1.0] + [0.0] * (len(found) - 2))


class Mute(Shares):
    def explain(self, context, actions):
        return super().explain(context, actions)[:-1]


class Misleading(Shares):
    def explain(self, context, actions):
        return tuple(msgspec.structs.replace(arm, probability=0.3) for arm in super().explain(context, actions))


class Restless(Shares):
    """Choosing moves the state."""

    chosen = 0

    def choose(self, context, actions, rng):
        self.chosen += 1
        return super().choose(context, actions, rng)

    def state(self):
        return super().state() + bytes([self.chosen % 251])


class Unlike(Shares):
    def __init__(self):
        super().__init__()
        self.number = next(COUNTER)

    def state(self):
        return super().state() + str(self.number).encode()


class Willing(Shares):
    def probabilities(self, context, actions):
        return super().probabilities(context, actions) if actions else np.zeros(0)


class Swallowing(Shares):
    def learn(self, decision, reward, previous):
        pass


class Trusting(Shares):
    def restore(self, state):
        pass


class Moody(Shares):
    """Its generator is not the one it is handed."""

    own = np.random.default_rng(5)

    def choose(self, context, actions, rng):
        return super().choose(context, actions, self.own)


class Adding(LinearThompson):
    """A corrected reward counts twice."""

    def learn(self, decision, reward, previous):
        super().learn(decision, reward, None)


class Fading(LinearThompson):
    """A corrected reward counts like a new one where others came between."""

    last = ""

    def learn(self, decision, reward, previous):
        super().learn(decision, reward, previous if decision.id == self.last else None)
        self.last = decision.id


class Tracing(LinearThompson):
    """A refused reward leaves a feature behind."""

    def learn(self, decision, reward, previous):
        self._features.learn(decision.context)
        super().learn(decision, reward, previous)


class Forgetful(LinearThompson):
    def restore(self, state):
        super().restore(state)
        self._arms._arms.pop("gamma", None)


class Blind(LinearThompson):
    """A copy that looks the same and chooses otherwise."""

    def restore(self, state):
        super().restore(state)
        self.restored = True

    def probabilities(self, context, actions):
        found = super().probabilities(context, actions)
        return found[::-1].copy() if hasattr(self, "restored") else found


class Naive(Shares):
    """Believes its context."""

    def probabilities(self, context, actions):
        found = super().probabilities(context, actions)
        return found + context["length"] - context["length"] if "length" in context else found


class Tiring(Shares):
    """Wears out with every reward."""

    learned = 0

    def learn(self, decision, reward, previous):
        super().learn(decision, reward, previous)
        self.learned += 1

    def probabilities(self, context, actions):
        found = super().probabilities(context, actions)
        return found * math.nan if self.learned > 1_500 else found


def test_an_honest_policy_passes():
    check_policy(Shares)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Dishonest, "propensity is not honest"),
        (Overconfident, "its probability is"),
        (Impossible, "with propensity 0.0"),
        (Elsewhere, "chose 'delta', which is not one of"),
        (Unnormalised, "their sum 1"),
        (Negative, r"probabilities \[ 1.5 -0.7"),
        (Mute, "explain names"),
        (Misleading, "explain says"),
        (Restless, "choosing changed the state"),
        (Unlike, "different states"),
        (Moody, "same generator and state gave different choices"),
        (Willing, "no actions gave a distribution"),
        (Swallowing, "reward nan was learned"),
        (Trusting, "was restored"),
        (Tracing, "a refused reward changed the state"),
        (Adding, "a replaced reward left"),
        (Fading, "a replaced reward left"),
        (Forgetful, "restored state differs 0 rewards after"),
        (Blind, "a restored policy has other probabilities"),
        (Naive, r"probabilities \[nan"),
        (Tiring, r"probabilities \[nan"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_broken_policy_is_named(broken, words):
    with pytest.raises(PolicyError, match=words):
        check_policy(broken)


# --- what a policy raises by mistake is told as the promise that it broke


class Nameless:
    """Nothing of the contract but the name."""

    name, version = "nameless", 1


class Listed(Shares):
    def probabilities(self, context, actions):
        return list(super().probabilities(context, actions))


class Paired(Shares):
    def choose(self, context, actions, rng):
        return "alpha", 0.5


class Wordy(Shares):
    def choose(self, context, actions, rng):
        return msgspec.structs.replace(super().choose(context, actions, rng), propensity="half")


class Texted(Shares):
    def state(self):
        return "state"


class Silent(Shares):
    def explain(self, context, actions):
        return None


class Unreadable:
    def __repr__(self):
        raise RuntimeError("no words")


class Opaque(Shares):
    def explain(self, context, actions):
        return (Unreadable(),)


class Endless(Shares):
    def explain(self, context, actions):
        return tuple(msgspec.structs.replace(arm, mean=math.nan) for arm in super().explain(context, actions))


class Fragile(Shares):
    """Needs a feature that not every context has."""

    def probabilities(self, context, actions):
        require(actions)
        context["length"]
        return super().probabilities(context, actions)


class Picky(Shares):
    """Refuses a context in our own words, which is no way to keep a promise either."""

    def probabilities(self, context, actions):
        if not context:
            raise PolicyError("an empty context")
        return super().probabilities(context, actions)


class Mistyped(Shares):
    def learn(self, decision, reward, previous):
        if not math.isfinite(reward):
            raise TypeError("no such reward")


class Unrestored(Shares):
    def restore(self, state):
        if state != self.state():
            raise KeyError("magic")


class Leaving(Shares):
    def choose(self, context, actions, rng):
        raise SystemExit(3)


class Fractional(Shares):
    version = 1.5


def no_policy():
    return None


def failing_maker():
    return {}["temperature"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Nameless, "distribution: a Nameless has no probabilities, choose, learn, state, restore, explain; "),
        (no_policy, "distribution: a NoneType has no name, version, "),
        (failing_maker, "distribution: asked the maker, it raised KeyError: 'temperature'; "),
        (Fractional, "version is 1.5, which is no whole number"),
        (Listed, r"distribution: probabilities gave \[.*\], which is no numpy array; probabilities sum to 1"),
        (Paired, r"determinism: choose gave \('alpha', 0.5\), which is no Choice; "),
        (Wordy, "determinism: choose gave the propensity 'half', which is no number; "),
        (Texted, "determinism: state gave 'state', which is no bytes; "),
        (Silent, "distribution: explain gave None, which are no Arms; "),
        (Opaque, "distribution: explain gave <tuple whose repr raises RuntimeError>, which are no Arms; "),
        (Endless, "distribution: explain gave Arm.*, which holds what is no finite number; "),
        (
            Fragile,
            r"contexts: asked probabilities\(\{\}, \('alpha', .*\)\), it raised KeyError: 'length'; a context may",
        ),
        (Picky, r"contexts: asked probabilities\(\{\}, .*\), it raised PolicyError: an empty context; a context may"),
        (
            Mistyped,
            r"refusals: asked learn\(<decision for 'alpha' .*>, nan, None\), it raised TypeError: no such reward; "
            "raise PolicyError for no actions, ValueError for a reward",
        ),
        (Unrestored, r"state: asked restore\(b''\), it raised KeyError: 'magic'; restore takes what state gave"),
        (Leaving, r"determinism: asked choose\(.*, rng\), it raised SystemExit: 3; "),
    ],
)
def test_a_mistake_is_told_as_the_promise_that_it_breaks(broken, words):
    with pytest.raises(PromiseBroken, match=f"^{words}" if ": " in words else words):
        check_policy(broken)


def test_who_interrupts_is_heard():
    class Interrupted(Shares):
        def choose(self, context, actions, rng):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_policy(Interrupted)


def test_the_page_lists_every_promise():
    page = (Path(__file__).parents[3] / "docs" / "howto" / "own-policy.md").read_text()
    for name in (*(promise.name for promise in PROMISES), "propensities"):
        assert f"| {name} |" in page, f"docs/howto/own-policy.md lacks the promise {name!r}"
