"""Budgets and rates: who is counted where, when a window ends, what is held, and what a refusal says."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import NOW, opened

from windlass.errors import ErrorCategory, LimitReached, SettingsError, classify
from windlass.gateway.access.limits import KNOWN, USD, Claim, Hold, Limits, Used, window
from windlass.gateway.access.store import spent
from windlass.gateway.options import LimitOptions
from windlass.ledger.check import outcome
from windlass.ledger.ledger import Spend

MINUTE, DAY = 60.0, 86_400.0


def _claim(**changes: Any) -> Claim:
    plain = {"tenant": "acme", "team": "", "key": "", "user": "", "model": "m", "nusd": USD // 10, "tokens": 100}
    return Claim(**{**plain, **changes})


def _at(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


def _reserve(limits: Limits, now: float = NOW, more: tuple[LimitOptions, ...] = (), **claim: Any) -> Hold:
    return asyncio.run(limits.reserve(_claim(**claim), now, more))


def _refused(limits: Limits, now: float = NOW, more: tuple[LimitOptions, ...] = (), **claim: Any) -> LimitReached:
    with pytest.raises(LimitReached) as refused:
        _reserve(limits, now, more, **claim)
    return refused.value


def _held(limits: Limits) -> int:
    return sum(count.held for count in limits.counts())


# --- windows


@pytest.mark.parametrize(
    ("kind", "now", "begin", "end"),
    [
        ("minute", _at(2026, 3, 1, 0, 0, 59), _at(2026, 3, 1), _at(2026, 3, 1, 0, 1)),
        ("hour", _at(2026, 3, 1, 23, 59, 59), _at(2026, 3, 1, 23), _at(2026, 3, 2)),
        ("day", _at(2026, 12, 31, 23, 59, 59), _at(2026, 12, 31), _at(2027, 1, 1)),
        ("month", _at(2026, 12, 31, 23, 59, 59), _at(2026, 12, 1), _at(2027, 1, 1)),
        ("month", _at(2028, 2, 29, 23, 59, 59), _at(2028, 2, 1), _at(2028, 3, 1)),
        ("month", _at(2026, 1, 1), _at(2026, 1, 1), _at(2026, 2, 1)),
        ("total", NOW, 0, math.inf),
    ],
)
def test_a_window_begins_and_ends_by_the_calendar(kind: str, now: float, begin: float, end: float) -> None:
    assert window(kind, now) == (begin, end)


@pytest.mark.parametrize("kind", ["minute", "hour", "day", "month"])
def test_what_is_used_counts_until_its_window_ends(kind: str) -> None:
    limits = Limits([LimitOptions(name="one", window=kind, requests=1)])  # type: ignore[arg-type]
    begin, end = window(kind, _at(2026, 1, 31, 12))
    _reserve(limits, begin).settle(0, 0)
    assert _refused(limits, end - 0.001).retry_after_s == 1
    _reserve(limits, end)


def test_a_total_never_ends() -> None:
    limits = Limits([LimitOptions(name="once", window="total", usd=0.1)])
    _reserve(limits).settle(USD // 10, 0)
    refused = _refused(limits, NOW + 1e9)
    assert refused.retry_after_s is None


def test_a_clock_set_back_finds_what_was_used() -> None:
    limits = Limits([LimitOptions(name="day", window="day", usd=0.1)])
    midnight = _at(2026, 3, 1)
    _reserve(limits, midnight - 1).settle(USD // 10, 0)
    _reserve(limits, midnight + 1).settle(USD // 20, 0)
    _refused(limits, midnight - 1)
    _refused(limits, midnight + 1)


def test_a_hold_is_settled_in_the_window_it_was_taken_in() -> None:
    limits = Limits([LimitOptions(name="day", window="day", usd=0.1)])
    midnight = _at(2026, 3, 1)
    hold = _reserve(limits, midnight - 1)
    (said,) = hold.settle(7, 0, "outcome_1")
    assert said == Spend(limit="day", group="", since=int(midnight - DAY), nusd=7, outcome="outcome_1")


# --- whose count


@pytest.mark.parametrize("per", ["tenant", "team", "key", "user", "model"])
def test_each_has_a_count_of_its_own(per: str) -> None:
    limits = Limits([LimitOptions(name="each", per=per, requests=1)])  # type: ignore[arg-type]
    _reserve(limits, **{per: "one"})
    _refused(limits, **{per: "one"})
    _reserve(limits, **{per: "other"})


@pytest.mark.parametrize("per", ["team", "key", "user"])
def test_another_tenants_namesake_is_somebody_else(per: str) -> None:
    limits = Limits([LimitOptions(name="each", per=per, requests=1)])  # type: ignore[arg-type]
    _reserve(limits, **{per: "same"})
    _reserve(limits, tenant="other", **{per: "same"})


@pytest.mark.parametrize("field", ["tenant", "team", "key", "user", "model"])
def test_a_limit_is_about_whom_it_names(field: str) -> None:
    limits = Limits([LimitOptions(name="named", requests=0, **{field: "one"})])  # type: ignore[arg-type]
    assert _refused(limits, **{field: "one"}).limit == "named"
    _reserve(limits, **{field: "other"})


def test_the_limits_of_two_keys_are_not_one_though_they_have_one_name() -> None:
    limits, own = Limits(()), (LimitOptions(name="own", requests=1),)
    _reserve(limits, more=own, key="a")
    _refused(limits, more=own, key="a")
    _reserve(limits, more=own, key="b")
    _reserve(limits, more=own, key="a", tenant="other")


def test_a_keys_limit_does_not_share_with_one_of_the_settings() -> None:
    limits = Limits([LimitOptions(name="same", usd=0.1, window="total")])
    _reserve(limits, more=(LimitOptions(name="same", usd=5.0, window="total"),), key="a")
    assert sorted((count.most, count.held) for count in limits.counts()) == [
        (USD // 10, USD // 10),
        (5 * USD, USD // 10),
    ]


def test_one_limit_twice_in_a_call_never_holds_more_than_there_is() -> None:
    limits, twice = Limits(()), (LimitOptions(name="own", requests=1), LimitOptions(name="own", requests=1))
    hold = _reserve(limits, more=twice[:1])
    hold.settle(0, 0)
    _refused(limits, more=twice)
    assert _held(limits) == 0


def test_a_lowered_limit_holds_at_once() -> None:
    limits = Limits(())
    _reserve(limits, more=(LimitOptions(name="own", requests=5),)).settle(0, 0)
    _refused(limits, more=(LimitOptions(name="own", requests=1),))


# --- holding and settling


def test_nothing_is_held_where_one_of_several_refuses() -> None:
    limits = Limits(
        [
            LimitOptions(name="calls", requests=10, concurrent=10, tokens=1_000),
            LimitOptions(name="money", usd=0.05, window="day"),
            LimitOptions(name="after", requests=10),
        ]
    )
    assert _refused(limits).limit == "money"
    assert _held(limits) == 0
    assert all(count.used == 0 for count in limits.counts())


def test_calls_under_way_count_as_much_as_they_might_cost() -> None:
    limits = Limits([LimitOptions(name="money", usd=0.25, window="day")])
    first, _ = _reserve(limits), _reserve(limits)
    refused = _refused(limits)
    assert "0.2 held by calls under way" in str(refused)
    first.settle(1, 0)
    _reserve(limits, nusd=USD // 10 - 1)


def test_settling_twice_changes_nothing() -> None:
    limits = Limits([LimitOptions(name="all", usd=1.0, requests=5, tokens=500, concurrent=2)])
    hold = _reserve(limits)
    assert len(hold.settle(10, 20, "o")) == 1
    before = [(count.place, count.used, count.held) for count in limits.counts()]
    assert hold.settle(10, 20, "o") == ()
    assert before == [(count.place, count.used, count.held) for count in limits.counts()]
    assert {place.measure: used for place, used, _ in before} == {
        "nusd": 10,
        "tokens": 20,
        "requests": 1,
        "concurrent": 0,
    }
    assert _held(limits) == 0


def test_a_call_that_failed_counts_as_a_request() -> None:
    limits = Limits([LimitOptions(name="rate", requests=1)])
    assert _reserve(limits).settle(0, 0) == ()
    _refused(limits)


def test_what_cost_more_than_was_held_counts_in_full() -> None:
    limits = Limits([LimitOptions(name="money", usd=1.0, window="day")])
    _reserve(limits).settle(2 * USD, 0)
    assert "2 used" in str(_refused(limits, nusd=0 + 1))


def test_only_budgets_are_committed_and_only_what_they_lost() -> None:
    limits = Limits([LimitOptions(name="a", usd=1.0, per="user"), LimitOptions(name="b", tokens=500, requests=3)])
    assert _reserve(limits, user="u").settle(0, 0, "o") == ()
    (said,) = _reserve(limits, user="u").settle(3, 9, "o")
    assert (said.limit, said.group, said.nusd) == ("a", "acme/u", 3)


# --- hostile numbers


@pytest.mark.parametrize("amount", [10**30, 2**63, 10 * USD + 1])
def test_a_huge_estimate_is_refused_and_told_that_no_wait_helps(amount: int) -> None:
    limits = Limits([LimitOptions(name="money", usd=10.0, window="day")])
    refused = _refused(limits, nusd=amount)
    assert (refused.retry_after_s, refused.limit) == (None, "money")
    _reserve(limits, nusd=10 * USD)


@pytest.mark.parametrize("measure", ["usd", "requests", "tokens", "concurrent"])
def test_a_limit_of_nothing_lets_nothing_in(measure: str) -> None:
    limits = Limits([LimitOptions(name="none", **{measure: 0})])  # type: ignore[arg-type]
    refused = _refused(limits, nusd=1, tokens=1)
    assert refused.retry_after_s is None
    assert refused.limit == "none"


def test_what_costs_nothing_fits_into_a_budget_of_nothing() -> None:
    _reserve(Limits([LimitOptions(name="none", usd=0.0)]), nusd=0).settle(0, 5)


@pytest.mark.parametrize("usd", [math.inf, math.nan])
def test_a_budget_that_is_no_number_is_refused_in_the_settings_and_nothing_in_a_key(usd: float) -> None:
    limit = LimitOptions(name="odd", usd=usd)
    with pytest.raises(SettingsError, match="odd"):
        Limits([limit])
    assert _refused(Limits(()), more=(limit,)).limit == "odd"


# --- what a refusal says


@pytest.mark.parametrize(
    ("limit", "category", "words", "wait_s"),
    [
        ({"usd": 0.1, "window": "hour"}, ErrorCategory.BUDGET_SPENT, "budget of 0.1 USD a hour", 3_600 - 10),
        ({"requests": 1}, ErrorCategory.CLIENT_RATE_LIMITED, "request rate of 1 a minute", 50),
        ({"tokens": 100}, ErrorCategory.CLIENT_RATE_LIMITED, "token rate of 100 a minute", 50),
        ({"concurrent": 1}, ErrorCategory.CLIENT_RATE_LIMITED, "number of calls at once of 1 is", 1),
    ],
)
def test_a_refusal_names_the_limit_and_when_to_come_again(
    limit: dict[str, Any], category: ErrorCategory, words: str, wait_s: int
) -> None:
    limits, now = Limits([LimitOptions(name="the one", **limit)]), NOW + 10.25
    assert NOW % 3_600 == 0
    hold = _reserve(limits, now)
    if "concurrent" not in limit:
        hold.settle(USD // 10, 100)
    refused = _refused(limits, now)
    assert (refused.status, refused.limit, classify(refused)) == (429, "the one", category)
    assert words in str(refused)
    assert "'the one'" in str(refused)
    assert refused.retry_after_s == wait_s


def test_amounts_in_a_refusal_are_exact() -> None:
    spent = Limits([LimitOptions(name="tiny", usd=0.000018)])
    _reserve(spent, nusd=1).settle(1, 0)
    words = str(_refused(spent, nusd=18_000))
    assert "budget of 0.000018 USD a minute is reached (0.000000001 used, 0 held" in words
    assert "0.000018 wanted" in words
    many = Limits([LimitOptions(name="many", tokens=2_000_001)])
    _reserve(many, tokens=1_234_567).settle(0, 1_234_567)
    words = str(_refused(many, tokens=1_000_000))
    assert (
        "token rate of 2000001 a minute is reached (1234567 used, 0 held by calls under way, 1000000 wanted)" in words
    )


# --- many counts


def _places(limits: Limits) -> dict[str, Used]:
    return {count.place.group: count for count in limits.counts()}


def test_windows_that_are_over_are_let_go_and_what_is_held_stays() -> None:
    limits = Limits([LimitOptions(name="each", per="user", requests=2, concurrent=1)])
    kept = _reserve(limits, user="holds")
    for number in range(3 * KNOWN):
        _reserve(limits, NOW + number, user=f"u{number}").settle(0, 0)
    assert len(limits.counts()) < KNOWN + 4
    assert _places(limits)["acme/holds"].held == 1
    _refused(limits, NOW, user="holds")
    kept.settle(0, 0)
    assert _places(limits)["acme/holds"].held == 0


def test_a_sweep_loses_nothing_that_was_spent() -> None:
    limits = Limits(
        [LimitOptions(name="money", usd=0.1, window="total"), LimitOptions(name="each", per="user", requests=9)]
    )
    day = Limits([LimitOptions(name="day", usd=0.1, window="day"), LimitOptions(name="each", per="user", requests=9)])
    for one in (limits, day):
        _reserve(one, user="u").settle(USD // 10, 0)
        for number in range(3 * KNOWN):
            one._look(_claim(user=f"u{number}", nusd=0), NOW + 10 * MINUTE, ())
    _refused(limits, NOW + 1e6)
    _refused(day, NOW + 3_600)


def test_a_clock_that_ran_ahead_and_was_set_right_forgives_nothing() -> None:
    limits = Limits(
        [LimitOptions(name="day", usd=0.1, window="day"), LimitOptions(name="each", per="user", requests=9)]
    )
    _reserve(limits).settle(USD // 10, 0)
    for number in range(3 * KNOWN):
        limits._look(_claim(user=f"u{number}", nusd=0), NOW + DAY + number % 60, ())
    _refused(limits, NOW)


def test_a_sweep_within_a_call_keeps_what_that_call_is_about_to_hold() -> None:
    limits = Limits([LimitOptions(name=f"n{number}", per="user", concurrent=1) for number in range(4)])
    for number in range(2 * KNOWN):
        hold = _reserve(limits, user=f"u{number}")
        assert _refused(limits, user=f"u{number}").limit == "n0"
        assert _held(limits) == 4
        hold.settle(0, 0)


# --- what was before this process


async def test_a_restart_reads_what_was_spent(tmp_path: Path) -> None:
    rules = [{"name": "day", "usd": 1.0, "window": "day", "per": "user"}]
    async with opened(tmp_path / "home", limits=rules) as runtime:
        for number in range(2):
            hold = await runtime.gateway.limits.reserve(_claim(user="u"), NOW, ())
            ended = outcome(f"call_{number}")
            await runtime.ledger.append(ended, *hold.settle(USD // 4, 0, ended.id))
    async with opened(tmp_path / "home", limits=rules) as runtime:
        limits = runtime.gateway.limits
        (left,) = [claimed.used async for claimed in _after(limits)]
        assert left == USD // 2
        with pytest.raises(LimitReached):
            await limits.reserve(_claim(user="u", nusd=USD // 2 + 1), NOW, ())
        await limits.reserve(_claim(user="u", nusd=USD // 2), NOW, ())
        since, _ = window("day", NOW)
        assert spent(runtime.db, since) == {("day", "acme/u", since): USD // 2}


async def _after(limits: Limits) -> Any:
    hold = await limits.reserve(_claim(user="u", nusd=0), NOW, ())
    hold.settle(0, 0)
    for count in limits.counts():
        yield count


async def test_the_last_day_of_a_month_is_remembered_on_the_first_of_the_next(tmp_path: Path) -> None:
    """A clock that is set back over the border finds what was spent before it."""
    first, rules = _at(2026, 4, 1), [{"name": "month", "usd": 0.1, "window": "month"}]
    async with opened(tmp_path / "home", limits=rules) as runtime:
        hold = await runtime.gateway.limits.reserve(_claim(), first - 1, ())
        ended = outcome("call_1")
        await runtime.ledger.append(ended, *hold.settle(USD // 10, 0, ended.id))
    async with opened(tmp_path / "home", limits=rules, clock=lambda: first + 1) as runtime:
        await runtime.gateway.limits.reserve(_claim(), first + 1, ())
        with pytest.raises(LimitReached):
            await runtime.gateway.limits.reserve(_claim(), first - 1, ())


def test_other_limits_go_on_with_what_counts_the_same() -> None:
    limits = Limits([LimitOptions(name="all", requests=5, window="minute")])
    hold = _reserve(limits)
    limits.replace([LimitOptions(name="all", requests=1, window="minute"), LimitOptions(name="new", tokens=1_000)])
    _refused(limits)
    hold.settle(0, 0)
    _refused(limits)
    limits.replace([LimitOptions(name="all", requests=2, window="hour", per="user")])
    _reserve(limits, user="u")
    _reserve(limits, user="u")
    assert _refused(limits, user="u").limit == "all"
    assert max(count.ends for count in limits.counts()) > NOW + 60


def test_limits_that_are_none_leave_those_before() -> None:
    limits = Limits([LimitOptions(name="all", requests=0)])
    with pytest.raises(SettingsError, match="usd of 'all' is inf"):
        limits.replace([LimitOptions(name="all", usd=math.inf)])
    _refused(limits)


def test_a_window_is_found_whatever_was_asked_for_before() -> None:
    """The last one of each kind is remembered; a clock may be set back, and calls come in any order."""
    times = [_at(2026, 1, 31, 23, 59), _at(2026, 2, 1), _at(2026, 1, 1), _at(2024, 2, 29, 12), 0.0]
    for now in (*times, *reversed(times)):
        for kind in ("minute", "hour", "day", "month"):
            begin, end = window(kind, now)
            assert begin <= now < end, (kind, now)
        assert window("total", now) == (0, math.inf)


async def test_the_limits_of_a_key_may_change_between_two_calls_of_it() -> None:
    limits, claim = Limits([]), _claim()
    old, new = (LimitOptions(name="own", requests=1),), (LimitOptions(name="own", requests=2),)
    await limits.reserve(claim, NOW, old)
    with pytest.raises(LimitReached):
        await limits.reserve(claim, NOW, old)
    await limits.reserve(claim, NOW, new)
    with pytest.raises(LimitReached):
        await limits.reserve(claim, NOW, new)
    await limits.reserve(claim, NOW, ())
