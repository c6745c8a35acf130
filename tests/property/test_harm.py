"""What holds for the harm clock whatever values come: without harm its wealth is worth 1 on average, exactly."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.stats.trials.harm import Harm

VALUES = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 1.0, 0.5, 5e-324]))
SHARES = st.one_of(st.floats(0.01, 0.5), st.floats(0.5, 0.99))
METRICS = st.tuples(st.sampled_from(["bounded", "ranked"]), st.sampled_from([-1, 1]))
CALLS = st.lists(st.tuples(VALUES, SHARES, st.none() | VALUES), min_size=1, max_size=6)


def mean_wealth(metric, margin, calls, harmed=lambda y: y):
    """Over all ways in which the coins can fall. calls: value, share, and what it is corrected to in the end."""
    total = []
    for coins in itertools.product((False, True), repeat=len(calls)):
        harm, told, chance = Harm(*metric, margin), [], 1.0
        for mine, (y, share, _) in zip(coins, calls, strict=True):
            chance *= share if mine else 1.0 - share
            told.append(harm.note_candidate(harmed(y), share) if mine else harm.note_baseline(y, share))
        for mine, compared, (_, _, corrected) in zip(coins, told, calls, strict=True):
            if corrected is not None:
                harm.correct(compared, harmed(corrected) if mine else corrected)
        total.append(chance * math.exp(harm.evidence()))
    return math.fsum(total)


@given(METRICS, CALLS)
def test_without_harm_the_mean_is_one_whatever_the_values_and_shares_are(metric, calls):
    """A value is the same whichever way the coin falls: exact, with drift, ties and corrections of both variants."""
    assert mean_wealth(metric, 0.0, calls) == pytest.approx(1.0, rel=1e-9)


@given(METRICS, st.floats(0.0, 0.9), CALLS)
def test_harm_up_to_the_margin_is_worth_no_more(metric, margin, calls):
    kind, sign = metric

    def harmed(y):
        if kind == "bounded":
            return min(max(y + sign * margin, 0.0), 1.0)
        return y * (1.0 + margin) ** sign * (1.0 - sign * 1e-12)

    assert mean_wealth(metric, margin, calls, harmed) <= 1.0 + 1e-9


@given(METRICS, st.floats(0.0, 0.9), st.lists(st.tuples(st.booleans(), VALUES, SHARES), max_size=30), st.randoms())
def test_the_order_in_which_values_are_put_right_changes_nothing(metric, margin, calls, rng):
    """Last values in force: as if they had been the first, where baselines are told rightly; stored at any moment."""
    once, late = Harm(*metric, margin), Harm(*metric, margin)
    told = []
    for mine, y, share in calls:
        (once.note_candidate if mine else once.note_baseline)(y, share)
        told.append(late.note_candidate(rng.random(), share) if mine else late.note_baseline(y, share))
        assert told[-1].bet >= -1.0 - 1e-12
    turns = [n for n, (mine, _, _) in enumerate(calls) if mine for _ in range(3)]
    rng.shuffle(turns)
    last = {n: turn for turn, n in enumerate(turns)}
    for turn, n in enumerate(turns):
        told[n] = late.correct(told[n], calls[n][1] if last[n] == turn else rng.random())
    assert late.wealth.logs == pytest.approx(once.wealth.logs, rel=1e-9, abs=1e-9)
    assert late.wealth.sound()
    stored = msgspec.msgpack.encode(late)
    restored = msgspec.msgpack.decode(stored, type=Harm)
    assert restored == late
    assert msgspec.msgpack.encode(restored) == stored
