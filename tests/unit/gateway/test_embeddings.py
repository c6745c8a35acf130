"""Texts to vectors: what comes back, what the ledger keeps of it, and what hostile requests and upstreams get."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.golden.application import Scripted, resilience, upstream

from windlass.errors import (
    AccessError,
    EmbedderMissing,
    ErrorCategory,
    LedgerError,
    ModelUnknown,
    RequestError,
    UpstreamError,
    classify,
)
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.limits import Limits
from windlass.gateway.embeddings import Embedded, embedded
from windlass.gateway.gateway import Gateway, Request
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, KeyOptions, ModelOptions, ProviderOptions
from windlass.gateway.provider import EmbeddingRequest, Provider, ProviderReply, Providers
from windlass.gateway.providers.local import AT_ONCE, EMBEDDING, TOGETHER, Local
from windlass.gateway.providers.openai_compatible import OpenAICompatible
from windlass.gateway.wire import MOST_INPUTS, parse_embedding
from windlass.ledger.ledger import ALL, CallTrace, Ledger
from windlass.ledger.memory import MemoryLedger
from windlass.memory.embedder import Embedder
from windlass.policies.loop import Loop
from windlass.policies.reward import RewardOptions
from windlass.records import Outcome, Scope

NOW = 1_800_000_000.0
KEY = KeyOptions(
    name="ops", sha256=hashlib.sha256(b"secret").hexdigest(), tenant="acme", workspaces=("one", "two"), role="viewer"
)
PRICED = ModelOptions(name="big", upstream="text-embedding-big", prompt_usd_per_million=20.0)
ONE = b'{"data":[{"embedding":[1,0],"index":0}],"usage":{"prompt_tokens":7,"total_tokens":7}}'


class Directions:
    """An embedder without weights: a text's digest gives its direction. `hold` makes a batch wait."""

    name = "directions"
    dimensions = 6

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.together = self.most = 0
        self.hold = threading.Event()
        self.hold.set()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(len(texts))
        self.together += 1
        self.most = max(self.most, self.together)
        assert self.hold.wait(10)
        self.together -= 1
        seeds = (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts)
        rows = np.array([np.random.default_rng(seed).normal(size=6) for seed in seeds], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await asyncio.to_thread(self.embed, texts)


class Broken(Directions):
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise EmbedderMissing("the weights are damaged")


class Vectors(Scripted):
    """An upstream that answers embeddings as its script says."""

    def __init__(self, *script: bytes | BaseException | asyncio.Event, **more: Any):
        super().__init__(*script, **more)
        self.embedding_models = self.models
        self.asked: list[EmbeddingRequest] = []

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        self.asked.append(request)
        if self._script and isinstance(self._script[0], BaseException):
            raise self._script[0]
        return await self.send(request)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answered:
    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes
    outcome: Outcome


class Embeddings:
    """The gateway, asked for vectors alone and read to the end."""

    def __init__(self, gateway: Gateway):
        self._gateway = gateway

    async def embed(self, request: Request) -> Answered:
        answer = await self._gateway.complete(request)
        body = b"".join([chunk async for chunk in answer.chunks])
        assert answer.transit.outcome is not None
        return Answered(answer.status, answer.content_type, answer.headers, body, answer.transit.outcome)


def _path(
    *providers: Provider,
    embedder: Embedder | None = None,
    ledger: Ledger | None = None,
    keys: Sequence[KeyOptions] = (),
    **options: Any,
) -> tuple[Embeddings, Ledger]:
    kept = ledger or MemoryLedger()
    every = Providers([*providers, Local(embedder, lambda: NOW)])
    gateway = GatewayOptions(**options)
    admission = Admission(keys, gateway.max_body_bytes)
    loop = Loop({}, RewardOptions())
    made = Gateway(
        admission=admission,
        providers=every,
        loop=loop,
        ledger=kept,
        options=gateway,
        limits=Limits(()),
        prices=PriceBook(),
        resilience=resilience(),
        clock=lambda: NOW,
    )
    return Embeddings(made), kept


def _request(texts: object = "ahoy", model: str = "auto", **fields: Any) -> Request:
    return Request(json.dumps({"model": model, "input": texts, **fields}).encode(), "embeddings")


def _asked(body: bytes, **more: Any) -> Request:
    return Request(body, "embeddings", **more)


def _trace(ledger: Ledger, scope: Scope | None = None) -> CallTrace:
    (trace,) = ledger.calls(scope or ALL)
    return trace


def _outcome(ledger: Ledger) -> Outcome:
    outcome = _trace(ledger).outcome
    assert outcome is not None
    return outcome


# --- the embedder of this process


async def test_texts_become_vectors_in_their_order_and_the_call_is_in_the_ledger() -> None:
    embedder, texts = Directions(), ["one", "two", "été 🙂", "one"]
    path, ledger = _path(embedder=embedder)
    reply = await path.embed(_request(texts, user="ann"))
    body = json.loads(reply.body)
    assert (reply.status, reply.content_type, body["object"], body["model"]) == (
        200,
        "application/json",
        "list",
        EMBEDDING,
    )
    assert [(item["object"], item["index"]) for item in body["data"]] == [("embedding", n) for n in range(4)]
    found = np.array([item["embedding"] for item in body["data"]], np.float32)
    assert np.array_equal(found, embedder.embed(texts))
    assert body["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    trace = _trace(ledger)
    assert (trace.call.id, trace.call.endpoint, trace.call.model) == (
        reply.headers["x-windlass-call"],
        "embeddings",
        "auto",
    )
    assert (trace.call.user, trace.decisions) == ("ann", ())
    outcome = reply.outcome
    assert trace.outcome == outcome
    assert (outcome.model, outcome.provider, outcome.status, outcome.error) == (EMBEDDING, "local", 200, "")
    assert (outcome.prompt_tokens, outcome.completion_tokens, outcome.tokens_estimated) == (5, 0, True)
    assert reply.headers["x-windlass-model"] == EMBEDDING


async def test_base64_is_float32_little_endian_and_the_same_numbers() -> None:
    path, _ = _path(embedder=Directions())
    plain = json.loads((await path.embed(_request(["a", "b"], encoding_format="float"))).body)
    coded = json.loads((await path.embed(_request(["a", "b"], encoding_format="base64"))).body)
    for one, other in zip(plain["data"], coded["data"], strict=True):
        numbers = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert numbers.tolist() == one["embedding"]


@pytest.mark.parametrize("fields", [{}, {"dimensions": None}, {"dimensions": 6}, {"encoding_format": None}])
async def test_fields_that_say_nothing_new_are_taken(fields: dict[str, Any]) -> None:
    path, _ = _path(embedder=Directions())
    assert (await path.embed(_request("x", EMBEDDING, **fields))).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a", ["b"]]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": None}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["x"] * (MOST_INPUTS + 1)}, "input"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "dimensions": "6"}, "dimensions"),
        ({"input": "a", "dimensions": 10**30}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "user": "\x00"}, "user"),
        ({"input": "a", "model": None}, "model"),
        ({}, "input"),
    ],
    ids=range(22),
)
async def test_what_cannot_be_embedded_is_refused_and_leaves_no_trace(fields: dict[str, Any], param: str) -> None:
    path, ledger = _path(embedder=Directions())
    with pytest.raises(RequestError) as raised:
        await path.embed(Request(json.dumps({"model": EMBEDDING, **fields}).encode(), "embeddings"))
    assert (raised.value.status, raised.value.param) == (400, param)
    assert ledger.head() == 0


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5_000, b'{"a":' * 20_000, b'{"input":"\\ud800"}', b"null"])
async def test_bytes_that_are_no_request_are_refused(body: bytes) -> None:
    path, ledger = _path(embedder=Directions())
    with pytest.raises(RequestError):
        await path.embed(Request(body, "embeddings"))
    assert ledger.head() == 0


async def test_as_many_texts_as_allowed_come_back_each_in_its_place() -> None:
    embedder = Directions()
    path, _ = _path(embedder=embedder)
    texts = [f"text {number}" for number in range(MOST_INPUTS)]
    reply = await path.embed(_request(texts))
    vectors = embedded(reply.body, reply.outcome).vectors
    assert max(embedder.batches) == TOGETHER
    assert np.array_equal(vectors, embedder.embed(texts))


async def test_a_token_list_is_refused_with_what_to_do() -> None:
    path, _ = _path(embedder=Directions())
    with pytest.raises(RequestError, match="check_embedding_ctx_length=False"):
        await path.embed(_request([[101, 102]]))


async def test_a_broken_embedder_is_recorded_as_such() -> None:
    path, ledger = _path(embedder=Broken())
    with pytest.raises(UpstreamError, match="the weights are damaged") as raised:
        await path.embed(_request())
    assert _outcome(ledger).error == classify(raised.value).value == ErrorCategory.EMBEDDER_MISSING.value
    assert (_outcome(ledger).status, _outcome(ledger).prompt_tokens) == (502, 0)


async def test_a_client_that_leaves_stops_the_batches_that_wait() -> None:
    embedder = Directions()
    path, ledger = _path(embedder=embedder)
    embedder.hold.clear()
    asking = asyncio.create_task(path.embed(_request([str(number) for number in range(10 * TOGETHER)])))
    async with asyncio.timeout(5):
        while not embedder.batches:
            await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    embedder.hold.set()
    await asyncio.sleep(0.02)
    assert embedder.batches == [TOGETHER]
    assert (_outcome(ledger).status, _outcome(ledger).error) == (499, ErrorCategory.CLIENT_GONE.value)


async def test_many_at_once_leave_threads_for_others() -> None:
    embedder = Directions()
    path, ledger = _path(embedder=embedder)
    embedder.hold.clear()
    asking = [asyncio.create_task(path.embed(_request(str(number)))) for number in range(40)]
    while not embedder.batches:
        await asyncio.sleep(0.001)
    started = time.perf_counter()
    await asyncio.to_thread(int)
    assert time.perf_counter() - started < 5, "another room's thread waited for the embedder"
    embedder.hold.set()
    assert {reply.status for reply in await asyncio.gather(*asking)} == {200}
    assert embedder.most <= AT_ONCE
    assert len(ledger.calls(ALL, limit=100)) == 40


# --- who answers


async def test_a_named_model_goes_to_its_upstream_and_auto_stays_here() -> None:
    up = Vectors(ONE, name="up", model=PRICED)
    path, ledger = _path(up, embedder=Directions())
    assert (await path.embed(_request())).outcome.provider == "local"
    reply = await path.embed(_request("ahoy", "big", x_new=[1.5]))
    assert reply.body == ONE
    assert json.loads(up.asked[0].body) == {"model": "text-embedding-big", "input": "ahoy", "x_new": [1.5]}
    outcome = reply.outcome
    assert (outcome.model, outcome.provider, outcome.tokens_estimated) == ("big", "up", False)
    assert (outcome.prompt_tokens, outcome.cost_nusd) == (7, 140_000)
    assert len(ledger.calls(ALL)) == 2


async def test_an_upstream_may_take_the_name_of_the_embedder() -> None:
    up = Vectors(ONE, name="up", model=ModelOptions(name=EMBEDDING))
    path, _ = _path(up, embedder=Directions())
    assert (await path.embed(_request("x", EMBEDDING))).outcome.provider == "up"


@pytest.mark.parametrize("model", ["auto", "nope", "m", "local/quotes-fast", "", "\x00", "x" * 5_000])
async def test_a_model_that_makes_none_is_unknown(model: str) -> None:
    path, ledger = _path(Scripted(ONE))
    with pytest.raises(ModelUnknown, match=r"models that do: none; `pip install windlass\[embeddings\]`"):
        await path.embed(_request("x", model))
    assert ledger.head() == 0


async def test_tokens_and_odd_dimensions_are_the_upstreams_to_judge() -> None:
    up = Vectors(b'{"data":[{"embedding":[1]}]}', model=PRICED)
    path, _ = _path(up)
    reply = await path.embed(_request([5, 6, 7], "big", dimensions=10**6))
    assert (reply.outcome.prompt_tokens, reply.outcome.tokens_estimated, reply.outcome.error) == (3, True, "")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, b'{"error":{"message":"slow"}}', "rate_limited"),
        (404, b"<html>", "upstream_model_missing"),
        (500, b"\xff", "upstream_server_error"),
        (302, b"", "redirect_refused"),
    ],
    ids=range(4),
)
async def test_an_upstreams_words_pass_and_are_recorded_for_what_they_are(status: int, body: bytes, error: str) -> None:
    path, ledger = _path(Vectors(body, status=status, model=PRICED))
    reply = await path.embed(_request("x", "big"))
    assert (reply.status, reply.body) == (status, body)
    assert (_outcome(ledger).status, _outcome(ledger).error) == (status, error)
    with pytest.raises(UpstreamError) as raised:
        embedded(reply.body, reply.outcome)
    assert classify(raised.value).value == error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"data":{}}',
        b'{"data":[]}',
        b'{"data":[{},{}]}',
        b'{"data":[{}],"error":{"code":"x"}}',
        b'{"choices":[{"message":{"content":"hi"}}]}',
        b'{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":NaN}}',
    ],
    ids=range(9),
)
async def test_a_good_status_without_the_vectors_is_a_failure(body: bytes) -> None:
    path, ledger = _path(Vectors(body, model=PRICED))
    with pytest.raises(UpstreamError):
        await path.embed(_request("x", "big"))
    assert (_outcome(ledger).status, _outcome(ledger).cost_nusd) == (502, 0)
    assert _outcome(ledger).error in ("response_malformed", "upstream_server_error")


@pytest.mark.parametrize("usage", ["null", "{}", '{"prompt_tokens":-1}', '{"prompt_tokens":"7"}', "7"])
async def test_usage_that_makes_no_sense_is_estimated_or_the_reply_malformed(usage: str) -> None:
    body = b'{"data":[{"embedding":[1]}],"usage":%b}' % usage.encode()
    path, _ = _path(Vectors(body, model=PRICED))
    outcome = (await path.embed(_request("four", "big"))).outcome
    assert (outcome.prompt_tokens, outcome.tokens_estimated) == (1, True)


@pytest.mark.parametrize("failure", [UpstreamError("gone", category=ErrorCategory.CONNECT_REFUSED), ValueError("bug")])
async def test_an_upstream_that_gives_no_answer_is_recorded(failure: Exception) -> None:
    path, ledger = _path(Vectors(failure, model=PRICED))
    with pytest.raises(type(failure)):
        await path.embed(_request("x", "big"))
    assert (_outcome(ledger).status, _outcome(ledger).error) == (502, classify(failure).value)
    assert _outcome(ledger).cost_nusd == 0


async def test_a_client_that_leaves_closes_the_upstream_and_is_recorded() -> None:
    up = Vectors(b'{"data":', asyncio.Event(), model=PRICED)
    path, ledger = _path(up)
    asking = asyncio.create_task(path.embed(_request("x", "big")))
    async with asyncio.timeout(5):
        while not up.requests:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await up.closed.wait()
    assert (_outcome(ledger).status, _outcome(ledger).error) == (499, ErrorCategory.CLIENT_GONE.value)


async def test_over_the_wire_it_is_one_post_with_the_key() -> None:
    async def answer(writer: Any) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ONE) + ONE
        )

    async with upstream(answer) as server:
        provider = OpenAICompatible(ProviderOptions(name="up", base_url=server.url, models=(PRICED,)), "k1")
        path, _ = _path(provider)
        assert (await path.embed(_request("x", "big"))).body == ONE
        await provider.close()
    (sent,) = server.requests
    assert sent.startswith(b"POST /v1/embeddings HTTP/1.1\r\n")
    assert b"authorization: bearer k1" in sent.lower()


# --- admission and the ledger


async def test_a_call_belongs_to_the_keys_tenant_and_a_wrong_key_gets_nothing() -> None:
    embedder = Directions()
    path, ledger = _path(embedder=embedder, keys=[KEY])
    body = _request().body
    for wrong in (_asked(body), _asked(body, key="nope"), _asked(body, key="secret", workspace="three")):
        with pytest.raises(AccessError):
            await path.embed(wrong)
    assert (ledger.head(), embedder.batches) == (0, [])
    await path.embed(_asked(body, key="secret", workspace="two", parent="answer_1"))
    trace = _trace(ledger, Scope("acme", "two"))
    assert trace.call.parent == "answer_1"
    assert {body.scope for body in ledger.bodies(ALL, trace.call.id)} == {Scope("acme", "two")}
    assert ledger.calls(Scope("acme", "one")) == ()


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    path, _ = _path(embedder=Directions(), max_body_bytes=2_000)
    with pytest.raises(RequestError) as raised:
        await path.embed(_asked(b"x" * 2_001))
    assert raised.value.status == 413


async def test_the_request_is_kept_for_as_long_as_said_the_vectors_never() -> None:
    path, ledger = _path(embedder=Directions(), body_retention_days=2.0)
    request = _request("secret words", user="ann")
    call = (await path.embed(request)).outcome.call
    (body,) = ledger.bodies(ALL, call)
    assert (body.role, body.data, body.user, body.expires_at) == ("request", request.body, "ann", NOW + 2 * 86_400)
    path, ledger = _path(embedder=Directions(), keep_bodies=False)
    call = (await path.embed(request)).outcome.call
    assert ledger.bodies(ALL, call) == ()


async def test_a_ledger_that_cannot_commit_lets_no_vector_out() -> None:
    class Full(MemoryLedger):
        async def append(self, *_items: object) -> int:
            raise LedgerError("the disk is full")

    path, _ = _path(embedder=Directions(), ledger=Full())
    with pytest.raises(LedgerError):
        await path.embed(_request())


async def test_what_the_body_holds_in_no_case_breaks_anything_else() -> None:
    """Any JSON value as input is embedded or refused."""
    path, _ = _path(embedder=Directions())
    for value in (0, 1.0, True, [None], [[["deep"]]], [{}], "\x00", "\x1b[2J\u202e", ["⚓"] * 3, [10**400]):
        try:
            status = (await path.embed(_request(value))).status
        except RequestError as exc:
            status = exc.status
        assert status in (200, 400)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"model": JSON | st.just("m"), "input": JSON | st.lists(st.text()) | st.lists(st.integers())},
        optional={"dimensions": JSON, "encoding_format": JSON, "user": JSON},
    )
)
def test_every_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        read = parse_embedding(body)
    except RequestError:
        return
    # An escape may hide a second `model`, so such a body is written anew.
    assert read.with_model(fields["model"]) == body or b"\\u" in body
    assert json.loads(read.with_model(fields["model"])) == fields
    assert json.loads(read.with_model("other")) == {**fields, "model": "other"}
    assert read.count >= 1
    assert read.texts is None or read.count == len(read.texts)


# --- replies read back


def _reply(*embeddings: object, indices: Sequence[int] = ()) -> Embedded:
    items = [{"embedding": one, "index": index} for one, index in zip(embeddings, indices or range(9), strict=False)]
    outcome = Outcome(
        id="outcome_1", at=NOW, call="call_1", model="m", provider="p", status=200, latency_ms=1.0,
        first_byte_ms=1.0, prompt_tokens=3, completion_tokens=0, cost_nusd=9,
    )  # fmt: skip
    return embedded(json.dumps({"data": items}).encode(), outcome)


def _coded(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


def test_vectors_are_read_in_the_order_of_their_index_whatever_their_form() -> None:
    found = _reply([0.0, 1.0], _coded(1.0, 0.5), indices=[1, 0])
    assert found.vectors.dtype == np.float32
    assert found.vectors.tolist() == [[1.0, 0.5], [0.0, 1.0]]
    assert (found.call, found.model, found.provider, found.prompt_tokens, found.cost_nusd) == ("call_1", "m", "p", 3, 9)


@pytest.mark.parametrize(
    "embeddings",
    [
        ([1.0], [1.0, 2.0]),
        (_coded(float("nan")),),
        (_coded(float("inf"), 1.0),),
        ("not base64!",),
        ("AAA=",),
        ([1e300],),
        (["1"],),
        ({},),
        (None,),
        (),
    ],
    ids=range(10),
)
def test_vectors_that_cannot_be_are_an_upstream_error(embeddings: tuple[object, ...]) -> None:
    with pytest.raises(UpstreamError, match="cannot be used") as raised:
        (_reply(*embeddings))
    assert classify(raised.value) is ErrorCategory.RESPONSE_MALFORMED
