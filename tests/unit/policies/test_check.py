"""Each way of breaking the contract is found, and named in words."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.check import check_policy
from windlass.policies.linear import LinearThompson
from windlass.policies.split import Split, SplitOptions

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
