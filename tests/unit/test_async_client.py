"""`windlass.AsyncClient`: the call path in process on the caller's own loop; `Client` is the same for plain threads."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.golden.application import tables

from windlass import (
    AccessError,
    AsyncClient,
    Client,
    Embedded,
    ModelUnknown,
    RequestError,
    SettingsError,
    UpstreamError,
)
from windlass.errors import LedgerError
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import JSON, EmbeddingRequest, ProviderReply
from windlass.gateway.relay import Once
from windlass.testing import Echo

SAID = [{"role": "user", "content": "ahoy"}]
OFF: dict[str, Any] = {"memory.embedder": "off"}
KEYS = [
    {"name": name, "sha256": hashlib.sha256(f"secret-{name}".encode()).hexdigest(), "tenant": name}
    for name in ("acme", "globex")
]


class Lengths(Echo):
    """An Echo that embeds as well: a text's vector is its length and 1. `replies` replaces what it would say."""

    name = "lengths"

    def __init__(self, *replies: bytes) -> None:
        super().__init__("echo", "bad", failing=("bad",))
        self.embedding_models = (ModelOptions(name="lengths"),)
        self.asked: list[EmbeddingRequest] = []
        self._replies = list(replies)

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        self.asked.append(request)
        rows = [[len(text), 1] for text in request.input.texts or ()]
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        body = self._replies.pop(0) if self._replies else json.dumps({"data": data}).encode()
        return ProviderReply(200, JSON, Once(body))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ledger.db").write_bytes(tables())
    (tmp_path / "home" / "ledger.db").chmod(0o600)
    return tmp_path / "home"


@pytest.fixture
async def client(home: Path) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(home, settings=OFF, providers=[Lengths()]) as client:
        yield client


async def test_a_chat_is_answered_rated_and_read_back(client: AsyncClient) -> None:
    reply = await client.chat(SAID, model="echo", parent="answer_1", temperature=0)
    assert (reply.text, reply.status, reply.model) == ("ahoy", 200, "echo")
    said = await client.feedback(reply.call, "rating", value=1.0)
    trace = await client.trace(reply.call)
    assert trace is not None
    assert (trace.call.parent, trace.decisions[0].action) == ("answer_1", "echo")
    assert [kept.id for kept in trace.feedback] == [said.id]
    assert [found.call.id for found in await client.calls(limit=5)] == [reply.call]
    assert await client.trace("call_of_nobody") is None


async def test_many_calls_share_the_loop(client: AsyncClient) -> None:
    said = [f"call {number}" for number in range(50)]
    chats = (client.chat([{"role": "user", "content": text}], model="echo") for text in said)
    assert [reply.text for reply in await asyncio.gather(*chats)] == said


async def test_texts_become_vectors_that_the_ledger_knows_of(client: AsyncClient) -> None:
    found = await client.embed(["a", "four"], model="lengths", parent="answer_2")
    assert isinstance(found, Embedded)
    assert found.vectors.tolist() == [[1.0, 1.0], [4.0, 1.0]]
    assert found.vectors.dtype == np.float32
    trace = await client.trace(found.call)
    assert trace is not None
    assert trace.outcome is not None
    assert (trace.call.endpoint, trace.call.parent, trace.outcome.model) == ("embeddings", "answer_2", "lengths")


@pytest.mark.parametrize(
    ("texts", "fields", "raised"),
    [
        ("one text", {}, RequestError),
        ([], {}, RequestError),
        (["a", 5], {}, RequestError),
        (["\ud800"], {}, RequestError),
        ([object()], {}, RequestError),
        (["a"], {"encoding_format": "hex"}, RequestError),
        (["a"], {"model": "echo"}, ModelUnknown),
        (["a"], {"model": "auto"}, ModelUnknown),
    ],
    ids=range(8),
)
async def test_what_cannot_be_embedded_is_refused(
    client: AsyncClient, texts: Any, fields: dict[str, Any], raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await client.embed(texts, **{"model": "lengths", **fields})
    assert await client.calls() == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": []}', b'{"data": [{"embedding": "!"}]}'])
async def test_an_upstreams_nonsense_is_no_vector(home: Path, body: bytes) -> None:
    once = {**OFF, "resilience.attempts": 1}
    async with AsyncClient(home, settings=once, providers=[Lengths(body)]) as client:
        with pytest.raises(UpstreamError):
            await client.embed(["a"], model="lengths")
        assert (await client.embed(["a"], model="lengths")).vectors.shape == (1, 2), "and the client goes on"


@pytest.mark.parametrize("model", ["nobody", "bad"])
async def test_what_goes_wrong_leaves_the_client_open(client: AsyncClient, model: str) -> None:
    with pytest.raises((ModelUnknown, UpstreamError)):
        await client.chat(SAID, model=model)
    assert (await client.chat(SAID, model="echo")).text == "ahoy"


async def test_a_caller_that_gives_up_is_recorded_as_gone(home: Path) -> None:
    class Silent(Lengths):
        async def embed(self, request: EmbeddingRequest) -> ProviderReply:
            self.asked.append(request)
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

    silent = Silent()
    async with AsyncClient(home, settings=OFF, providers=[silent]) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.embed(["a"], model="lengths")
        (trace,) = await client.calls()
        assert trace.outcome is not None
        assert (len(silent.asked), trace.outcome.error) == (1, "client_gone")


async def test_before_and_after_its_block_it_says_that_it_is_closed(home: Path) -> None:
    client = AsyncClient(home, settings=OFF, providers=[Lengths()])
    for _ in range(2):
        for work in (client.chat(SAID), client.embed(["a"]), client.ask("Why?"), client.calls(), client.trace("x")):
            with pytest.raises(LedgerError, match="closed"):
                await work
        async with client:
            assert (await client.chat(SAID, model="echo")).text == "ahoy"
            with pytest.raises(LedgerError, match="open already"):
                await client.__aenter__()
    await client.aclose()
    await client.aclose()


async def test_a_client_that_cannot_open_may_be_mended_and_opened(tmp_path: Path, home: Path) -> None:
    with pytest.raises(SettingsError, match=r"server\.port"):
        await AsyncClient(tmp_path / "h", settings={"server.port": 0}).__aenter__()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ledger.db").write_bytes(b"this is not a database" * 100)
    client = AsyncClient(tmp_path / "broken", settings=OFF, providers=[Lengths()])
    with pytest.raises(LedgerError, match="not a database"):
        await client.__aenter__()
    (tmp_path / "broken" / "ledger.db").write_bytes((home / "ledger.db").read_bytes())
    async with client:
        assert (await client.chat(SAID, model="echo")).text == "ahoy"


async def test_a_key_reads_and_writes_for_its_own_tenant_alone(home: Path) -> None:
    settings = OFF | {"keys": KEYS}
    async with AsyncClient(home, key="secret-acme", settings=settings, providers=[Lengths()]) as client:
        calls = [(await client.chat(SAID, model="echo")).call, (await client.embed(["a"], model="lengths")).call]
    for key, raised in (("", AccessError), ("wrong", AccessError)):
        async with AsyncClient(home, key=key, settings=settings, providers=[Lengths()]) as stranger:
            with pytest.raises(raised):
                await stranger.embed(["a"], model="lengths")
    async with AsyncClient(home, key="secret-globex", settings=settings, providers=[Lengths()]) as other:
        assert await other.calls() == []
        assert [await other.trace(call) for call in calls] == [None, None]


def test_the_plain_client_offers_the_same_with_the_same_arguments() -> None:
    def surface(kind: type[Any]) -> dict[str, str]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {name: str(inspect.signature(made)) for name, made in members if not name.startswith("_")}

    plain, own = surface(Client), surface(AsyncClient)
    assert own.pop("aclose") == plain.pop("close")
    assert plain == own
    assert str(inspect.signature(Client.__init__)) == str(inspect.signature(AsyncClient.__init__))


def test_the_plain_client_embeds_too(home: Path) -> None:
    with Client(home, settings=OFF, providers=[Lengths()]) as client:
        assert client.embed(("a", "bb"), model="lengths").vectors.tolist() == [[1.0, 1.0], [2.0, 1.0]]
        with pytest.raises(RequestError, match="give embed a list of texts"):
            client.embed("one text", model="lengths")
        assert client.trace(client.calls(limit=1)[0].call.id) is not None
