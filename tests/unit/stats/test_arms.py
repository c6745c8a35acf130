"""Linear models by action: made when needed, counted, stored to the last bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.arms import LinearArms, StoredArm, StoredArms

X = np.array([1.0, 0.5])


@pytest.mark.parametrize("half_life", [0.0, 5.0])
def test_an_action_has_its_arm_from_its_first_value_on(half_life):
    arms = LinearArms(1.0, 0.1, half_life)
    with pytest.raises(ValueError, match="finite"):
        arms.observe("a", "k0", X, math.nan)
    assert (arms.observations, arms.widest, arms.stored().arms) == (0, 0, ())
    arms.observe("a", "k1", X, 1.0)
    arms.observe("a", "k2", X, 1.0)
    means, sds = arms.predict(("a", "b"), X)
    assert means[0] > 0.5 > means[1] == 0.0
    assert sds[0] < sds[1]
    assert [arms.observed(action) for action in "ab"] == [2, 0]
    assert (arms.observations, arms.widest) == (2, 2)


def test_the_memory_is_what_still_counts():
    keeping, fading = LinearArms(1.0, 0.1), LinearArms(1.0, 0.1, 4.0)
    for number in range(100):
        for arms in (keeping, fading):
            arms.observe("a", f"k{number}", X, 0.5)
    assert keeping.memory == 100.0
    assert fading.memory == pytest.approx(sum(0.5 ** (age / 4) for age in range(100)))


@pytest.mark.parametrize("half_life", [0.0, 3.0])
def test_stored_arms_are_restored_to_the_last_bit(half_life):
    arms, again = LinearArms(1.0, 0.1, half_life), LinearArms(1.0, 0.1, half_life)
    rng = np.random.default_rng(1)
    for number in range(70):
        arms.observe("abc"[number % 3], f"k{number}", rng.normal(size=2), float(rng.random()))
        if number < 60:
            arms.observe("old", f"old{number}", rng.normal(size=2), float(rng.random()))
    again.restore(arms.stored())
    assert again.stored() == arms.stored()
    np.testing.assert_array_equal(again.predict(("old", "a"), X), arms.predict(("old", "a"), X))
    for each in (arms, again):
        each.revise("a", "k69", X, 0.2, 0.9)
        each.observe("d", "new", np.ones(3), 0.4)
    assert again.stored() == arms.stored()
    np.testing.assert_array_equal(again.predict("abcd", np.ones(3)), arms.predict("abcd", np.ones(3)))


@pytest.mark.parametrize(
    "stored",
    [
        StoredArms((StoredArm("a", 1, b"abc", b""),)),
        StoredArms((StoredArm("a", -1, np.eye(1).tobytes(), np.zeros(1).tobytes()),)),
        StoredArms((StoredArm("a", 1, np.eye(1).tobytes(), np.zeros(1).tobytes(), 2),), b"12345678"),
        StoredArms((StoredArm("a", 1, np.eye(1).tobytes(), np.zeros(1).tobytes(), 1),)),
        StoredArms((StoredArm("a", 1, (np.eye(1) / 2).tobytes(), np.zeros(1).tobytes(), 1),), b"12345678"),
    ],
)
def test_what_cannot_have_been_stored_is_refused(stored):
    arms = LinearArms(1.0, 0.1, 3.0)
    arms.observe("z", "k", X, 0.5)
    before = arms.stored()
    with pytest.raises(ValueError):  # noqa: PT011  # each is refused for a reason of its own
        arms.restore(stored)
    assert arms.stored() == before
