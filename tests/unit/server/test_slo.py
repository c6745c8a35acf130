"""Limits of time and errors in a whole program: kept, explained, there after a restart, refused where unwatched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import NOW, Client, opened

from windlass.errors import RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.providers.echo import Echo
from windlass.gateway.route.objectives import Wish
from windlass.gateway.transit import Request
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import routing
from windlass.server.app import Windlass
from windlass.server.operations import OPERATIONS

OWNER = Caller(Scope(), "admin", "")
LIMITS = {"routing__max_latency_ms": 3_000, "routing__max_error_percent": 5}
SPLIT = {"model": {"policy": "split", "randomised_share": 0.0}}


class Paced(Echo):
    """Answers of `slow` take four seconds, those of `fast` one; a stopped clock tells."""

    def __init__(self) -> None:
        super().__init__()
        self.models = tuple(ModelOptions(name=name) for name in ("fast", "slow"))
        self.now = NOW

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.now += 4.0 if request.model == "slow" else 1.0
        return await super().send(request)


@asynccontextmanager
async def running(folder: Path, echo: Paced, **more: Any) -> AsyncIterator[Runtime]:
    values = {"points": SPLIT} | LIMITS | more
    async with opened(folder, providers=(echo,), clock=lambda: echo.now, **values) as runtime:
        yield runtime


async def ask(runtime: Runtime, calls: int, **more: Any) -> list[str]:
    """So many calls for `auto`; the models that answered."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Why does it turn?"}]}
    found = []
    for _ in range(calls):
        answer = await runtime.gateway.complete(Request(json.dumps(body).encode(), **more))
        async for _ in answer.chunks:
            pass
        found.append(answer.transit.decisions[0].action)
        await runtime.caught_up()
    return found


async def test_a_slow_model_is_left_out_and_every_surface_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    echo = Paced()
    async with running(tmp_path, echo) as runtime:
        await ask(runtime, 70)
        later = await ask(runtime, 40)
        assert later.count("slow") <= 8  # one in 50: more has a chance of 1e-7, as has it that too few calls were slow
        found = await OPERATIONS["route"](runtime, OWNER, {"prompt": "Why does it turn?"})
        assert {one["model"]: one["chance"] for one in found["models"]} == pytest.approx({"fast": 0.98, "slow": 0.02})
        slow = next(one for one in found["service"] if one["action"] == "slow" and one["quantile"])
        assert (slow["kept"], slow["limit"]) == (False, 3_000.0)
        assert "slow left out: p95 4" in found["why"] or "share of 2.0%" in found["why"]
        wide = await OPERATIONS["route"](runtime, OWNER, {"prompt": "Why?", "max_latency_ms": 9_000})
        assert {one["model"]: one["chance"] for one in wide["models"]} == pytest.approx({"fast": 0.5, "slow": 0.5})
        assert routing.show(found, as_json=False) == 0
        assert "slow left out: p95 4" in capsys.readouterr().out
        made = runtime.ledger.decisions(Scope(), point="model", limit=1)[0]
        assert made.context["objective:max_latency_ms"] == 3_000.0
        assert made.policy == "split@1"
        _, live, replayed = runtime.projections.replay()
        assert live == replayed
    async with running(tmp_path, echo) as again:
        assert again.learner.digest() == live
        assert (await ask(again, 20)).count("slow") <= 6


async def test_one_tenants_slow_calls_leave_another_ones_models_alone(tmp_path: Path) -> None:
    echo = Paced()
    async with running(tmp_path, echo) as runtime:
        await ask(runtime, 60)
        other = {"prompt": "Why does it turn?", "tenant": "globex"}
        found = await OPERATIONS["route"](runtime, OWNER, other)
        assert {one["model"]: one["chance"] for one in found["models"]} == pytest.approx({"fast": 0.5, "slow": 0.5})
        assert found["service"] == []


async def test_a_request_names_its_own_limit(tmp_path: Path) -> None:
    echo = Paced()
    async with running(tmp_path, echo) as runtime:
        await ask(runtime, 70)
        free = await ask(runtime, 60, wish=Wish(max_latency_ms=10_000.0))
        assert free.count("slow") > 8  # 30 expected; fewer has a chance of 1e-8
        reply = await Client(Windlass(runtime)).post(
            "/v1/chat/completions",
            {"model": "auto", "messages": [{"role": "user", "content": "Why?"}]},
            x_windlass_max_latency_ms="soon",
        )
        assert reply.status == 400
        assert "x-windlass-max-latency-ms is 'soon'; give milliseconds" in reply.json["error"]["message"]


async def test_where_nobody_watches_a_limit_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    echo = Paced()
    joint = {"model": {"policy": "joint_thompson"}}
    none = {"routing__max_latency_ms": None, "routing__max_error_percent": None}
    async with running(tmp_path, echo, points=joint, **none) as runtime:
        with pytest.raises(RequestError, match="nobody watches how calls go; leave them out, or set a limit"):
            await ask(runtime, 1, wish=Wish(max_latency_ms=900.0))
        assert len(await ask(runtime, 2)) == 2
