"""What leaves the server is counted as it leaves, for next to nothing."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from windlass.server.traffic import Traffic
from windlass.watch.metrics.figures import OVERHEAD_BOUNDS_S

MOST_US = 20.0
"""It takes about 1; the rest is for a machine that is busy."""


def start(status: int = 200, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def test_statuses_streams_and_overhead_are_counted() -> None:
    traffic = Traffic()
    plain = start(content_type="application/json", x_windlass_call="call_1", x_windlass_overhead_ms="0.500")
    assert traffic.answered(plain) is False
    assert traffic.answered(start(content_type="text/event-stream; charset=utf-8")) is True
    assert traffic.answered(start(429)) is False
    assert traffic.answered({"type": "http.response.start", "status": 204}) is False, "ASGI lets headers be left out"
    assert traffic.responses == {200: 2, 429: 1, 204: 1}
    assert sum(traffic.overhead) == 1
    assert traffic.overhead_s == pytest.approx(0.0005)


def test_overhead_falls_into_the_bucket_that_holds_its_bound() -> None:
    traffic = Traffic()
    for took_s in (0.0, OVERHEAD_BOUNDS_S[0], OVERHEAD_BOUNDS_S[1], 5.0):
        traffic.answered(start(x_windlass_overhead_ms=f"{took_s * 1000:.3f}"))
    counts = traffic.cumulative()
    assert counts[:2] == (2, 3)
    assert counts[-1] == 3, "5 s are beyond the last bound"
    assert all(less <= more for less, more in pairwise(counts))


def test_refusals_are_counted_by_limit() -> None:
    traffic = Traffic()
    for limit in ("daily", "daily", "rate of the key"):
        traffic.refuse(limit)
    assert traffic.refused == {"daily": 2, "rate of the key": 1}


def test_it_costs_a_request_microseconds() -> None:
    traffic = Traffic()
    event = start(
        content_type="application/json", x_content_type_options="nosniff", x_request_id="1", openai_version="2",
        x_ratelimit_limit="5", x_windlass_call="call_1", x_windlass_model="m", x_windlass_why="ucb@1",
        x_windlass_cost_nusd="5", x_windlass_overhead_ms="0.500",
    )  # fmt: skip
    best_us = min(_took_us(traffic, event) for _ in range(5))
    assert best_us < MOST_US


def _took_us(traffic: Traffic, event: dict[str, Any]) -> float:
    began = time.process_time()
    for _ in range(2_000):
        traffic.answered(event)
    return (time.process_time() - began) / 2_000 * 1e6
