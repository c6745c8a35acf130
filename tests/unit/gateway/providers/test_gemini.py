"""Gemini's own: the model and whether to stream stand in the path, the key in a header, waits and keys in bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.gateway.providers.kinds import (
    GOLDEN,
    KEY,
    connected,
    events,
    head_of,
    options,
    read,
    request,
    streamed,
    whole,
)

from windlass.errors import upstream_category
from windlass.gateway.provider import Embeds, Relays
from windlass.gateway.providers.gemini import Gemini

REPLY = (GOLDEN / "replies" / "text.gemini.json").read_bytes()
STREAM = (GOLDEN / "streams" / "text.gemini.txt").read_bytes()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-x", "/v1/models/gemini-x"),
        ("models/gemini-x", "/v1/models/gemini-x"),
        ("tunedModels/mine-1", "/v1/tunedModels/mine-1"),
    ],
)
async def test_a_chat_goes_to_the_model(model: str, path: str) -> None:
    async with connected("gemini", whole("200 OK", REPLY)) as (provider, server):
        told = json.loads(await read(await provider.send(request(model))))
        first, headers, body = head_of(server)
    assert first == f"POST {path}:generateContent HTTP/1.1"
    assert headers["x-goog-api-key"] == KEY
    assert json.loads(body)["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    assert told["model"] == "shown"


async def test_a_stream_is_asked_for_as_events() -> None:
    async with connected("gemini", events(STREAM)) as (provider, server):
        await read(await provider.send(streamed()))
        first, _, _ = head_of(server)
    assert first == "POST /v1/models/sent:streamGenerateContent?alt=sse HTTP/1.1"


@pytest.mark.parametrize(
    "model",
    ["", ".", "..", "../secret", "a/b", "models/", "models/..", "a?key=1", "a:b", "a b", "é", "a\r\nx: y", "%2e"],
)
async def test_a_name_that_leads_elsewhere_is_not_sent(model: str) -> None:
    async with connected("gemini", whole("200 OK", REPLY)) as (provider, server):
        reply = await provider.send(request(model))
        assert (reply.status, json.loads(await read(reply))["error"]["code"]) == (404, "model_not_found")
        assert server.requests == []


def _refusal(*details: Any, status: str = "INVALID_ARGUMENT", code: int = 400) -> dict[str, Any]:
    return {"error": {"code": code, "message": "no", "status": status, "details": list(details)}}


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_wrong_key_is_ours_and_not_the_clients(wrapped: bool) -> None:
    said: Any = _refusal({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"})
    body = json.dumps([said] if wrapped else said).encode()
    async with connected("gemini", whole("400 Bad Request", body)) as (provider, _):
        reply = await provider.send(request())
        assert (reply.status, json.loads(await read(reply))["error"]["type"]) == (401, "authentication_error")
    assert upstream_category(401) is not upstream_category(400)


@pytest.mark.parametrize(
    ("delay", "headers"),
    [
        ("34.07s", {"retry-after": "35"}),
        ("7s", {"retry-after": "7"}),
        ("-1s", {}),
        ("1e9s", {}),
        ("soon", {}),
        (7, {}),
        ("9" * 400 + "s", {}),
    ],
)
async def test_how_long_to_wait_is_read_from_the_body(delay: Any, headers: dict[str, str]) -> None:
    body = json.dumps(_refusal("odd", {"retryDelay": delay}, status="RESOURCE_EXHAUSTED", code=429)).encode()
    async with connected("gemini", whole("429 Too Many Requests", body)) as (provider, _):
        reply = await provider.send(request())
        assert (reply.status, reply.headers) == (429, headers)
        assert json.loads(await read(reply))["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"error": "no"}', b'{"error": {"details": 3}}', b"[" * 9000])
async def test_a_refusal_of_any_form_keeps_its_status(body: bytes) -> None:
    async with connected("gemini", whole("400 Bad Request", body)) as (provider, _):
        reply = await provider.send(request())
        assert reply.status == 400
        assert json.loads(await read(reply))["error"]["message"]


def test_it_answers_chats_alone() -> None:
    made = options("gemini")
    assert made.base_url == "https://generativelanguage.googleapis.com/v1beta"
    provider = Gemini(made)
    assert not isinstance(provider, Relays | Embeds)
