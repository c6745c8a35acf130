"""Requests without a model, things that a provider has stored, and upstreams that stream nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import Client, Windlass, key, opened

from windlass.gateway.dialects import Dialect, tally
from windlass.records import Scope
from windlass.runtime import Runtime

CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "up",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Ahoy"}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "up",
    "output": [{"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Ahoy"}]}],
    "usage": {"input_tokens": 9, "output_tokens": 2},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "up",
    "content": [{"type": "text", "text": "Ahoy"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 2},
}
PRICES = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 10.0}
ASKED: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "Say ahoy"}]},
    "responses": {"model": "m", "input": "Say ahoy"},
    "messages": {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Say ahoy"}]},
}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


@dataclass
class Gate:
    """The application before one upstream."""

    client: Client
    requests: list[bytes]
    runtime: Runtime

    @property
    def sent(self) -> tuple[str, bytes]:
        """The first line and the body of the last request that went up."""
        head, _, body = self.requests[-1].partition(b"\r\n\r\n")
        return head.split(b"\r\n")[0].decode(), body

    def outcome(self) -> Any:
        (trace,) = self.runtime.ledger.calls(Scope())
        assert trace.outcome is not None
        return trace.call.endpoint, trace.outcome.error, trace.outcome.cost_nusd


@asynccontextmanager
async def gate(
    tmp_path: Path, said: Any, *, kind: str = "application/json", endpoints: tuple[str, ...] = (), **changes: Any
) -> AsyncIterator[Gate]:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()

    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", asked)
                requests.append(asked + (await reader.readexactly(int(length[1])) if length else b""))
                writer.write(head + body)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    models = [{"name": "m", "upstream": "up", **PRICES}]
    provider = {"name": "p", "base_url": base_url, "models": models, "endpoints": list(endpoints)}
    named = {"gateway__pass_through": "p", "resilience__attempts": 1} | changes
    tmp_path.mkdir(exist_ok=True)
    async with server, opened(tmp_path / "home", upstreams=[provider], **named) as runtime:
        yield Gate(Client(Windlass(runtime)), requests, runtime)


@pytest.mark.parametrize(
    ("dialect", "endpoints", "said"),
    [
        ("chat", (), CHAT),
        ("responses", (), CHAT),
        ("messages", (), CHAT),
        ("responses", ("responses",), RESPONSE),
        ("messages", ("messages",), MESSAGE),
    ],
)
async def test_a_stream_that_comes_whole_is_written_as_events(
    tmp_path: Path, dialect: Dialect, endpoints: tuple[str, ...], said: Any
) -> None:
    async with gate(tmp_path, said, endpoints=endpoints) as through:
        response = await through.client.post(PATHS[dialect], {**ASKED[dialect], "stream": True})
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        read = tally(dialect, stream=True)
        read.feed(response.body)
        read.end()
        assert (read.complete, read.text) == (True, "Ahoy")
        assert (b'"usage":{' in response.body) == (dialect != "chat"), "a chat has not asked for it"
        assert through.outcome() == (dialect, "", 9 * 1_000 + 2 * 10_000)


async def test_a_chat_that_asked_for_its_usage_gets_it(tmp_path: Path) -> None:
    async with gate(tmp_path, CHAT) as through:
        asked = {**ASKED["chat"], "stream": True, "stream_options": {"include_usage": True}}
        response = await through.client.post(PATHS["chat"], asked)
        assert response.body.count(b'"usage":{') == 1
        assert response.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("said", [b"{", b'{"error":{"message":"full","code":"overloaded"}}', b"{}"])
async def test_what_is_no_whole_answer_is_no_stream(tmp_path: Path, dialect: str, said: bytes) -> None:
    async with gate(tmp_path, said) as through:
        response = await through.client.post(PATHS[dialect], {**ASKED[dialect], "stream": True})
        assert response.status >= 500
        assert b"error" in response.body
        assert through.outcome()[1] != ""


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/completions"])
async def test_pictures_that_come_whole_stay_whole_and_a_page_is_refused(tmp_path: Path, path: str) -> None:
    asked = {"model": "m", "prompt": "a pawl", "stream": True}
    said = {"created": 1, "choices": [{"text": "x"}], "usage": {"input_tokens": 9, "output_tokens": 2}}
    async with gate(tmp_path, said) as through:
        response = await through.client.post(path, asked)
        assert (response.status, response.json) == (200, said)
        assert through.outcome()[1:] == ("", 9 * 1_000 + 2 * 10_000)
    async with gate(tmp_path / "page", b"<html>", kind="text/html") as through:
        response = await through.client.post(path, asked)
        assert (response.status, response.code) == (502, "content_type_wrong")


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/images/generations", "/v1/responses"])
async def test_the_provider_chooses_the_model_where_none_is_named(tmp_path: Path, path: str) -> None:
    body = b'{ "input" : "x", "prompt": "x" }'
    async with gate(tmp_path, RESPONSE, endpoints=("responses",)) as through:
        response = await through.client.post(path, body)
        assert (response.status, response.json) == (200, RESPONSE)
        assert through.sent == (f"POST {path} HTTP/1.1", body)
    off = {"gateway__pass_through": ""}
    async with gate(tmp_path / "off", RESPONSE, endpoints=("responses",), **off) as through:
        response = await through.client.post(path, body)
        assert (response.status, response.json["error"]["param"]) == (400, "model")
        assert through.requests == []


@pytest.mark.parametrize(
    ("path", "said", "nusd"),
    [
        ("/v1/responses", RESPONSE, 9 * 1_000 + 2 * 10_000),
        ("/v1/moderations", RESPONSE, 9 * 1_000 + 2 * 10_000),
        ("/v1/rerank", {**RESPONSE, "model": "m"}, 9 * 1_000 + 2 * 10_000),
        ("/v1/rerank", {**RESPONSE, "model": "a stranger"}, 0),
        ("/v1/rerank", {**RESPONSE, "model": 7}, 0),
        ("/v1/rerank", {"model": "up", "usage": {}}, 0),
        ("/v1/responses/resp_1/cancel", RESPONSE, 0),
        ("/v1/chat/completions/chatcmpl_1", {"model": "up", "usage": RESPONSE["usage"]}, 0),
    ],
)
async def test_a_model_that_the_provider_chose_is_billed_as_it_counts(
    tmp_path: Path, path: str, said: dict[str, Any], nusd: int
) -> None:
    """What is stored was billed when it was made, and a guess bills nobody."""
    async with gate(tmp_path, said, endpoints=("responses",)) as through:
        assert (await through.client.post(path, b'{"input":"x"}')).status == 200
        assert through.outcome()[1:] == ("", nusd)


async def test_messages_and_chats_always_name_a_model(tmp_path: Path) -> None:
    async with gate(tmp_path, CHAT, endpoints=("messages",)) as through:
        for dialect in ("chat", "messages"):
            asked = {name: value for name, value in ASKED[dialect].items() if name != "model"}
            assert (await through.client.post(PATHS[dialect], asked)).status == 400
        assert (await through.client.post("/v1/responses", {"model": 7, "input": "x"})).status == 400
        assert through.requests == []


async def test_what_a_provider_has_stored_is_read_and_its_failure_is_no_failed_call(tmp_path: Path) -> None:
    failed = {**RESPONSE, "status": "failed", "error": {"code": "server_error", "message": "x"}}
    async with gate(tmp_path, failed, endpoints=("responses",)) as through:
        response = await through.client.get("/v1/responses/resp_1")
        assert (response.status, response.json) == (200, failed)
        assert through.sent[0] == "GET /v1/responses/resp_1 HTTP/1.1"
        assert through.outcome() == ("responses.stored", "", 0)
    async with gate(tmp_path / "list", {"object": "list", "data": []}) as through:
        assert (await through.client.get("/v1/chat/completions")).status == 200
        assert through.outcome()[0] == "chat.stored"


async def test_without_a_provider_for_it_nothing_stored_is_read(tmp_path: Path) -> None:
    async with gate(tmp_path, {}, gateway__pass_through="") as through:
        assert (await through.client.get("/v1/chat/completions")).status == 405
        assert (await through.client.get("/v1/responses/resp_1")).status == 404
    async with gate(tmp_path / "chats", {}) as through:
        response = await through.client.get("/v1/responses/resp_1")
        assert response.status == 404, "its upstream speaks no Responses"
        assert through.requests == []


async def test_a_wrong_key_reads_nothing_stored(tmp_path: Path) -> None:
    async with gate(tmp_path, {}, keys=[key("acme", "acme")]) as through:
        for path in ("/v1/chat/completions", "/v1/responses/resp_1", "/v1/files"):
            assert (await through.client.get(path)).status == 401
        assert through.requests == []
