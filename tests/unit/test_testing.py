"""What tests of Windlass start from."""

from __future__ import annotations

import json

import pytest

from windlass import testing
from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.provider import ProviderRequest
from windlass.gateway.wire import parse_chat


def _request(model: str = "echo", text: str = "ahoy") -> ProviderRequest:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    return ProviderRequest("call_1", model, body, parse_chat(body))


def test_every_name_is_there() -> None:
    assert all(callable(getattr(testing, name)) for name in testing.__all__)
    assert sorted(testing.__all__) == testing.__all__


def test_a_clock_moves_only_when_told() -> None:
    clock = testing.Clock(100.0)
    assert (clock(), clock()) == (100.0, 100.0)
    clock.forward(2.5)
    clock.forward(-1.0)
    assert clock() == 101.5


async def test_echo_answers_what_it_was_told_and_keeps_it() -> None:
    echo = testing.Echo("a", "b", failing=("b",), clock=testing.Clock(7.0))
    reply = await echo.send(_request("a"))
    body = json.loads(b"".join([chunk async for chunk in reply.chunks]))
    assert (body["choices"][0]["message"]["content"], body["created"]) == ("ahoy", 7)
    assert [model.name for model in echo.models] == ["a", "b"]
    with pytest.raises(UpstreamError, match="model b is set to fail") as failed:
        await echo.send(_request("b"))
    assert classify(failed.value) is ErrorCategory.UPSTREAM_FAILED
    assert [request.model for request in echo.sent] == ["a", "b"]
    await echo.close()


def test_echo_has_a_model_of_its_own_name() -> None:
    assert [model.name for model in testing.Echo().models] == ["echo"]
