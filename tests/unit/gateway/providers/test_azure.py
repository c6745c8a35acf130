"""Azure: OpenAI's dialect, byte for byte, at the addresses and with the header of a resource."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.gateway.providers.kinds import KEY, connected, events, head_of, options, read, request, streamed, whole

from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ANY, EmbeddingRequest, RawRequest
from windlass.gateway.providers.azure import Azure
from windlass.gateway.wire import parse_embedding

DATED = {"api_version": "2024-10-21"}
MODELS = (ModelOptions(name="shown", upstream="my dep/1"), ModelOptions(name="plain"), ModelOptions(name=ANY))
REPLY = b'{"choices": [{"index": 0, "message": {"content": "a"}, "content_filter_results": {}}], "x": 1.50}'
STREAM = b'data: {"choices": [], "prompt_filter_results": []}\n\ndata: {"choices": [{"delta": {}}]}\n\ndata: [DONE]\n\n'


def _raw(path: str, model: str = "shown", method: str = "POST") -> RawRequest:
    return RawRequest(
        "c1", model, method, path, b"--b\r\n" if method == "POST" else b"", "multipart/form-data; boundary=b"
    )


@pytest.mark.parametrize(
    ("given", "base", "path"),
    [
        ({}, "", "/v1/openai/v1/chat/completions"),
        ({}, "/openai", "/v1/openai/v1/chat/completions"),
        ({}, "/openai/v1/", "/v1/openai/v1/chat/completions"),
        ({"api_version": "preview"}, "", "/v1/openai/v1/chat/completions?api-version=preview"),
        (DATED, "", "/v1/openai/deployments/my%20dep%2F1/chat/completions?api-version=2024-10-21"),
        (DATED, "/openai/", "/v1/openai/deployments/my%20dep%2F1/chat/completions?api-version=2024-10-21"),
    ],
)
async def test_a_chat_goes_up_and_comes_down_byte_for_byte(given: dict[str, Any], base: str, path: str) -> None:
    asked = request("my dep/1", unheard_of={"deep": [1.50]})
    async with connected("azure", whole("200 OK", REPLY), models=MODELS, options=given) as (_, server):
        provider = Azure(options("azure", server.url + base, MODELS, options=given), KEY)
        reply = await provider.send(asked)
        assert (reply.status, await read(reply)) == (200, REPLY)
        await provider.close()
        first, headers, body = head_of(server)
    assert first == f"POST {path} HTTP/1.1"
    assert (headers["api-key"], body) == (KEY, asked.body)
    assert "authorization" not in headers


async def test_a_stream_is_untouched() -> None:
    async with connected("azure", events(STREAM, 3), models=MODELS) as (provider, _):
        assert await read(await provider.send(streamed())) == STREAM


async def test_vectors_have_their_deployment() -> None:
    body = b'{"model":"my dep/1","input":["a"]}'
    async with connected("azure", whole("200 OK", b'{"data":[]}'), models=MODELS, options=DATED) as (provider, server):
        await read(await provider.embed(EmbeddingRequest("c1", "shown", body, parse_embedding(body))))
        first, _, sent = head_of(server)
    assert first == "POST /v1/openai/deployments/my%20dep%2F1/embeddings?api-version=2024-10-21 HTTP/1.1"
    assert sent == body


@pytest.mark.parametrize(
    ("given", "asked", "path"),
    [
        (DATED, _raw("/audio/speech"), "/deployments/my%20dep%2F1/audio/speech?api-version=2024-10-21"),
        (DATED, _raw("/images/edits", "plain"), "/deployments/plain/images/edits?api-version=2024-10-21"),
        (DATED, _raw("/images/edits", "other"), "/deployments/other/images/edits?api-version=2024-10-21"),
        (DATED, _raw("/files?a=b", "", "POST"), "/files?a=b&api-version=2024-10-21"),
        ({}, _raw("/audio/speech"), "/v1/audio/speech"),
        ({}, _raw("/files?a=b", ""), "/v1/files?a=b"),
    ],
)
async def test_other_endpoints_have_their_deployment(given: dict[str, Any], asked: RawRequest, path: str) -> None:
    async with connected("azure", whole("200 OK", b"{}"), models=MODELS, options=given) as (provider, server):
        await read(await provider.relay(asked))
        first, headers, _ = head_of(server)
    assert first == f"POST /v1/openai{path} HTTP/1.1"
    assert headers["content-type"] == "multipart/form-data; boundary=b"


@pytest.mark.parametrize("name", [".", ".."])
async def test_a_name_that_leads_elsewhere_is_not_sent(name: str) -> None:
    models = (ModelOptions(name=ANY),)
    async with connected("azure", whole("200 OK", b"{}"), models=models, options=DATED) as (provider, server):
        reply = await provider.relay(_raw("/audio/speech", name))
        assert (reply.status, json.loads(await read(reply))["error"]["code"]) == (404, "model_not_found")
        assert server.requests == []


async def test_a_name_stays_one_part_of_the_path() -> None:
    models = (ModelOptions(name=ANY),)
    async with connected("azure", whole("200 OK", b"{}"), models=models, options=DATED) as (provider, server):
        await read(await provider.relay(_raw("/audio/speech", "../../x?y#z\r\né")))
        first, _, _ = head_of(server)
    assert first.startswith("POST /v1/openai/deployments/..%2F..%2Fx%3Fy%23z%0D%0A%C3%A9/audio/speech?api-version=")


def test_which_endpoints_it_speaks() -> None:
    names = ("responses", "messages", "messages.count_tokens", "audio.speech", "files")
    for given, more, expected in (
        ({}, {}, ["responses", "audio.speech", "files"]),
        (DATED, {}, ["audio.speech", "files"]),
        ({}, {"endpoints": ("messages",)}, ["messages", "messages.count_tokens", "audio.speech", "files"]),
    ):
        provider = Azure(options("azure", "https://r.openai.azure.com", MODELS, options=given, **more))
        assert [name for name in names if provider.serves(name)] == expected
