"""What a call may spend: what is left of the tightest budget over the calls that are still to come."""

from __future__ import annotations

import math

import pytest

from windlass.gateway.access.admission import Caller
from windlass.gateway.access.limits import Claim, Limits
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import LimitOptions
from windlass.gateway.route.allowance import Allowances
from windlass.gateway.route.features import Question
from windlass.gateway.wire import parse_chat
from windlass.records import Scope

BEGIN = 1_800_057_600.0
"""Midnight, UTC."""
DAY_S = 86_400.0
USD = 10**9
CALLER = Caller(Scope("acme", "one"), "operator", "ann", team="red")
DAILY = LimitOptions(name="daily", usd=10.0, window="day")


def _claim(nusd: int = 0, user: str = "") -> Claim:
    return Claim(tenant="acme", team="red", key="ann", user=user, model="m", nusd=nusd, tokens=0)


async def _spend(limits: Limits, nusd: int, now: float, caller: Caller = CALLER) -> None:
    hold = await limits.reserve(_claim(nusd), now, caller.limits)
    hold.settle(nusd, 0, "outcome_1")


def _pace(*options: LimitOptions) -> Allowances:
    return Allowances(lambda: options)


def _called(limits: Limits, pace: Allowances, now: float) -> float:
    """What a call may spend that is then made."""
    allowed = pace.allowance_nusd(limits, CALLER, "", now)
    chat = parse_chat(b'{"model":"auto","messages":[{"role":"user","content":"x"}]}')
    pace.ended(Question(chat, CALLER, "chat", (), PriceBook(), limits, now), now)
    return allowed or 0.0


async def test_without_a_budget_there_is_no_allowance() -> None:
    limits = Limits(())
    assert _pace().allowance_nusd(limits, CALLER, "", BEGIN) is None


async def test_a_steady_stream_gets_the_budget_over_the_calls_of_the_day() -> None:
    limits, pace = Limits((DAILY,)), _pace(DAILY)
    await _spend(limits, 0, BEGIN)
    allowed = 0.0
    for minute in range(720):
        now = BEGIN + 60.0 * minute
        allowed = _called(limits, pace, now)
        await _spend(limits, 10 * USD // 1_440, now)
    assert math.isclose(allowed, 10 * USD / 1_440, rel_tol=0.02)


async def test_what_was_not_spent_is_carried_over_and_what_was_spent_too_fast_is_missing() -> None:
    found = []
    for each in (0, 20 * USD // 1_440):
        limits, pace = Limits((DAILY,)), _pace(DAILY)
        await _spend(limits, 0, BEGIN)
        allowed = 0.0
        for minute in range(700):
            allowed = _called(limits, pace, BEGIN + 60.0 * minute)
            await _spend(limits, each, BEGIN + 60.0 * minute)
        found.append(allowed)
    saved, wasted = found
    assert math.isclose(saved, 10 * USD / 740, rel_tol=0.05)
    assert wasted < 0.1 * saved


async def test_a_budget_that_is_spent_allows_nothing_and_never_less() -> None:
    limits, pace = Limits((DAILY,)), _pace(DAILY)
    await _spend(limits, 10 * USD, BEGIN)
    assert pace.allowance_nusd(limits, CALLER, "", BEGIN + 10) == 0.0
    lowered = LimitOptions(name="daily", usd=1.0, window="day")
    limits.replace((lowered,))
    assert (_pace(lowered).allowance_nusd(limits, CALLER, "", BEGIN + 20) or 0.0) >= 0.0


async def test_a_burst_at_the_begin_of_a_window_is_not_taken_for_the_pace_of_all_of_it() -> None:
    limits, pace = Limits((DAILY,)), _pace(DAILY)
    await _spend(limits, 0, BEGIN)
    allowed = [_called(limits, pace, BEGIN + 0.001 * call) for call in range(5)]
    assert allowed[0] > 10 * USD / 110
    assert allowed[-1] > 10 * USD / 510


async def test_the_tightest_budget_counts_and_a_keys_own_is_one() -> None:
    own = LimitOptions(name="own", usd=0.001, window="day")
    caller = Caller(CALLER.scope, "operator", "ann", limits=(own,))
    limits, pace = Limits((DAILY,)), _pace(DAILY)
    await _spend(limits, 0, BEGIN, caller)
    plain = pace.allowance_nusd(limits, CALLER, "", BEGIN)
    tight = pace.allowance_nusd(limits, caller, "u", BEGIN)
    assert plain is not None
    assert tight is not None
    assert math.isclose(tight / plain, 0.0001, rel_tol=1e-9)


@pytest.mark.parametrize(
    "limit",
    [
        LimitOptions(name="else", tenant="other", usd=1.0, window="day"),
        LimitOptions(name="model", model="m", usd=1.0, window="day"),
        LimitOptions(name="by model", per="model", usd=1.0, window="day"),
        LimitOptions(name="rate", requests=5, window="day"),
        LimitOptions(name="for ever", usd=1.0, window="total"),
    ],
    ids=lambda limit: limit.name,
)
async def test_what_is_no_budget_of_this_caller_with_an_end_allows_and_forbids_nothing(limit: LimitOptions) -> None:
    limits = Limits((limit,))
    await limits.reserve(_claim(), BEGIN)
    assert _pace(limit).allowance_nusd(limits, CALLER, "", BEGIN) is None


async def test_each_user_is_paced_by_its_own_count() -> None:
    each = LimitOptions(name="each", per="user", usd=1.0, window="day")
    limits, pace = Limits((each,)), _pace(each)
    for user, nusd in (("u1", USD), ("u2", 0)):
        (await limits.reserve(_claim(nusd, user), BEGIN)).settle(nusd, 0, "o")
    assert pace.allowance_nusd(limits, CALLER, "u1", BEGIN) == 0.0
    assert (pace.allowance_nusd(limits, CALLER, "u2", BEGIN) or 0.0) > 0.0


async def test_looking_is_not_counted_and_the_next_window_begins_anew() -> None:
    limits, pace = Limits((DAILY,)), _pace(DAILY)
    await _spend(limits, 10 * USD, BEGIN)
    first = [pace.allowance_nusd(limits, CALLER, "", BEGIN) for _ in range(3)]
    assert first == [0.0] * 3
    await _spend(limits, 0, BEGIN + DAY_S)
    looked = [pace.allowance_nusd(limits, CALLER, "", BEGIN + DAY_S + 1) for _ in range(3)]
    assert looked[0] == looked[1] == looked[2]
    assert (looked[0] or 0.0) > 0.0


async def test_what_others_count_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    each = LimitOptions(name="each", per="user", usd=1.0, window="day")
    limits, pace = Limits((each,)), _pace(each)
    for user in ("u1", "u2", "u3"):
        (await limits.reserve(_claim(USD // 4, user), BEGIN)).settle(USD // 4, 0, "o")
    monkeypatch.delattr(Limits, "counts")
    assert (pace.allowance_nusd(limits, CALLER, "u2", BEGIN) or 0.0) > 0.0
    assert pace.allowance_nusd(limits, CALLER, "u4", BEGIN) is None, "nobody has counted for it yet"
    (before,) = (limits.budget(each, "acme/u2", BEGIN),)
    assert before is not None
    assert (before.used, before.most) == (USD // 4, USD)
    assert limits.budget(each, "acme/u2", BEGIN + DAY_S) is None
    assert limits.budget(each, "other/u2", BEGIN) is None
