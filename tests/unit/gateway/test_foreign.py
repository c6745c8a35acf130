"""Responses and Messages over the one walk: translated for a provider of chats, else as they came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import Client, Upstream, Windlass, opened, upstream

from windlass.records import Scope
from windlass.runtime import Runtime

CHAT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"up","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"Ahoy"}}],"usage":{"prompt_tokens":9,"completion_tokens":2,'
    b'"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}}'
)
PRICES = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 10.0}
ASKED = {
    "responses": {"model": "m", "input": "Say ahoy", "user": "u1"},
    "messages": {
        "model": "m", "max_tokens": 50, "metadata": {"user_id": "u1"},
        "messages": [{"role": "user", "content": "Say ahoy"}],
    },
}  # fmt: skip


def _event(**choice: Any) -> bytes:
    part = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, **choice}],
    }
    return b"data: " + json.dumps(part).encode() + b"\n\n"


STREAM = [
    _event(delta={"role": "assistant", "content": "Ah"}, finish_reason=None),
    _event(delta={"content": "oy"}, finish_reason=None),
    _event(delta={}, finish_reason="stop"),
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"up","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n\n',
    b"data: [DONE]\n\n",
]


def _http(body: bytes, kind: str = "application/json", status: str = "200 OK", *, whole: bool = True) -> bytes:
    length = f"content-length: {len(body)}\r\n" if whole else "connection: close\r\n"
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}\r\n".encode() + body


async def _asked(
    tmp_path: Path, answer: bytes, path: str, body: object, *, endpoints: tuple[str, ...] = ()
) -> tuple[Any, Upstream, Runtime]:
    async def reply(writer: Any) -> None:
        writer.write(answer)
        if b"connection: close" in answer:
            await writer.drain()
            writer.close()

    async with upstream(reply) as server:
        model = {"name": "m", "upstream": "up", **PRICES}
        provider = {"name": "p", "base_url": server.url, "models": [model], "endpoints": list(endpoints)}
        once = {"resilience__attempts": 1}
        async with opened(tmp_path / "home", upstreams=[provider], **once) as runtime:
            response = await Client(Windlass(runtime)).post(path, body)
            (trace,) = runtime.ledger.calls(Scope())
            assert trace.outcome is not None
            assert trace.call.user == "u1"
            return response, server, trace


@pytest.mark.parametrize("dialect", ASKED)
async def test_a_chat_upstream_answers_in_the_clients_dialect(tmp_path: Path, dialect: str) -> None:
    response, server, trace = await _asked(tmp_path, _http(CHAT), f"/v1/{dialect}", ASKED[dialect])
    assert response.status == 200
    assert b"POST /v1/chat/completions " in server.requests[0]
    sent = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert (sent["model"], sent["messages"][-1]["content"]) == ("up", "Say ahoy")
    said = response.json
    text = said["output"][0]["content"][0]["text"] if dialect == "responses" else said["content"][0]["text"]
    assert (text, said["model"]) == ("Ahoy", "m")
    assert trace.call.endpoint == dialect
    assert (trace.outcome.prompt_tokens, trace.outcome.completion_tokens, trace.outcome.tokens_estimated) == (
        9,
        2,
        False,
    )
    assert trace.outcome.cost_nusd == 9 * 1_000 + 2 * 10_000
    assert response.headers["x-windlass-cost-nusd"] == str(trace.outcome.cost_nusd)
    assert [decision.action for decision in trace.decisions] == ["m"]


@pytest.mark.parametrize("dialect", ASKED)
async def test_a_stream_costs_what_the_whole_reply_costs(tmp_path: Path, dialect: str) -> None:
    answer = _http(b"".join(STREAM), "text/event-stream", whole=False)
    response, server, trace = await _asked(tmp_path, answer, f"/v1/{dialect}", {**ASKED[dialect], "stream": True})
    end = b"event: response.completed" if dialect == "responses" else b"event: message_stop"
    assert response.body.count(end) == 1
    assert b"[DONE]" not in response.body
    assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["stream_options"] == {"include_usage": True}
    assert (trace.outcome.error, trace.outcome.cost_nusd) == ("", 9 * 1_000 + 2 * 10_000)


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize("events", [1, 2])
async def test_a_cut_stream_never_ends_well(tmp_path: Path, dialect: str, events: int) -> None:
    answer = _http(b"".join(STREAM[:events]), "text/event-stream", whole=False)
    response, _, trace = await _asked(tmp_path, answer, f"/v1/{dialect}", {**ASKED[dialect], "stream": True})
    assert b"message_stop" not in response.body
    assert b"response.completed" not in response.body
    assert response.body.count(b"event: error") == 1
    assert trace.outcome.error == "stream_cut"
    assert trace.outcome.tokens_estimated


@pytest.mark.parametrize("dialect", ASKED)
async def test_a_refusal_comes_in_the_clients_envelope(tmp_path: Path, dialect: str) -> None:
    said = b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}'
    answer = _http(said, status="429 Too Many Requests")
    response, _, trace = await _asked(tmp_path, answer, f"/v1/{dialect}", ASKED[dialect])
    assert response.status == 429
    assert response.json["error"]["message"] == "slow down"
    assert ("type" in response.json) == (dialect == "messages")
    assert (trace.outcome.error, trace.outcome.cost_nusd) == ("rate_limited", 0)


async def test_a_provider_that_speaks_the_dialect_gets_the_request_as_it_came(tmp_path: Path) -> None:
    said = b'{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","role":"assistant",' \
        b'"content":[{"type":"output_text","text":"Ahoy"}]}],"usage":{"input_tokens":9,"output_tokens":2}}'  # fmt: skip
    body = {**ASKED["responses"], "store": True, "tools": [{"type": "web_search"}], "x_new": 1.50}
    response, server, trace = await _asked(tmp_path, _http(said), "/v1/responses", body, endpoints=("responses",))
    assert response.body == said
    assert b"POST /v1/responses " in server.requests[0]
    assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2]) == {**body, "model": "up"}
    assert trace.outcome.cost_nusd == 9 * 1_000 + 2 * 10_000


async def test_what_a_chat_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    provider = {"name": "p", "base_url": "http://127.0.0.1:9/v1", "models": [{"name": "m"}]}
    async with opened(tmp_path / "home", upstreams=[provider]) as runtime:
        client = Client(Windlass(runtime))
        response = await client.post("/v1/responses", {**ASKED["responses"], "previous_response_id": "resp_1"})
        assert (response.status, response.json["error"]["param"]) == (400, "previous_response_id")
        wrong = await client.post("/v1/messages", {**ASKED["messages"], "model": "nobody"})
        assert (wrong.status, wrong.json["type"], wrong.json["error"]["type"]) == (404, "error", "not_found_error")
        counted = await client.post("/v1/messages/count_tokens", ASKED["messages"])
        longer = {**ASKED["messages"], "messages": [{"role": "user", "content": "Say ahoy " * 50}]}
        more = await client.post("/v1/messages/count_tokens", longer)
        assert 0 < counted.json["input_tokens"] < more.json["input_tokens"]
        assert counted.headers["x-windlass-estimated"] == "true"
        body = b'{"model": "m", "messages": 1e999}'.replace(b'"m"', msgspec.json.encode(ASKED["messages"]["model"]))
        beyond = await client.request("POST", "/v1/messages/count_tokens", [body], {"content-type": "application/json"})
        assert beyond.status == 400, "a number that nobody can hold is the client's mistake"
