"""Requests that once were answered with a fault of ours: numbers that nothing holds, streams of what never streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import Client
from tests.property.faithful import before, faithful, reply

from windlass.server.app import Windlass

MESSAGES = b'"messages":[{"role":"user","content":"x"}]'


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 5_000])
async def test_a_number_that_nothing_holds_is_the_clients_mistake(tmp_path: Path, number: bytes) -> None:
    async with faithful() as upstream, before(upstream, tmp_path) as runtime:
        client = Client(Windlass(runtime), bearer="secret-boss")
        body = b'{"model":"plain",%b,"tools":[{"type":"function","function":{"name":"f","parameters":{"a":%b}}}]}'
        response = await client.post("/v1/chat/completions", body % (MESSAGES, number))
        assert response.status == 400, response.body


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/responses/compact"])
async def test_what_never_streams_answers_a_body_that_was_written_for_a_stream(tmp_path: Path, path: str) -> None:
    async with faithful() as upstream, before(upstream, tmp_path) as runtime:
        client = Client(Windlass(runtime), bearer="secret-boss")
        body = b'{"model":"plain",%b,"input":"x","max_tokens":5,"stream":true}' % MESSAGES
        assert (await client.post(path, body)).status == 200


@pytest.mark.parametrize("query", [b"", b"beta=true"])
async def test_tokens_are_counted_for_a_model_of_any_kind(tmp_path: Path, query: bytes) -> None:
    """Anthropic's client sends `?beta=true` with its beta calls."""
    async with faithful() as upstream, before(upstream, tmp_path) as runtime:
        app = Windlass(runtime)

        async def asking(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "query_string": query}, receive, send)

        client = Client(asking, bearer="secret-boss")  # type: ignore[arg-type]
        response = await client.post("/v1/messages/count_tokens", b'{"model":"gemini",%b}' % MESSAGES)
        assert response.status == 200, response.body


async def test_tokens_of_a_form_are_the_clients_mistake(tmp_path: Path) -> None:
    async with faithful() as upstream, before(upstream, tmp_path) as runtime:
        client = Client(Windlass(runtime), bearer="secret-boss")
        form = b'--c\r\nContent-Disposition: form-data; name="model"\r\n\r\ngemini\r\n--c--\r\n'
        kind = {"content-type": "multipart/form-data; boundary=c"}
        assert (await client.post("/v1/messages/count_tokens", form, **kind)).status == 400


async def test_a_redirect_is_not_billed_by_guess(tmp_path: Path) -> None:
    async with faithful() as upstream:
        upstream.aside = lambda _first: reply("text/html", b"moved", "302 Found", "location: /elsewhere")
        async with before(upstream, tmp_path) as runtime:
            client = Client(Windlass(runtime), bearer="secret-boss")
            response = await client.post("/v1/chat/completions", b'{"model":"plain",%b}' % MESSAGES)
            assert response.headers.get("x-windlass-cost-nusd", "0") == "0"
