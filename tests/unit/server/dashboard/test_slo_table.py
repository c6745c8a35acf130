"""The limits of time and errors on the page of the router: a line for each model and limit, or why there is none."""

from __future__ import annotations

from pathlib import Path

from tests.unit.server.dashboard.visitor import visiting

from windlass.policies.served import Served
from windlass.records import Scope
from windlass.runtime import Runtime

POINT = {"model": {"policy": "split"}}


def _told(runtime: Runtime, calls: int) -> None:
    """So many calls of which those of `slow` take four seconds, told to the policy."""
    for number in range(calls):
        for action, took_ms in (("fast", 400.0), ("slow", 4_200.0)):
            name = f"call_{number}{action}"
            asked = {"call_id": name, "at": float(number), "scope": Scope(), "featuriser": "x@1"}
            _, (decision, *_) = runtime.loop.decide("model", context={"x": 1.0}, actions=(action,), **asked)
            assert runtime.loop.serve(decision, Served(took_ms, failed=False), None, "model")


async def test_each_limit_of_each_model_has_a_line(tmp_path: Path) -> None:
    limits = {"routing__max_latency_ms": 3_000, "routing__max_error_percent": 5}
    async with visiting(tmp_path, points=POINT, **limits) as (visitor, runtime):
        assert "No limit holds for the newest call" in (await visitor.get("/routing")).text
        _told(runtime, 60)
        asked = {"call_id": "call_x", "at": 70.0, "scope": Scope(), "featuriser": "x@1"}
        context = {"objective:max_latency_ms": 3_000.0, "objective:max_error_percent": 5.0}
        _, made = runtime.loop.decide("model", context=context, actions=("fast", "slow"), **asked)
        await runtime.ledger.append(*made)
        page = await visitor.get("/routing")
    assert page.status == 200
    for words in ("p95 within 3 s", "p95 4.2 s", "p95 400 ms", "errors within 5 %", "left out but for a small share"):
        assert words in page.text
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))


async def test_without_limits_nothing_is_shown(tmp_path: Path) -> None:
    async with visiting(tmp_path, points=POINT) as (visitor, _):
        assert "Limits of time and errors" not in (await visitor.get("/routing")).text
