"""Any sequence of faults: nothing leaks, every bound holds, no two probes are under way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.gateway.resilience.resilience_bench import (
    DOWN,
    EVENT,
    FOREVER,
    GOOD,
    HANGS,
    LAST,
    PLAIN_GOOD,
    RESET,
    STALLS,
    Bench,
    Play,
    fails,
    lone,
    now,
    play,
    says,
)

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.opening import Wants
from windlass.gateway.provider import EVENT_STREAM, JSON
from windlass.gateway.resilience.breaker import Pass

DELAYS = st.sampled_from([0.0, 0.0, 0.5, 3.0, FOREVER])
BODIES = st.lists(
    st.sampled_from([EVENT, EVENT, LAST, b": wait\n\n", EVENT[:20], b"data: {x\n\n", b"<p>\n", 0.5, 3.0, FOREVER]),
    max_size=4,
)
PARTS = st.one_of(
    st.sampled_from([GOOD, PLAIN_GOOD, DOWN, RESET, HANGS, STALLS, says(429, retry_after="4"), says(400), says(500)]),
    st.builds(fails, st.sampled_from(list(ErrorCategory)), DELAYS),
    st.builds(says, st.sampled_from([200, 204, 301, 400, 401, 404, 429, 500, 503, 599, 999]), after_s=DELAYS),
    st.builds(
        Play,
        st.sampled_from([200, 200, 200, 500]),
        st.sampled_from([EVENT_STREAM, EVENT_STREAM, JSON, "text/html"]),
        BODIES.map(tuple),
        DELAYS,
    ),
)
OPTIONS = st.fixed_dictionaries(
    {
        "attempts": st.integers(1, 5),
        "hedge_after_s": st.sampled_from([0.0, 0.0, 0.4, 2.0]),
        "total_timeout_s": st.sampled_from([2.0, 10.0, 100.0]),
        "breaker": st.fixed_dictionaries({"failures": st.integers(0, 3), "open_s": st.just(1.0)}),
    }
)


@given(
    plays=st.lists(st.lists(PARTS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3),
    options=OPTIONS,
    wants=st.sampled_from(["events", "json", "any"]),
    leaves=st.lists(st.one_of(st.none(), st.floats(0, 12)), min_size=1, max_size=4),
)
@settings(max_examples=400)
def test_whatever_goes_wrong_nothing_leaks_and_every_bound_holds(
    plays: list[tuple[Play, ...]], options: dict[str, Any], wants: Wants, leaves: list[float | None]
) -> None:
    """Several calls over the same models, each of whose clients may leave at any time."""
    bench = Bench(options, wants, **{f"m{at}": parts for at, parts in enumerate(plays)})
    probes = _watch_probes(bench)

    async def call(leave_s: float | None) -> None:
        sent, began, trail = len(bench.sent), now(), len(bench.trail)
        running = asyncio.create_task(bench.reach())
        done, _ = await asyncio.wait({running}, timeout=leave_s)
        if not done:
            left_at = now()
            running.cancel()
            await asyncio.wait({running})
            assert now() - left_at <= 0.05 + 1e-6
        attempts = bench.trail[trail:]
        assert len(bench.sent) - sent == sum(attempt.sent for attempt in attempts) <= options["attempts"]
        assert now() - began <= options["total_timeout_s"] + 0.05 + 1e-6
        assert sum(attempt.bill == "outcome" for attempt in attempts) <= 1
        if not running.cancelled() and running.exception() is None:
            reached = running.result()
            assert reached.attempt in attempts
            assert reached.attempt.bill == "outcome"
            assert reached.opening.ended or not reached.attempt.category
            await reached.opening.close()
        elif not running.cancelled():
            assert isinstance(running.exception(), UpstreamError)

    async def story() -> None:
        for leave_s in leaves:
            await call(leave_s)
            await asyncio.sleep(1.0)
        await bench.resilience.close()
        assert bench.nothing_open()
        assert lone()
        assert probes() == 0, "a probe was never ended"

    play(story)


def _watch_probes(bench: Bench) -> Callable[[], int]:
    """How many probes are under way; fails the test at the second of one model."""
    breakers, out = bench.resilience.breakers, Counter[Any]()
    admit = breakers.admit

    def admitted(key: Any) -> Pass:
        given = admit(key)
        out[key] += given is Pass.PROBE
        assert out[key] <= 1, "two probes at once"
        return given

    def ending(end: Callable[..., None]) -> Callable[..., None]:
        depth = 0

        def ended(key: Any, given: Pass, *more: Any) -> None:
            nonlocal depth
            out[key] -= given is Pass.PROBE and depth == 0
            depth += 1
            end(key, given, *more)
            depth -= 1

        return ended

    breakers.admit = admitted  # type: ignore[method-assign]
    for name in ("answered", "failed", "left"):
        setattr(breakers, name, ending(getattr(breakers, name)))
    return lambda: sum(out.values())
