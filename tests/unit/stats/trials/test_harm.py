"""The harm clock: what it finds, what it leaves alone, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from windlass.stats.confseq import even
from windlass.stats.trials.harm import Bet, Harm

Draw = Callable[[np.random.Generator, int], float]
"""A value of the call with this number."""


def candidates_until(
    harm: Harm, rng: np.random.Generator, baseline: Draw, candidate: Draw, *, share: float, calls: int, alpha: float
) -> int:
    """Values of the candidate until the alarm; 0 where there was none."""
    for number in range(calls):
        if rng.random() < share:
            harm.note_candidate(candidate(rng, number), share)
        else:
            harm.note_baseline(baseline(rng, number), share)
        if harm.alarmed(alpha):
            return harm.candidates
    return 0


def noted(harm: Harm, values: list[tuple[bool, float]], share: float = 0.25) -> list[Bet]:
    return [harm.note_candidate(y, share) if mine else harm.note_baseline(y, share) for mine, y in values]


def mixed(seed: int, n: int = 200) -> list[tuple[bool, float]]:
    rng = np.random.default_rng(seed)
    return [(bool(rng.random() < 0.25), float(rng.random())) for _ in range(n)]


@pytest.mark.parametrize(
    ("kind", "sign", "worse"), [("bounded", 1, 0.9), ("bounded", -1, 0.1), ("ranked", 1, 90.0), ("ranked", -1, 0.01)]
)
def test_what_is_worse_is_found_and_what_is_better_is_not(kind: str, sign: int, worse: float) -> None:
    """One call in four is the candidate's, and plainly worse, or plainly better."""
    for y, found in ((worse, True), ({0.9: 0.1, 0.1: 0.9, 90.0: 0.01, 0.01: 90.0}[worse], False)):
        harm = Harm(kind, sign)
        for _ in range(30):
            noted(harm, [(False, 0.5), (False, 0.6), (False, 0.4), (True, y)])
        assert harm.alarmed(0.01) is found
        assert (harm.evidence() > 0.0) is found
        assert (harm.candidates, harm.baselines) == (30, 90)


def test_the_numbers_that_are_bet() -> None:
    """By hand: the mean of the first guess 0.5 and of 0.8; the block of two values; a share of 1 / 5."""
    harm = Harm("bounded", -1)
    harm.note_baseline(0.8, 0.2)
    assert harm.mean == pytest.approx(0.65)
    # The candidate is at most 0.35 better; a baseline's value says 0.25 x 0.65 at worst.
    assert harm.note_candidate(0.25, 0.2).bet == pytest.approx(0.4 / 0.35)
    assert harm.note_baseline(0.0, 0.2).bet == pytest.approx(-0.25 * 0.65 / 0.35)
    ranks = Harm("ranked", 1)
    assert ranks.note_candidate(5.0, 0.2).bet == 0.0
    noted(ranks, [(False, 3.0), (False, 1.0)])
    assert ranks.block == (1.0, 3.0)
    assert [ranks.note_candidate(y, 0.2).bet for y in (0.5, 1.0, 2.0, 3.0, 4.0)] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert ranks.note_candidate(4.0, 0.75).bet == pytest.approx(1.0 / 3.0)
    assert ranks.note_baseline(4.0, 0.75).bet == -1.0
    assert ranks.note_baseline(4.0, 0.2).bet == -0.25


def test_blocks_are_of_the_newest_values() -> None:
    harm = Harm("ranked", 1)
    noted(harm, [(False, float(y)) for y in range(40)])
    assert harm.block == tuple(float(y) for y in range(16, 32))
    assert harm.recent == [float(y) for y in range(32, 40)]


def healthy(rng: np.random.Generator, _number: int) -> float:
    return float(rng.random() < 0.8)


def falling(rng: np.random.Generator, number: int) -> float:
    return float(rng.random() < 0.95 - number / 1_250.0)


def growing(rng: np.random.Generator, number: int) -> float:
    """Milliseconds with a tail so heavy that they have no mean, six times as long in the end."""
    return float((1.0 + number / 200.0) * rng.pareto(0.9))


@pytest.mark.parametrize(
    ("kind", "sign", "draw"), [("bounded", -1, healthy), ("bounded", -1, falling), ("ranked", 1, growing)]
)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.8])
def test_false_alarms_are_as_seldom_as_promised(kind: str, sign: int, draw: Draw, share: float) -> None:
    """150 experiments of 1,000 calls, looked at after each, at alpha 0.05: more than 17 alarms have a chance below
    1e-3 at most; the seed is fixed. Where everything falls, or grows, too."""
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(150):
        harm = Harm(kind, sign)
        alarms += candidates_until(harm, rng, draw, draw, share=share, calls=1_000, alpha=0.05) > 0
    assert alarms <= 17


def test_false_alarms_with_corrections_are_as_seldom() -> None:
    """As above, and a third of the values are told wrongly first, whichever variant they are of."""
    rng = np.random.default_rng(12)
    alarms = 0
    for _ in range(150):
        harm, alarmed, wrong = Harm("bounded", -1), False, list[tuple[Bet, float]]()
        for number in range(1_000):
            compared = noted(harm, [(bool(rng.random() < 0.1), healthy(rng, number))], 0.1)[0]
            if rng.random() < 1.0 / 3.0:
                wrong.append((compared, healthy(rng, number)))
            if len(wrong) > 20:
                harm.correct(*wrong.pop(int(rng.integers(len(wrong)))))
            alarmed = alarmed or harm.alarmed(0.05)
        alarms += alarmed
    assert alarms <= 17


def test_harm_is_found_soon() -> None:
    """Errors of 0.2 instead of 0.01 at a tenth of the calls, 40 experiments: half of them end within 60 of these."""
    rng = np.random.default_rng(13)
    after = [
        candidates_until(
            Harm("bounded", 1),
            rng,
            lambda r, _: float(r.random() < 0.01),
            lambda r, _: float(r.random() < 0.2),
            share=0.1,
            calls=10_000,
            alpha=0.01,
        )
        for _ in range(40)
    ]
    assert all(after)
    assert 5 <= np.median(after) <= 60


@pytest.mark.parametrize(("kind", "sign"), [("bounded", 1), ("bounded", -1), ("ranked", 1), ("ranked", -1)])
def test_harm_up_to_the_margin_is_accepted(kind: str, sign: int) -> None:
    """The candidate is worse by 0.05, or by a twentieth, at every call: with that margin it is no harm, with a smaller
    one it is found."""
    for margin, found in ((0.0501, False), (0.01, True)):
        harm = Harm(kind, sign, margin)
        for _ in range(2_000):
            y = 0.5 + sign * 0.05 if kind == "bounded" else 100.0 * 1.05**sign
            noted(harm, [(False, 0.5 if kind == "bounded" else 100.0)] * 3 + [(True, y)])
        assert harm.alarmed(0.01) is found


@pytest.mark.parametrize(("kind", "sign"), [("bounded", -1), ("ranked", 1)])
def test_a_corrected_value_counts_as_if_it_had_been_the_first(kind: str, sign: int) -> None:
    values = mixed(3)
    once, corrected = Harm(kind, sign), Harm(kind, sign)
    noted(once, values)
    wrong = [(mine, 1.0 - y if mine else y) for mine, y in values]
    for compared, (mine, y) in zip(noted(corrected, wrong), values, strict=True):
        if mine:
            corrected.correct(corrected.correct(compared, 0.3), y)
    assert corrected.wealth.logs == pytest.approx(once.wealth.logs, abs=1e-9)
    assert (corrected.candidates, corrected.baselines) == (once.candidates, once.baselines)


def test_a_correction_can_raise_an_alarm_and_take_it_away() -> None:
    harm = Harm("bounded", -1)
    noted(harm, [(False, 1.0)] * 50)
    told = noted(harm, [(True, 1.0)] * 30)
    assert not harm.alarmed(0.01)
    told = [harm.correct(compared, 0.0) for compared in told]
    assert harm.alarmed(0.01)
    for compared in told:
        harm.correct(compared, 1.0)
    assert not harm.alarmed(0.01)


def test_a_corrected_value_of_the_baseline_leaves_what_it_was_compared_with() -> None:
    """Its own bet is made anew; yardsticks that it had a part in stay, later ones too."""
    harm = Harm("bounded", -1)
    first, *_ = noted(harm, [(False, 0.0), (True, 0.5), (False, 1.0), (True, 0.5)])
    before, mean = harm.evidence(), harm.mean
    again = harm.correct(first, 1.0)
    assert harm.mean == mean
    assert again.against == first.against
    assert again.bet > first.bet
    assert harm.evidence() > before
    harm.correct(again, 0.0)
    assert harm.evidence() == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("kind", ["bounded", "ranked"])
def test_it_goes_on_bit_by_bit_after_a_restore(kind: str) -> None:
    values = mixed(4)
    whole, first = Harm(kind, 1, 0.1), Harm(kind, 1, 0.1)
    noted(whole, values)
    told = noted(first, values[:77])
    restored = msgspec.msgpack.decode(msgspec.msgpack.encode(first), type=Harm)
    noted(restored, values[77:])
    assert msgspec.msgpack.encode(restored) == msgspec.msgpack.encode(whole)
    held = msgspec.json.decode(msgspec.json.encode(told), type=list[Bet])
    assert held == told
    assert restored.correct(held[5], 0.9) == whole.correct(told[5], 0.9)
    assert restored == whole


@pytest.mark.parametrize(
    ("kind", "value"),
    [("bounded", y) for y in (math.nan, math.inf, -math.inf, 1.0001, -1e-9)]
    + [("ranked", y) for y in (math.nan, math.inf, -math.inf, -1e-9)],
)
def test_values_that_are_none_change_nothing(kind: str, value: float) -> None:
    harm = Harm(kind, 1)
    told = noted(harm, mixed(5, 40))
    before = msgspec.msgpack.encode(harm)
    for act in (
        lambda: harm.note_baseline(value, 0.1),
        lambda: harm.note_candidate(value, 0.1),
        lambda: harm.correct(told[0], value),
    ):
        with pytest.raises(ValueError, match=f"of a {kind} metric; give"):
            act()
    assert msgspec.msgpack.encode(harm) == before


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, math.nan, math.inf])
def test_shares_that_are_no_chance_change_nothing(share: float) -> None:
    harm = Harm("ranked", 1)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        harm.note_candidate(1.0, share)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        harm.note_baseline(1.0, share)
    assert harm == Harm("ranked", 1)


@pytest.mark.parametrize(
    ("kind", "sign", "margin"),
    [("other", 1, 0.0), ("bounded", 0, 0.0), ("bounded", 1, -0.1), ("ranked", 1, 1.0), ("ranked", 1, math.nan)],
)
def test_metrics_that_are_none(kind: str, sign: int, margin: float) -> None:
    with pytest.raises(ValueError, match="give bounded or ranked"):
        Harm(kind, sign, margin)


@pytest.mark.parametrize(
    "changed", [{"mean": 1.5}, {"mean": math.nan}, {"wealth": even(2.0)}, {"wealth": type(even(1.0))(1.0, [0.0])}]
)
def test_states_that_were_never_stored(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give what was stored"):
        msgspec.structs.replace(Harm("bounded", 1), **changed)


def test_the_smallest_shares_and_the_surest_means_leave_a_finite_wealth() -> None:
    """No errors for ever, and a canary of one call in 1e320: the first error is no infinite evidence."""
    harm = Harm("bounded", 1)
    harm.mean = 0.0
    noted(harm, [(False, 0.0), (True, 1.0), (False, 1.0)], 1e-320)
    noted(harm, [(False, 0.0), (True, 1.0), (False, 1.0)], 1.0 - 1e-16)
    ranks = Harm("ranked", -1, 0.5)
    noted(ranks, [(False, 1.7e308), (True, 1.7e308), (True, 5e-324), (False, 0.0), (True, 0.0)], 1e-320)
    assert harm.wealth.sound()
    assert ranks.wealth.sound()
