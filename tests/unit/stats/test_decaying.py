"""Counts of calls that fade: weights, late ones, quantiles, and how strongly they speak against a limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.decaying import DecayingCalls, evidence

HOUR_S = 3600.0


def counted(*calls, half_life_s=HOUR_S):
    found = DecayingCalls(half_life_s)
    for at, took_ms, failed in calls:
        found.add(at, took_ms, failed=failed)
    return found


def test_a_call_counts_half_after_each_half_life():
    calls = counted((0.0, 100.0, False), (HOUR_S, 200.0, True))
    assert calls.calls(HOUR_S) == pytest.approx(1.5)
    assert calls.failures(HOUR_S) == pytest.approx(1.0)
    assert calls.calls(3 * HOUR_S) == pytest.approx(1.5 / 4)
    assert calls.late(150.0, HOUR_S) == pytest.approx(1.0)


def test_out_of_order_is_as_in_order():
    in_order = counted((0.0, 100.0, False), (60.0, 5_000.0, True), (HOUR_S, None, True))
    late = counted((HOUR_S, None, True), (0.0, 100.0, False), (60.0, 5_000.0, True))
    for q in (0.3, 0.9):
        assert late.quantile(q) == in_order.quantile(q)
    assert late.failures(HOUR_S) == pytest.approx(in_order.failures(HOUR_S), rel=1e-12)
    assert late.late(1_000.0, HOUR_S) == pytest.approx(in_order.late(1_000.0, HOUR_S), rel=1e-12)


def test_a_correction_is_as_if_the_first_word_had_been_right():
    told = counted((0.0, 100.0, False), (60.0, 9_000.0, False), (120.0, 300.0, False))
    told.revise(60.0, (50.0, True), (9_000.0, False))
    right = counted((0.0, 100.0, False), (60.0, 50.0, True), (120.0, 300.0, False))
    assert told.times == right.times
    assert (told.told, told.failed) == pytest.approx((right.told, right.failed))


def test_quantiles_are_those_of_the_numbers_to_one_percent():
    rng = np.random.default_rng(5)
    times = rng.lognormal(7.0, 1.0, 5_000)
    calls = counted(*((0.0, took, False) for took in times.tolist()))
    for q in (0.5, 0.9, 0.95, 0.99):
        assert calls.quantile(q) == pytest.approx(np.quantile(times, q, method="inverted_cdf"), rel=0.0101)
    assert calls.late(3_000.0, 0.0) == pytest.approx((times > 3_000.0).sum(), rel=0.05)
    assert calls.late(3_000.0, 0.0) <= (times > 3_000.0).sum()


def test_years_of_calls_neither_overflow_nor_grow():
    calls = DecayingCalls(60.0)
    rng = np.random.default_rng(6)
    for number in range(3_000):
        calls.add(number * 3_600.0, float(rng.lognormal(6.0, 2.0)), failed=False)
    assert calls.calls(calls.at) == pytest.approx(1.0, abs=1e-6)
    assert len(calls.times) < 5
    assert calls.calls(calls.at + 1e12) == 0.0
    calls.add(-1e15, 5.0, failed=False)
    assert math.isfinite(calls.told)


def test_two_percent_more_than_the_limit_is_in_time():
    calls = counted((0.0, 1_000.0, False))
    assert calls.late(999.99, 0.0) == 0.0
    assert calls.late(970.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("at", "took_ms"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, math.inf), (0.0, -1.0)]
)
def test_what_is_no_number_is_refused_and_leaves_no_trace(at, took_ms):
    calls = counted((0.0, 100.0, False))
    before = (calls.at, calls.told, calls.failed, dict(calls.times))
    with pytest.raises(ValueError, match="finite"):
        calls.add(at, took_ms, failed=True)
    with pytest.raises(ValueError, match="finite"):
        calls.revise(at, (took_ms, True), (100.0, False))
    assert (calls.at, calls.told, calls.failed, calls.times) == before


def test_stored_numbers_that_cannot_be_are_refused():
    calls = DecayingCalls(HOUR_S)
    for given in ((0.0, 0.0, -1.0, 0.0, {}), (math.nan, 0.0, 1.0, 0.0, {}), (0.0, 1.0, 1.0, 0.0, {3: 1.0})):
        with pytest.raises(ValueError, match="counts of calls"):
            calls.restored(*given)
    for bucket in (10**6, -(10**6)):
        with pytest.raises(ValueError, match="buckets"):
            calls.restored(0.0, 0.0, 1.0, 0.0, {bucket: 1.0})


def test_evidence_is_none_below_the_limit_and_grows_with_the_calls():
    assert evidence(0.0, 0.0, 0.05) == 0.0
    assert evidence(5.0, 100.0, 0.05) == 0.0
    assert 0.0 < evidence(8.0, 100.0, 0.05) < evidence(16.0, 200.0, 0.05) == pytest.approx(2 * evidence(8, 100, 0.05))
    assert evidence(1.0, 1.0, 0.05) == pytest.approx(math.log(20.0))


def test_an_action_at_its_limit_is_taken_for_a_bad_one_as_seldom_as_stated():
    """2,000 streams of 300 calls with fading weights, late with the very chance that is allowed: at confidence 0.9 no
    more than 10 % may cross. The bound is far from tight (about 2 % do), so this fails by chance below 1e-9."""
    rng = np.random.default_rng(7)
    weights = 0.5 ** (np.arange(300)[::-1] / 80.0)
    late = rng.random((2_000, 300)) < 0.05
    found = [evidence(float(row @ weights), float(weights.sum()), 0.05) for row in late]
    assert 0.0 < np.mean(np.array(found) > -math.log(0.1)) <= 0.1
