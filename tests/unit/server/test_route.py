"""`route`: where a prompt would go, and why a call went where it did; for the caller's own tenant alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import opened

from windlass.errors import AccessError, InputError, ModelUnknown, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.policies.points import GuardOptions, PointOptions
from windlass.policies.policy import Arm
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import routing
from windlass.server.operations import OPERATIONS

OWNER = Caller(Scope(), "admin", "")
JOINT = {"model": {"policy": "joint_thompson", "options": {"quality_percent": 90.0}}}


@asynccontextmanager
async def running(folder: Path, **more: Any) -> AsyncIterator[Runtime]:
    echo = Echo()
    echo.models = (
        ModelOptions(name="cheap", prompt_usd_per_million=1.0, completion_usd_per_million=1.0),
        ModelOptions(name="free"),
    )
    async with opened(folder, providers=(echo,), **more) as runtime:
        yield runtime


async def _route(runtime: Runtime, caller: Caller = OWNER, **arguments: Any) -> dict[str, Any]:
    return await OPERATIONS["route"](runtime, caller, arguments)


async def test_a_prompt_is_looked_at_and_nobody_is_called(tmp_path: Path) -> None:
    async with running(tmp_path, points=JOINT) as runtime:
        found = await _route(runtime, prompt="Why does it turn?", objective="balanced", quality_floor=80.0)
        again = await _route(runtime, prompt="Why does it turn?", objective="balanced", quality_floor=80.0)
        assert runtime.ledger.head() == 0
    assert found["models"] == again["models"]
    assert [one["model"] for one in found["models"]] == ["cheap", "free"]
    assert sum(one["chance"] for one in found["models"]) == pytest.approx(1.0)
    assert found["objectives"] == {"objective:balanced": 1.0, "objective:quality_percent": 80.0}
    best = max(one["quality"] for one in found["models"])
    assert found["floor"] == pytest.approx(0.8 * best)
    cheap = found["models"][0]
    assert (
        f"cheap: predicted quality {cheap['quality']:.2f} +- {cheap['sd']:.2f}, floor {found['floor']:.2f}, "
        in (found["line"])
    )
    assert f"0.00026 USD, p {cheap['chance']:.2f}" in found["line"]
    assert "free: predicted quality" in found["line"]
    assert (found["mode"], found["policy"]) == ("live", "joint_thompson@1")
    assert found["quality_per_usd"] == 0.0
    assert found["floors"] == []
    assert all(one["expected_nusd"] > 0.0 for one in found["models"])
    assert [one["cost_nusd"] is None for one in found["models"]] == [False, True]


async def test_it_answers_for_a_policy_that_reads_neither_prompts_nor_prices(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        assert runtime.router is None
        found = await _route(runtime, prompt="Why does it turn?")
    assert found["missing"] == "no policy asks for embeddings"
    assert "predicted quality" in found["line"]
    assert "USD" not in found["line"]
    assert found["quality_per_usd"] is None
    assert {one["expected_nusd"] for one in found["models"]} == {None}


async def test_a_chat_is_looked_at_as_the_api_takes_it(tmp_path: Path) -> None:
    async with running(tmp_path, points=JOINT) as runtime:
        chat = {"model": "free", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
        found = await _route(runtime, chat=chat)
        assert [one["model"] for one in found["models"]] == ["free"]
        with pytest.raises(RequestError, match="messages is empty"):
            await _route(runtime, chat={"messages": []})
        with pytest.raises(ModelUnknown, match="no-such"):
            await _route(runtime, chat={**chat, "model": "no-such"})


async def test_a_call_that_was_made_is_explained(tmp_path: Path) -> None:
    async with running(tmp_path, points=JOINT) as runtime:
        body = b'{"model":"auto","messages":[{"role":"user","content":"Why?"}]}'
        answer = await runtime.gateway.complete(Request(body, scope=Scope()))
        async for _ in answer.chunks:
            pass
        call = answer.transit.call.id
        found = await _route(runtime, call=call)
        with pytest.raises(InputError, match="there is no call"):
            await _route(runtime, msgspec.structs.replace(OWNER, scope=Scope("other")), call=call)
        with pytest.raises(InputError, match="NUL"):
            await _route(runtime, call="\x00")
    decision = answer.transit.decisions[0]
    assert found["made"]["action"] == decision.action
    assert found["made"]["propensity"] == pytest.approx(float(decision.propensity))
    assert found["why"] == decision.extra["why"]
    assert found["models"]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"prompt": "x", "call": "y"}, {"prompt": ""}, {"prompt": 5}, {"prompt": "x", "quality_floor": 0}, {"x": 1}],
)
async def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    async with running(tmp_path) as runtime:
        with pytest.raises(InputError):
            await _route(runtime, **arguments)


async def test_an_unknown_objective_is_refused_with_those_there_are(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with pytest.raises(RequestError, match="cheapest, balanced or best"):
            await _route(runtime, prompt="x", objective="fast")


async def test_a_key_sees_its_own_tenant_alone(tmp_path: Path) -> None:
    async with running(tmp_path, points=JOINT) as runtime:
        other = await _route(runtime, prompt="x", tenant="other")
        assert other["tenant"] == "other"
        ann = Caller(Scope("acme", "one"), "admin", "ann")
        assert (await _route(runtime, ann, prompt="x", tenant="acme"))["tenant"] == "acme"
        for elsewhere in ({"tenant": "other"}, {"workspace": "two"}):
            with pytest.raises(AccessError, match="sees tenant 'acme', workspace 'one' alone"):
                await _route(runtime, ann, prompt="x", **elsewhere)


ARMS = (Arm("a", 0.8, 0.1, 0.7, 5), Arm("b", 0.4, 0.2, 0.3, 2))


@pytest.mark.parametrize(
    ("options", "guards", "context", "floor"),
    [
        ({}, (), {}, None),
        ({"quality_percent": 50.0}, (), {}, 0.4),
        ({"quality_percent": 50.0, "reference": "b"}, (), {}, 0.2),
        ({}, (), {"objective:cheapest": 1.0}, 0.68),
        ({"quality_percent": 50.0}, (), {"objective:best": 1.0}, None),
        ({}, (), {"objective:quality_percent": 25.0}, 0.2),
        ({"quality_percent": 50.0}, (GuardOptions("floor", {"reference": "b"}),), {}, 0.38),
    ],
)
def test_the_floor_is_a_share_of_what_is_predicted_of_the_reference(
    options: dict[str, Any], guards: tuple[GuardOptions, ...], context: dict[str, float], floor: float | None
) -> None:
    found = routing.floor_of(PointOptions(options=options, guards=guards), context, ARMS)
    assert found == (None if floor is None else pytest.approx(floor))


def test_a_floor_of_models_that_nothing_is_predicted_of_is_none() -> None:
    assert routing.floor_of(PointOptions(options={"quality_percent": 50.0}), {}, [Arm("a", None, None, 1.0, 0)]) is None


async def test_what_a_floor_knows_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guards = [{"guard": "floor", "options": {"reference": "cheap", "audit_share": 0.5}}]
    points = {"model": {**JOINT["model"], "guards": guards}}
    async with running(tmp_path, points=points) as runtime:
        for number in range(3):
            body = {"model": "auto", "messages": [{"role": "user", "content": f"Why {number}?"}]}
            answer = await runtime.gateway.complete(Request(msgspec.json.encode(body), scope=Scope()))
            async for _ in answer.chunks:
                pass
            rating = FeedbackRequest(target=answer.transit.call.id, kind="rating", value=1.0)
            await runtime.feedback(Scope(), rating)
        await runtime.caught_up()
        found = await _route(runtime, prompt="Why does it turn?")
        other = await _route(runtime, prompt="Why does it turn?", tenant="other")
        assert runtime.loop.failures == {}
    (report,) = found["floors"]
    assert (report["content"], report["percent"], report["moved"], report["window"]) == ("", 95.0, False, 0)
    assert other["floors"] == []
    sent = msgspec.json.decode(msgspec.json.encode(found))
    assert sent["floors"] == found["floors"]
    assert routing.show(sent, as_json=False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"floor: {report['told']}; window 0, {report['audited']} audited calls" in shown
    assert "price of money: " in shown


def test_the_line_tells_what_calls_did_cost_where_the_policy_learns_it() -> None:
    context = {"cost_nusd:a": 712_345.0}
    line = routing.line(routing.expected(ARMS, context, (350_000.0, 1.0)), None)
    assert "a: predicted quality 0.80 +- 0.10, 0.00035 USD, p 0.70" in line
    assert "b: predicted quality 0.40 +- 0.20, p 0.30" in line


def test_the_likeliest_model_comes_first() -> None:
    context = {"cost_nusd:a": 712_345.0, "cost_nusd:b": (1.0, 2.0)}
    line = routing.line(routing.expected(ARMS[::-1], context), 0.9)
    assert line == (
        "a: predicted quality 0.80 +- 0.10, floor 0.90, 0.00071 USD, p 0.70; "
        "b: predicted quality 0.40 +- 0.20, floor 0.90, p 0.30"
    )
