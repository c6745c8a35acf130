"""Time-outs, clients that leave, and two attempts side by side: everything ends in time, and nothing stays open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.gateway.resilience.resilience_bench import (
    DOWN,
    EVENT,
    FOREVER,
    GOOD,
    HANGS,
    LAST,
    PLAIN,
    STALLS,
    Bench,
    Chunks,
    Play,
    fails,
    lone,
    meet,
    now,
    play,
    says,
)

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderReply
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.wire import Tally

# --- time


@pytest.mark.parametrize(
    "part", [HANGS, STALLS, Play(kind=JSON, body=(b"{", FOREVER)), Play(kind=JSON, body=(FOREVER,))]
)
@pytest.mark.parametrize("hedge", [0.0, 1.0])
def test_the_total_time_holds_and_tells_the_breaker_who_took_it(part: Play, hedge: float) -> None:
    options = {"total_timeout_s": 10.0, "hedge_after_s": hedge, "breaker": {"failures": 1}}
    bench = Bench(options, "any", m=part, other=part)

    async def story() -> None:
        began = now()
        with pytest.raises(UpstreamError, match="no answer within 10 s; asked: m") as failed:
            await bench.reach()
        assert classify(failed.value) is ErrorCategory.TOTAL_TIMEOUT
        assert now() - began == pytest.approx(10.0, abs=0.05)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "the cancellation was ours"
        assert bench.nothing_open()
        assert set(bench.categories) == {"total_timeout"}
        assert [(shown.model, shown.last) for shown in bench.resilience.breakers.state()][0] == ("m", "total_timeout")
        assert lone()

    play(story)


def test_a_client_that_leaves_at_the_deadline_is_gone() -> None:
    bench = Bench({"total_timeout_s": 10.0}, m=HANGS)

    async def story() -> None:
        waiting = asyncio.create_task(bench.reach())
        asyncio.get_running_loop().call_later(10.0, waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert lone()

    play(story)


def test_who_came_late_is_not_blamed_for_the_total_time() -> None:
    late = fails(ErrorCategory.CONNECT_REFUSED, 8.0)
    bench = Bench({"total_timeout_s": 10.0, "breaker": {"failures": 1}}, m=late, other=HANGS)
    assert meet(bench)[1] is ErrorCategory.TOTAL_TIMEOUT
    assert [shown.model for shown in bench.resilience.breakers.state()] == ["m"]


def test_a_deadline_that_has_passed_sends_nothing_that_stays() -> None:
    bench = Bench(m=HANGS)

    async def story() -> None:
        with pytest.raises(UpstreamError):
            await bench.resilience.reach(
                bench.targets,
                bench.send,
                wants="events",
                tally=lambda stream: Tally(stream=stream),
                deadline=now() - 5,
                trail=bench.trail,
            )
        assert lone()

    play(story)


def test_a_refusal_whose_body_does_not_come_is_known_by_its_status() -> None:
    bench = Bench(m=(Play(503, JSON, (b'{"error"', FOREVER)), GOOD))
    assert meet(bench)[0] == EVENT + LAST
    assert bench.categories == ["model_overloaded", ""]
    assert bench.sent[1][1] - bench.sent[0][1] < 5


def test_a_time_out_of_the_providers_own_is_not_taken_for_ours() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        meet(Bench(m=Play(error=TimeoutError("its own"))))


# --- a client that leaves


@pytest.mark.parametrize(
    ("parts", "options", "at_s"),
    [
        ((HANGS,), {}, 3.0),
        ((STALLS,), {}, 3.0),
        ((Play(kind=JSON, body=(b"{", FOREVER)),), {}, 3.0),
        ((Play(500, JSON, (b"{", FOREVER)),), {}, 1.0),
        ((says(429, retry_after="15"),), {}, 3.0),
        ((HANGS, HANGS), {"hedge_after_s": 1.0}, 3.0),
        ((HANGS, HANGS), {"hedge_after_s": 5.0}, 3.0),
        ((STALLS, STALLS), {"hedge_after_s": 1.0}, 3.0),
        ((DOWN, STALLS), {"hedge_after_s": 1.0}, 3.0),
    ],
    ids=["waiting", "peeking", "reading", "refusal", "pause", "hedge", "before hedge", "hedge peeks", "after failure"],
)
def test_a_client_that_leaves_ends_everything_at_once(
    parts: tuple[Play, ...], options: dict[str, Any], at_s: float
) -> None:
    bench = Bench({"breaker": {"failures": 1}} | options, "any", **{f"m{at}": part for at, part in enumerate(parts)})

    async def story() -> None:
        waiting = asyncio.create_task(bench.reach())
        await asyncio.sleep(at_s)
        assert not waiting.done()
        left_at = now()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert now() - left_at <= 0.05
        assert bench.nothing_open()
        assert lone()
        assert len(bench.trail) == len(bench.sent)

    play(story)
    blamed = {shown.model for shown in bench.resilience.breakers.state()}
    assert blamed <= {"m0"}
    assert not blamed or parts[0].error is not None or parts[0].status == 500, "a client that leaves blames nobody"


# --- hedging

HEDGED = {"hedge_after_s": 2.0}


def test_a_slow_first_byte_is_raced_by_the_next_model() -> None:
    bench = Bench(HEDGED, m=Play(body=(5.0, EVENT, LAST)), other=Play(body=(1.0, EVENT, LAST)))
    assert meet(bench) == (EVENT + LAST, None)
    assert [(model, at - 1_000.0) for model, at in bench.sent] == [("m", 0.0), ("other", 2.0)]
    assert bench.ended_at - 1_000.0 == pytest.approx(3.0)
    lost, won = bench.trail
    assert (lost.model, lost.category, lost.hedge, lost.bill) == ("m", "cancelled", False, "unsaid")
    assert (won.model, won.category, won.hedge, won.bill) == ("other", "", True, "outcome")
    assert lost.took_ms == pytest.approx(3_000.0)


def test_the_first_may_still_win() -> None:
    bench = Bench(HEDGED, m=Play(body=(3.0, EVENT, LAST)), other=HANGS)
    assert meet(bench) == (EVENT + LAST, None)
    assert [(attempt.model, attempt.category) for attempt in bench.trail] == [("other", "cancelled"), ("m", "")]


def test_a_dead_heat_goes_to_the_preferred_and_the_other_is_paid_and_closed() -> None:
    bench = Bench(HEDGED, "json", m=Play(kind=JSON, body=(4.0, PLAIN)), other=Play(kind=JSON, body=(2.0, PLAIN)))
    assert meet(bench) == (PLAIN, None)
    lost, won = bench.trail
    assert (won.model, won.category) == ("m", "")
    assert (lost.model, lost.category) == ("other", "cancelled")
    assert (lost.bill, lost.usage.prompt_tokens) in (("reported", 3), ("unsaid", None))


def test_a_quick_answer_or_failure_is_not_hedged() -> None:
    quick = Bench(HEDGED, m=Play(body=(1.0, EVENT, LAST)), other=GOOD)
    assert meet(quick)[0] == EVENT + LAST
    assert quick.asked == ["m"]
    failing = Bench(HEDGED, m=fails(ErrorCategory.DNS_FAILED, 1.0), other=GOOD)
    assert meet(failing)[0] == EVENT + LAST
    assert failing.asked == ["m", "other"]
    assert not any(attempt.hedge for attempt in failing.trail)


def test_a_refusal_for_all_ends_the_race() -> None:
    bench = Bench(HEDGED, m=HANGS, other=says(400, after_s=1.0))
    assert meet(bench) == (says(400).body[0], None)
    assert bench.ended_at - 1_000.0 == pytest.approx(3.0)


def test_when_both_of_a_race_fail_the_rest_goes_on() -> None:
    bench = Bench(
        {**HEDGED, "attempts": 3}, m=fails(ErrorCategory.DNS_FAILED, 3.0), other=says(500, after_s=3.0), last=GOOD
    )
    assert meet(bench)[0] == EVENT + LAST
    assert bench.asked == ["m", "other", "last"]


def test_an_attempt_that_does_not_let_go_holds_nobody_up_and_is_closed_later() -> None:
    bench = Bench(HEDGED, m=HANGS, other=GOOD)
    stubborn = Chunks(EVENT, LAST)

    async def send(target: Target) -> ProviderReply:
        if target.model.name == "m":
            try:
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                await asyncio.sleep(7.0)
                return ProviderReply(200, EVENT_STREAM, stubborn)
        return await Bench.send(bench, target)

    bench.send = send  # type: ignore[method-assign]

    async def story() -> None:
        reached = await bench.reach()
        assert reached.target.model.name == "other"
        assert now() - 1_000.0 == pytest.approx(2.05)
        await bench.resilience.close()
        assert now() - 1_000.0 == pytest.approx(9.0)
        assert not stubborn.open
        assert lone()

    play(story)


def test_a_client_that_leaves_while_the_loser_lingers_takes_the_winner_along() -> None:
    bench = Bench(HEDGED, m=HANGS, other=GOOD)

    async def send(target: Target) -> ProviderReply:
        if target.model.name == "m":
            try:
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                await asyncio.sleep(7.0)
                raise
        return await Bench.send(bench, target)

    bench.send = send  # type: ignore[method-assign]

    async def story() -> None:
        waiting = asyncio.create_task(bench.reach())
        await asyncio.sleep(2.03)
        (won,) = bench.replies
        assert won.open
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not won.open
        await bench.resilience.close()
        assert lone()

    play(story)
