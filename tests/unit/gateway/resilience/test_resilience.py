"""Retry, fail-over, pauses and breakers: who is asked when, and what the client gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from tests.unit.gateway.resilience.resilience_bench import (
    DOWN,
    EVENT,
    GOOD,
    HANGS,
    LAST,
    NOW,
    PLAIN,
    PLAIN_GOOD,
    RESET,
    Bench,
    Play,
    fails,
    meet,
    now,
    play,
    says,
)

from windlass.errors import ErrorCategory, RequestError, UpstreamError, classify
from windlass.gateway.opening import Wants
from windlass.gateway.provider import JSON
from windlass.gateway.resilience.attempt import Reached
from windlass.gateway.resilience.breaker import BreakerOptions
from windlass.gateway.resilience.resilience import ResilienceOptions

# --- the usual


@pytest.mark.parametrize(
    ("part", "wants", "body"),
    [
        (GOOD, "events", EVENT + LAST),
        (GOOD, "any", EVENT + LAST),
        (PLAIN_GOOD, "json", PLAIN),
        (PLAIN_GOOD, "any", PLAIN),
        (Play(kind="application/json; charset=utf-8", body=(PLAIN,)), "json", PLAIN),
        (Play(kind="audio/mpeg", body=(b"\xff\xfb", b"\x00")), "any", b"\xff\xfb\x00"),
        (Play(status=204, kind="", body=()), "any", b""),
        (Play(body=(b": wait\n\n", EVENT[:9], EVENT[9:], LAST)), "events", b": wait\n\n" + EVENT + LAST),
        (Play(body=tuple(bytes([byte]) for byte in EVENT + LAST)), "events", EVENT + LAST),
        (Play(body=(b"event: x\r\n" + EVENT.replace(b"\n", b"\r\n") + LAST,)), "events", None),
        (Play(body=(EVENT + LAST[:-2],)), "events", EVENT + LAST[:-2]),
    ],
)
def test_a_good_answer_is_passed_on_byte_for_byte(part: Play, wants: Wants, body: bytes | None) -> None:
    bench = Bench(wants=wants, m=part)
    given = b"".join(part.body)
    assert meet(bench) == (given if body is None else body, None)
    (attempt,) = bench.trail
    assert (attempt.provider, attempt.model, attempt.status, attempt.category) == ("up", "m", part.status, "")
    assert (attempt.bill, attempt.sent, attempt.hedge) == ("outcome", True, False)
    assert bench.slept == []


def test_a_stream_is_passed_on_from_its_first_event() -> None:
    """What comes later is not waited for."""
    bench = Bench(m=Play(body=(EVENT, 30.0, LAST)))

    async def story() -> None:
        reached = await bench.reach()
        assert (now() - bench.sent[0][1], reached.opening.head, reached.opening.ended) == (0.0, [EVENT], False)
        assert [chunk async for chunk in reached.opening.rest] == [LAST]

    play(story)


def test_what_was_read_was_tallied_once() -> None:
    bench = Bench(wants="json", m=PLAIN_GOOD)

    async def story() -> Reached:
        return await bench.reach()

    reached = play(story)
    assert (reached.opening.tally.text, reached.opening.tally.usage.prompt_tokens) == ("hi", 3)
    assert reached.opening.tally.complete
    assert reached.opening.ended


# --- failures that another attempt mends

BROKEN = {
    "refused": (DOWN, "connect_refused", "none"),
    "dns": (fails(ErrorCategory.DNS_FAILED), "dns_failed", "none"),
    "reset": (RESET, "connection_reset", "unsaid"),
    "first byte": (fails(ErrorCategory.FIRST_BYTE_TIMEOUT), "first_byte_timeout", "unsaid"),
    "500": (says(500), "upstream_server_error", "none"),
    "503": (says(503), "model_overloaded", "none"),
    "429": (says(429), "rate_limited", "none"),
    "empty": (Play(body=()), "stream_empty", "unsaid"),
    "comments only": (Play(body=(b": a\n\n", b": b\n\n")), "stream_empty", "unsaid"),
    "done at once": (Play(body=(b"data: [DONE]\n\n",)), "stream_empty", "unsaid"),
    "malformed": (Play(body=(b'data: {"choices": [\n\n', EVENT, LAST)), "chunk_malformed", "unsaid"),
    "no events": (Play(body=(b"<html>\n<p>Oops</p>\n",)), "chunk_malformed", "unsaid"),
    "cut in the first event": (Play(body=(EVENT[:20],)), "stream_cut", "unsaid"),
    "cut at once": (Play(body=(EVENT[:9], UpstreamError("x", category=ErrorCategory.STREAM_CUT))), "stream_cut", ""),
    "idle": (Play(body=(UpstreamError("x", category=ErrorCategory.STREAM_IDLE),)), "stream_idle", "unsaid"),
    "error event": (
        Play(body=(b'data: {"error": {"message": "x", "code": 503}}\n\n',)),
        "model_overloaded",
        "unsaid",
    ),
    "error event of Messages": (
        Play(body=(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n',)),
        "model_overloaded",
        "unsaid",
    ),
}
FOR_GOOD = {
    "tls": (fails(ErrorCategory.TLS_FAILED), "tls_failed", "none"),
    "401": (says(401), "upstream_key_refused", "none"),
    "403": (says(403), "upstream_denied", "none"),
    "402": (says(402), "quota_spent", "none"),
    "quota": (says(429, "insufficient_quota"), "quota_spent", "none"),
    "no such model": (says(404), "upstream_model_missing", "none"),
    "too long": (says(400, "context_length_exceeded"), "context_too_long", "none"),
    "redirect": (says(307), "redirect_refused", "none"),
    "html": (Play(kind="text/html", body=(b"<html>",)), "content_type_wrong", "unsaid"),
    "json for a stream": (Play(kind=JSON, body=(PLAIN,)), "content_type_wrong", "reported"),
    "204": (Play(status=204, kind="", body=()), "content_type_wrong", "unsaid"),
}
CLIENTS = {
    "400": (says(400), "upstream_request_refused"),
    "422": (says(422), "upstream_request_refused"),
    "413": (says(413), "request_too_large"),
    "filtered": (says(400, "content_filter"), "content_filtered"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_second_attempt_at_the_same_model_mends_it(name: str) -> None:
    part, category, bill = BROKEN[name]
    bench = Bench(m=(part, GOOD))
    assert meet(bench) == (EVENT + LAST, None)
    assert bench.asked == ["m", "m"]
    assert bench.categories == [category, ""]
    assert not bill or bench.trail[0].bill == bill
    assert len(bench.slept) == 1
    assert 0 <= bench.slept[0] <= 1.0


@pytest.mark.parametrize("name", [*BROKEN, *FOR_GOOD])
def test_another_model_answers_in_its_place(name: str) -> None:
    part, category, bill = (BROKEN | FOR_GOOD)[name]
    bench = Bench({"attempts": 2}, m=part, other=GOOD)
    assert meet(bench) == (EVENT + LAST, None)
    assert (bench.asked, bench.categories, bench.slept) == (["m", "other"], [category, ""], [])
    assert not bill or bench.trail[0].bill == bill


@pytest.mark.parametrize("name", FOR_GOOD)
def test_what_will_not_change_is_not_tried_again(name: str) -> None:
    part, category, _ = FOR_GOOD[name]
    bench = Bench(m=part)
    body, raised = meet(bench)
    assert (bench.asked, bench.categories, bench.slept) == (["m"], [category], [])
    if part.error is None and part.status >= 300:
        assert (body, raised) == (part.body[0], None), "the provider's own words"
    else:
        assert raised is ErrorCategory(category)


@pytest.mark.parametrize("name", CLIENTS)
def test_what_is_the_clients_fault_is_the_answer(name: str) -> None:
    part, category = CLIENTS[name]
    bench = Bench(m=part, other=GOOD)
    assert meet(bench) == (part.body[0], None)
    assert (bench.asked, bench.categories) == (["m"], [category])


def test_a_stream_that_begins_with_a_refusal_for_the_client_is_passed_on() -> None:
    said = b'data: {"error": {"message": "x", "code": "content_filter"}}\n\n'
    bench = Bench(m=Play(body=(said, b"data: [DONE]\n\n")), other=GOOD)
    assert meet(bench) == (said + b"data: [DONE]\n\n", None)
    assert bench.asked == ["m"]


def test_a_context_too_long_for_all_is_told_before_other_causes() -> None:
    too_long = says(400, "context_length_exceeded")
    bench = Bench(down=DOWN, small=too_long, broken=says(500))
    assert meet(bench) == (too_long.body[0], None)
    assert bench.asked == ["down", "small", "broken"]


def test_the_cause_of_the_preferred_model_is_told() -> None:
    bench = Bench(first=says(503), second=DOWN)
    assert meet(bench) == (says(503).body[0], None)
    assert meet(Bench(first=DOWN, second=says(503)))[1] is ErrorCategory.CONNECT_REFUSED


def test_the_fault_of_a_moment_is_tried_again_first_and_others_move_on() -> None:
    moment = Bench(m=(RESET, GOOD), other=GOOD)
    assert meet(moment)[0] == EVENT + LAST
    assert moment.asked == ["m", "m"]
    longer = Bench(m=(DOWN, GOOD), other=GOOD)
    assert meet(longer)[0] == EVENT + LAST
    assert (longer.asked, longer.slept) == (["m", "other"], [])
    slow = Bench(m=(fails(ErrorCategory.FIRST_BYTE_TIMEOUT), GOOD), other=GOOD)
    assert meet(slow)[0] == EVENT + LAST
    assert slow.asked == ["m", "other"]


def test_no_model_is_asked_twice_at_the_cost_of_anothers_only_attempt() -> None:
    bench = Bench({"attempts": 3}, a=RESET, b=RESET, c=GOOD)
    assert meet(bench)[0] == EVENT + LAST
    assert bench.asked == ["a", "b", "c"]


def test_with_all_asked_the_one_that_may_be_asked_again_first_is() -> None:
    bench = Bench({"attempts": 4}, a=(says(503, retry_after="9"), GOOD), b=(says(503, retry_after="2"), GOOD))
    assert meet(bench)[0] == EVENT + LAST
    assert bench.asked == ["a", "b", "b"]
    assert 2.0 <= bench.sent[2][1] - bench.sent[1][1] <= 3.0


# --- pauses


def test_pauses_double_with_full_jitter_up_to_the_cap() -> None:
    most = [0.0] * 7
    for seed in range(200):
        bench = Bench({"attempts": 8, "backoff_cap_s": 8.0, "total_timeout_s": 1e5}, m=DOWN)
        bench.resilience.rng.seed(seed)
        bench.resilience.breakers._options = BreakerOptions(failures=0)
        meet(bench)
        assert len(bench.slept) == 7
        most = [max(pair) for pair in zip(most, bench.slept, strict=True)]
    for longest, found in zip([1, 2, 4, 8, 8, 8, 8], most, strict=True):
        # The largest of 200 uniform draws is below 0.9 of their range with probability 0.9**200 < 1e-9.
        assert 0.9 * longest <= found <= longest


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": format_datetime(datetime.fromtimestamp(NOW + 7, UTC), usegmt=True)}, 7.0),
        ({"retry_after": format_datetime(datetime.fromtimestamp(NOW - 700, UTC), usegmt=True)}, 0.0),
        ({"retry_after": "7", "retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "nan", "retry_after": "3"}, 3.0),
        *(({"retry_after": said}, None) for said in ("", "soon", "-1", "nan", "inf", "1e999", "٧x")),
        *(({"retry_after": said}, None) for said in ("Mon, 99 Foo 2026 99:99:99 GMT", "\x00", "0x10", "Sun, 06")),
    ],
)
def test_a_provider_is_left_alone_for_as_long_as_it_asks(said: dict[str, str], wait_s: float | None) -> None:
    bench = Bench(m=(says(429, **said), GOOD))
    assert meet(bench)[0] == EVENT + LAST
    assert bench.trail[0].retry_after_s == wait_s
    waited = bench.sent[1][1] - bench.sent[0][1]
    assert (wait_s or 0.0) <= waited <= (wait_s or 0.0) + 1.0


@pytest.mark.parametrize(
    "said", ["21", "86400", "1e300", "9" * 70, format_datetime(datetime(9999, 12, 31, tzinfo=UTC))]
)
def test_who_asks_for_too_much_time_is_not_asked_again(said: str) -> None:
    alone = Bench(m=says(429, retry_after=said))
    assert meet(alone) == (says(429).body[0], None)
    assert (alone.asked, alone.slept) == (["m"], [])
    moved = Bench(m=says(429, retry_after=said), other=GOOD)
    assert meet(moved)[0] == EVENT + LAST
    assert (moved.asked, moved.slept) == (["m", "other"], [])


def test_no_pause_goes_beyond_the_deadline() -> None:
    bench = Bench({"total_timeout_s": 5.0}, m=says(429, retry_after="6"))
    assert meet(bench) == (says(429).body[0], None)
    assert (bench.asked, bench.slept) == (["m"], [])


# --- breakers


def test_a_model_that_keeps_failing_is_passed_over_until_a_probe_is_answered() -> None:
    plays = (*[DOWN] * 3, GOOD)
    bench = Bench({"breaker": {"failures": 3, "open_s": 10.0}}, m=plays, other=GOOD)

    async def story() -> None:
        for _ in range(5):
            await bench.read()
        assert bench.asked == ["m", "other"] * 3 + ["other"] * 2
        passed_over = bench.trail[-2]
        assert (passed_over.model, passed_over.sent, passed_over.category) == ("m", False, "connect_refused")
        assert passed_over.bill == "none"
        await asyncio.sleep(10.0)
        await bench.read()
        assert bench.asked[-1] == "m"
        assert bench.resilience.breakers.state() == ()

    play(story)


def test_where_all_are_left_alone_the_client_is_told_at_once() -> None:
    bench = Bench({"breaker": {"failures": 1, "open_s": 10.0}}, m=DOWN, other=DOWN)
    meet(bench)
    sent = len(bench.sent)

    async def story() -> None:
        with pytest.raises(
            UpstreamError, match=r"left alone .*connect_refused.*: m for \d+\.\d s, other for"
        ) as failed:
            await bench.reach()
        assert classify(failed.value) is ErrorCategory.CONNECT_REFUSED

    bench.trail.clear()
    play(story)
    assert len(bench.sent) == sent
    assert [attempt.sent for attempt in bench.trail] == [False, False]


def test_an_own_breaker_that_opens_ends_the_retries() -> None:
    bench = Bench({"attempts": 10, "breaker": {"failures": 2, "open_s": 50.0}}, m=DOWN)
    assert meet(bench)[1] is ErrorCategory.CONNECT_REFUSED
    assert bench.asked == ["m", "m"]
    assert bench.trail[-1].sent is False


def test_streams_that_break_off_open_a_breaker_and_whole_ones_forgive() -> None:
    bench = Bench({"breaker": {"failures": 3}}, m=GOOD)

    async def story() -> None:
        target = bench.targets[0]
        for _ in range(10):
            await bench.read()
            bench.resilience.ended(target, ErrorCategory.STREAM_CUT)
            await bench.read()
            bench.resilience.ended(target, None)
        assert bench.resilience.breakers.state() == ()
        for _ in range(3):
            await bench.read()
            bench.resilience.ended(target, ErrorCategory.STREAM_CUT)
        (shown,) = bench.resilience.breakers.state()
        assert (shown.state, shown.last) == ("open", "stream_cut")

    play(story)


@pytest.mark.parametrize("hedge", [0.0, 1.0])
def test_a_probe_whose_client_leaves_makes_room_for_the_next(hedge: float) -> None:
    options = {"hedge_after_s": hedge, "breaker": {"failures": 1, "open_s": 1.0}}
    bench = Bench(options, m=(DOWN, HANGS, GOOD), other=(GOOD, HANGS, GOOD))

    async def story() -> None:
        await bench.read()
        await asyncio.sleep(1.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await bench.read()
        bench.sent.clear()
        await bench.read()
        assert bench.asked == ["m"]

    play(story)


def test_a_refused_request_shows_that_a_model_is_back() -> None:
    bench = Bench({"breaker": {"failures": 1, "open_s": 1.0}}, m=(DOWN, says(400)), other=GOOD)

    async def story() -> None:
        await bench.read()
        await asyncio.sleep(1.0)
        assert (await bench.reach()).attempt.category == "upstream_request_refused"
        assert bench.resilience.breakers.state() == ()

    play(story)


def test_of_many_calls_at_once_only_one_probes() -> None:
    bench = Bench({"breaker": {"failures": 1, "open_s": 1.0}}, m=(DOWN, Play(after_s=5.0)), other=GOOD)

    async def story() -> None:
        await bench.read()
        await asyncio.sleep(1.0)
        await asyncio.gather(*(bench.read() for _ in range(50)))
        assert Counter(bench.asked)["m"] == 2

    play(story)


# --- what must not happen


def test_what_may_not_happen_twice_is_sent_again_only_where_nothing_arrived() -> None:
    arrived = Bench(m=(RESET, GOOD), other=GOOD)
    assert meet(arrived, repeatable=False)[1] is ErrorCategory.CONNECTION_RESET
    assert arrived.asked == ["m"]
    unsent = Bench(m=(DOWN, GOOD))
    assert meet(unsent, repeatable=False)[0] == EVENT + LAST
    assert unsent.asked == ["m", "m"]


def test_what_a_model_cannot_take_goes_straight_to_the_client() -> None:
    bench = Bench(m=Play(error=RequestError("too many", param="input")), other=GOOD)
    with pytest.raises(RequestError):
        meet(bench)
    assert (bench.asked, bench.categories) == (["m"], ["request_invalid"])


def test_a_bug_of_a_provider_is_no_failure_of_its_model() -> None:
    bench = Bench({"breaker": {"failures": 1}}, m=Play(error=KeyError("oops")), other=GOOD)
    with pytest.raises(KeyError):
        meet(bench)
    assert (bench.asked, len(bench.trail)) == (["m"], 1)
    assert bench.resilience.breakers.state() == ()


def test_no_target_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no target"):
        meet(Bench())


def test_usage_of_failed_attempts_is_kept() -> None:
    said = b'{"error": {"message": "x", "code": "server_error"}, "usage": {"prompt_tokens": 9, "completion_tokens": 4}}'
    bench = Bench(wants="json", m=(Play(kind=JSON, body=(said,)), Play(500, JSON, (said,)), PLAIN_GOOD))
    assert meet(bench)[0] == PLAIN
    assert [attempt.bill for attempt in bench.trail] == ["reported", "reported", "outcome"]
    assert [(attempt.usage.prompt_tokens, attempt.usage.completion_tokens) for attempt in bench.trail[:2]] == [
        (9, 4)
    ] * 2


def test_usage_of_a_refusal_that_is_passed_on_counts_once() -> None:
    said = b'{"error": {"message": "x"}, "usage": {"prompt_tokens": 9, "completion_tokens": 4}}'
    bench = Bench({"attempts": 2}, m=Play(500, JSON, (said,)))

    async def story() -> Reached:
        return await bench.reach()

    reached = play(story)
    assert reached.opening.tally.usage.prompt_tokens == 9
    assert [(attempt.bill, attempt.usage.prompt_tokens) for attempt in bench.trail] == [
        ("reported", 9),
        ("outcome", None),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 101},
        {"backoff_base_s": -1},
        {"total_timeout_s": 0},
        {"total_timeout_s": float("inf")},
        {"hedge_after_s": float("nan")},
        {"breaker": {"failures": -1}},
        {"retries": 3},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, ResilienceOptions)
