"""`/v1/embeddings` over the wire: admission, envelopes, and an upstream that is stopped when its client leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import Client, key, opened, upstream

from windlass.ledger.ledger import ALL
from windlass.records import Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass

EMBEDDINGS = "/v1/embeddings"
BODY = (
    b'{"object":"list","data":[{"index":0,"embedding":[0.5, 1e0]}],'
    b'"model":"theirs","usage":{"prompt_tokens":3},"x":1.50}'
)
KEYS = [key("acme", "acme", "one", "two"), key("globex", "globex")]


def _provider(url: str, **options: Any) -> dict[str, Any]:
    model = {"name": "m", "upstream": "theirs", "prompt_usd_per_million": 2.0}
    return {"name": "up", "base_url": url, "models": [model], **options}


def _says(body: bytes, status: str = "200 OK") -> Any:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 9\r\ncontent-length: {len(body)}\r\n"
        )
        writer.write(head.encode() + b"\r\n" + body)

    return answer


async def _silent(_writer: asyncio.StreamWriter) -> None:
    """Never answer."""


def _outcomes(runtime: Runtime) -> list[Outcome]:
    return [entry.record for entry in runtime.ledger.read(ALL) if isinstance(entry.record, Outcome)]


async def test_an_upstreams_vectors_pass_byte_for_byte_and_are_recorded_for_the_tenant(tmp_path: Path) -> None:
    async with (
        upstream(_says(BODY)) as server,
        opened(tmp_path, upstreams=[_provider(server.url)], keys=KEYS) as runtime,
    ):
        client = Client(Windlass(runtime), bearer="secret-acme")
        sent = {"model": "m", "input": ["a"], "x_unknown": [1.5]}
        response = await client.post(EMBEDDINGS, sent, x_windlass_workspace="two", x_windlass_parent="answer_7")
        assert (response.status, response.body) == (200, BODY)
        assert response.headers["x-windlass-model"] == "m"
        head, _, arrived = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/embeddings ")
        assert json.loads(arrived) == {**sent, "model": "theirs"}
        trace = runtime.ledger.trace(Scope("acme", "two"), response.headers["x-windlass-call"])
        assert trace is not None
        assert trace.outcome is not None
        assert (trace.call.endpoint, trace.call.parent, trace.outcome.cost_nusd) == ("embeddings", "answer_7", 6_000)
        assert runtime.ledger.trace(Scope("globex", "default"), trace.call.id) is None


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "429 Slow", "500 Oops"])
async def test_an_upstreams_refusal_passes_with_its_words(tmp_path: Path, status: str) -> None:
    body = b'{"error": {"message": "no"}}'
    async with (
        upstream(_says(body, status)) as server,
        opened(tmp_path, upstreams=[_provider(server.url)], resilience__attempts=1) as runtime,
    ):
        response = await Client(Windlass(runtime)).post(EMBEDDINGS, {"model": "m", "input": "a"})
        assert (response.status, response.body, response.headers["retry-after"]) == (int(status[:3]), body, "9")
        (outcome,) = _outcomes(runtime)
        assert (outcome.status, outcome.prompt_tokens, outcome.cost_nusd) == (int(status[:3]), 0, 0)
        assert outcome.error


async def test_an_upstream_that_is_not_there_is_502_and_a_slow_one_504(tmp_path: Path) -> None:
    async with upstream(_silent) as server:
        slow = _provider(server.url, first_byte_timeout_s=0.05)
        dead = {**_provider("http://127.0.0.1:1/v1"), "name": "dead", "models": [{"name": "d"}]}
        async with opened(tmp_path, upstreams=[slow, dead]) as runtime:
            for model, status, code in (("m", 504, "first_byte_timeout"), ("d", 502, "connect_refused")):
                response = await Client(Windlass(runtime)).post(EMBEDDINGS, {"model": model, "input": "a"})
                assert (response.status, response.code) == (status, code)
            assert [outcome.error for outcome in _outcomes(runtime)] == ["first_byte_timeout", "connect_refused"]


async def test_a_client_that_leaves_stops_the_upstream(tmp_path: Path) -> None:
    async with upstream(_silent) as server, opened(tmp_path, upstreams=[_provider(server.url)]) as runtime:
        client = Client(Windlass(runtime))
        asking = asyncio.create_task(client.post(EMBEDDINGS, {"model": "m", "input": "a"}))
        async with asyncio.timeout(2):
            while not server.requests:
                await asyncio.sleep(0.001)
            client.leave.set()
            response = await asking
            await server.hung_up.wait()
        assert (response.status, response.parts) == (0, [])
        assert [(outcome.status, outcome.error) for outcome in _outcomes(runtime)] == [(499, "client_gone")]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "invalid_json", None),
        (b"[]", 400, "invalid_request", None),
        (b'{"model":"m"}', 400, "invalid_request", "input"),
        (b'{"model":"m","input":[]}', 400, "invalid_request", "input"),
        (b'{"model":"auto","input":"x"}', 404, "model_not_found", "model"),
        (b'{"model":"local/quotes-fast","input":"x"}', 404, "model_not_found", "model"),
        (b"x" * 200_001, 413, "body_too_large", None),
    ],
    ids=range(7),
)
async def test_every_refusal_is_an_envelope_and_leaves_nothing(
    tmp_path: Path, body: bytes, status: int, code: str, param: str | None
) -> None:
    async with opened(tmp_path, gateway__max_body_bytes=200_000) as runtime:
        response = await Client(Windlass(runtime)).post(EMBEDDINGS, body)
        assert (response.status, response.code, response.json["error"]["param"]) == (status, code, param)
        assert _outcomes(runtime) == []


async def test_a_wrong_key_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=KEYS) as runtime:
        for bearer in ("", "wrong"):
            response = await Client(Windlass(runtime), bearer=bearer).post(EMBEDDINGS, b"x" * 9_000_000)
            assert (response.status, response.code) == (401, "invalid_api_key")
        elsewhere = Client(Windlass(runtime), bearer="secret-acme")
        response = await elsewhere.post(EMBEDDINGS, {"model": "m", "input": "a"}, x_windlass_workspace="three")
        assert response.status == 401


async def test_the_path_takes_posts_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        assert (await Client(Windlass(runtime)).get(EMBEDDINGS)).status == 405
