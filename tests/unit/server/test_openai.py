"""The OpenAI wire in process: what a client gets, what the ledger keeps of it, and what other tenants see of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import structlog
from numpy.typing import NDArray
from tests.golden.application import DONE, NOW, Client, Scripted, chat, event, key, opened, streaming, upstream

from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.ledger.ledger import ALL
from windlass.records import Call, Feedback, Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = [
    key("acme", "acme", "one", "two"),
    key("acme2", "acme", "two"),
    key("globex", "globex"),
    key("viewer", "globex", role="viewer"),
]
ACME = Scope("acme", "one")
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"


class Failing(Echo):
    """An Echo under another name whose model always fails."""

    name = "failing"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """Without keys; slow and broken providers beside Echo."""
    providers = [Echo(), Failing("bad", failing=("bad",))]
    async with opened(tmp_path_factory.mktemp("home"), providers, gateway__max_body_bytes=200_000) as runtime:
        yield runtime


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with opened(tmp_path_factory.mktemp("home"), [Echo()], keys=KEYS) as runtime:
        yield runtime


@pytest.fixture
def client(open_runtime: Runtime) -> Client:
    return Client(Windlass(open_runtime))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What is logged of upstreams that fail stays off the terminal."""
    with structlog.testing.capture_logs():
        yield


def _as(runtime: Runtime, name: str) -> Client:
    return Client(Windlass(runtime), bearer=f"secret-{name}")


def _outcome(runtime: Runtime, call: str) -> Outcome:
    trace = runtime.ledger.trace(ALL, call)
    assert trace is not None
    assert trace.outcome is not None
    return trace.outcome


# --- chat


async def test_a_plain_call_is_answered_and_in_the_ledger(client: Client, open_runtime: Runtime) -> None:
    response = await client.post(CHAT, chat("ahoy", user="u"), x_windlass_parent="answer_7")
    assert (response.status, response.ended) == (200, True)
    assert response.json["choices"][0]["message"]["content"] == "ahoy"
    trace = open_runtime.ledger.trace(Scope(), response.headers["x-windlass-call"])
    assert trace is not None
    assert (trace.call.parent, trace.call.user, trace.decisions[0].action) == ("answer_7", "u", "echo")
    assert response.headers["x-windlass-model"] == "echo"
    assert "p=1.000" in response.headers["x-windlass-why"]


async def test_a_stream_arrives_event_by_event_and_ends_with_done(client: Client) -> None:
    response = await client.post(CHAT, chat("one\ntwo\nthree", stream=True))
    assert response.headers["content-type"] == "text/event-stream"
    assert len(response.parts) >= 5
    assert response.body.endswith(DONE)
    assert response.ended


async def test_a_long_parent_is_cut(client: Client, open_runtime: Runtime) -> None:
    response = await client.post(CHAT, chat(), x_windlass_parent="p" * 5_000)
    trace = open_runtime.ledger.trace(ALL, response.headers["x-windlass-call"])
    assert trace is not None
    assert len(trace.call.parent) <= 200


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "invalid_json", None),
        (b"{", 400, "invalid_json", None),
        (b"\xff\xfe", 400, "invalid_json", None),
        (b"null", 400, "invalid_request", None),
        (b"{}", 400, "invalid_request", "model"),
        (b'{"model":"echo","messages":[]}', 400, "invalid_request", "messages"),
        (b'{"model":"echo","messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_json", None),
        (b'{"model":"nope","messages":[{"role":"user","content":"x"}]}', 404, "model_not_found", "model"),
        (b'{"model":"bad","messages":[{"role":"user","content":"x"}]}', 502, "upstream_failed", None),
        (
            b'{"model":"echo","messages":[{"role":"user","content":"x"}],"user":"\\u0000"}',
            400,
            "invalid_request",
            "user",
        ),
        (b"[" * 150_000, 400, "invalid_request", None),
        (b'{"a":' * 30_000, 400, "invalid_json", None),
        (b"x" * 200_001, 413, "body_too_large", None),
    ],
    ids=range(13),
)
async def test_every_failure_is_an_envelope(
    client: Client, body: bytes, status: int, code: str, param: str | None
) -> None:
    response = await client.post(CHAT, body)
    assert (response.status, response.code, response.json["error"]["param"]) == (status, code, param)
    assert set(response.json["error"]) == {"message", "type", "param", "code"}
    assert b"Traceback" not in response.body
    assert b".py" not in response.body


async def test_contents_of_every_kind_are_taken(client: Client) -> None:
    for content in ("", "\x00", "\x1b[2J", "⚓" * 10_000, None, [], [{"type": "text", "text": "parts"}], 5, {"a": 1}):
        body = {"model": "echo", "messages": [{"role": "user", "content": content}]}
        assert (await client.post(CHAT, body)).status == 200


async def test_models_are_listed_with_auto_first(client: Client) -> None:
    listed = (await client.get("/v1/models")).json
    assert listed["object"] == "list"
    assert [(model["id"], model["owned_by"]) for model in listed["data"]] == [
        ("auto", "windlass"),
        ("echo", "echo"),
        ("bad", "failing"),
        ("local/quotes-fast", "local"),
    ]


# --- embeddings


class Lengths:
    """An embedder without weights: a text's length is its vector."""

    name = "lengths"
    dimensions = 1

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[len(text)] for text in texts], np.float32)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed(texts)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedding(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """With keys, and an embedder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("windlass.runtime._embedder", lambda _settings: Lengths())
        async with opened(tmp_path_factory.mktemp("home"), [Echo()], keys=KEYS) as runtime:
            yield runtime


async def test_texts_are_embedded_and_the_call_is_its_tenants(embedding: Runtime) -> None:
    wanted = {"model": "auto", "input": ["ahoy", "x"]}
    response = await _as(embedding, "acme").post(EMBEDDINGS, wanted, x_windlass_parent="answer_7")
    assert (response.status, response.ended) == (200, True)
    assert [item["embedding"] for item in response.json["data"]] == [[4.0], [1.0]]
    assert response.headers["x-windlass-model"] == "all-minilm-l6-v2"
    call = response.headers["x-windlass-call"]
    trace = embedding.ledger.trace(ACME, call)
    assert trace is not None
    assert (trace.call.endpoint, trace.call.parent) == ("embeddings", "answer_7")
    assert embedding.ledger.trace(Scope("globex"), call) is None
    seen = await _as(embedding, "globex").post("/api/calls", {"limit": 1000})
    assert call.encode() not in seen.body


async def test_embeddings_can_be_rated_and_listed(embedding: Runtime) -> None:
    """A call without decisions: pages, feedback and the learner take it."""
    acme = _as(embedding, "acme")
    call = (await acme.post(EMBEDDINGS, {"model": "auto", "input": "a"})).headers["x-windlass-call"]
    said = {"target": call, "kind": "rating", "value": 1.0}
    assert (await acme.post("/v1/feedback", said)).status == 200
    await embedding.caught_up()
    assert call.encode() in (await acme.post("/api/calls")).body


async def test_the_embedding_model_is_listed_last_and_chats_do_not_know_it(embedding: Runtime) -> None:
    acme = _as(embedding, "acme")
    listed = (await acme.get("/v1/models")).json["data"]
    assert (listed[-1]["id"], listed[-1]["owned_by"]) == ("all-minilm-l6-v2", "local")
    assert len({model["id"] for model in listed}) == len(listed)
    refused = await acme.post(CHAT, chat(model="all-minilm-l6-v2"))
    assert (refused.status, refused.code) == (404, "model_not_found")


# --- upstreams over the wire


def _provider(url: str, **options: Any) -> dict[str, Any]:
    return {"name": "up", "base_url": url, "models": [{"name": "m"}], **options}


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        ("429 Too Many Requests", "application/json", b'{"error": {"message": "slow", "x": 1.50}}'),
        ("500 Oops", "text/html", b"<html>\xff\xfe</html>"),
        ("200 OK", "application/json", b'{"choices": [], "x_new": {"y": 1e2}}'),
    ],
)
async def test_an_upstreams_words_pass_byte_for_byte(
    tmp_path: Path, status: str, content_type: str, body: bytes
) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\nretry-after: 9\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)

    async with (
        upstream(answer) as server,
        opened(tmp_path, upstreams=[_provider(server.url)], resilience__attempts=1) as runtime,
    ):
        sent = json.dumps(chat(model="m", x_unknown=[1.5])).encode()
        response = await Client(Windlass(runtime)).post(CHAT, sent)
        assert (response.status, response.body) == (int(status[:3]), body)
        assert response.headers["retry-after"] == "9"
        assert server.requests[0].endswith(b"\r\n\r\n" + sent)


async def test_an_upstream_that_refuses_is_502_and_a_slow_one_504(tmp_path: Path) -> None:
    async def silent(_writer: asyncio.StreamWriter) -> None:
        """Never answer."""

    async with upstream(silent) as server:
        slow = _provider(server.url, first_byte_timeout_s=0.05)
        dead = {**_provider("http://127.0.0.1:1/v1"), "name": "dead", "models": [{"name": "d"}]}
        async with opened(tmp_path, upstreams=[slow, dead]) as runtime:
            client = Client(Windlass(runtime))
            for model, status, code in (("m", 504, "first_byte_timeout"), ("d", 502, "connect_refused")):
                for stream in (False, True):
                    response = await client.post(CHAT, chat(model=model, stream=stream))
                    assert (response.status, response.code) == (status, code)
            errors = [r.record.error for r in runtime.ledger.read(ALL) if isinstance(r.record, Outcome)]
            assert errors == ["first_byte_timeout"] * 2 + ["connect_refused"] * 2


async def test_a_client_that_leaves_a_stream_stops_the_upstream(tmp_path: Path) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event("a"))

    async with upstream(endless) as server, opened(tmp_path, upstreams=[_provider(server.url)]) as runtime:
        client = Client(Windlass(runtime))

        async def leave_after_the_first_part(message: Any) -> None:
            if message["type"] == "http.response.body":
                client.leave.set()

        client.sent = leave_after_the_first_part
        response = await client.post(CHAT, chat(model="m", stream=True))
        assert (response.parts, response.ended) == ([event("a")], False)
        async with asyncio.timeout(2):
            await server.hung_up.wait()
        assert _outcome(runtime, response.headers["x-windlass-call"]).error == "client_gone"


async def test_a_client_that_leaves_before_the_answer_stops_the_upstream(tmp_path: Path) -> None:
    async def silent(_writer: asyncio.StreamWriter) -> None:
        """Never answer."""

    async with upstream(silent) as server, opened(tmp_path, upstreams=[_provider(server.url)]) as runtime:
        client = Client(Windlass(runtime))
        asking = asyncio.create_task(client.post(CHAT, chat(model="m")))
        async with asyncio.timeout(2):
            while not server.requests:
                await asyncio.sleep(0.001)
            client.leave.set()
            response = await asking
            await server.hung_up.wait()
        assert (response.status, response.parts) == (0, [])
        (outcome,) = [r.record for r in runtime.ledger.read(ALL) if isinstance(r.record, Outcome)]
        assert (outcome.status, outcome.error) == (499, "client_gone")


async def test_a_server_that_stops_lets_the_call_be_recorded(tmp_path: Path) -> None:
    provider = streaming(event("a"), asyncio.Event())
    async with opened(tmp_path, [provider]) as runtime:
        asking = asyncio.create_task(Client(Windlass(runtime)).post(CHAT, chat(model="m", stream=True)))
        async with asyncio.timeout(2):
            while not provider.requests:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await provider.closed.wait()
            while not (found := [r.record for r in runtime.ledger.read(ALL) if isinstance(r.record, Outcome)]):
                await asyncio.sleep(0.01)
        assert found[0].error == "client_gone"


async def test_headers_of_an_upstream_cannot_add_headers_of_ours(tmp_path: Path) -> None:
    evil = ModelOptions(name="m\r\nx-evil: 1⚓")
    async with opened(tmp_path, [Scripted(b'{"choices":[{"finish_reason":"stop"}]}', model=evil)]) as runtime:
        response = await Client(Windlass(runtime)).post(CHAT, chat(model=evil.name))
        assert response.status == 200
        assert response.headers["x-windlass-model"] == "m  x-evil: 1?"


@pytest.mark.parametrize("status", [101, 600, 999])
async def test_a_status_that_no_server_can_send_becomes_one_that_it_can(tmp_path: Path, status: int) -> None:
    """uvicorn knows the statuses from 100 to 599, and would answer 500 by itself."""
    async with opened(tmp_path, [Scripted(b"{}", status=status)]) as runtime:
        response = await Client(Windlass(runtime)).post(CHAT, chat(model="m"))
        assert 200 <= response.status < 600
        (outcome,) = [r.record for r in runtime.ledger.read(ALL) if isinstance(r.record, Outcome)]
        assert outcome.error


# --- keys, tenants, workspaces


@pytest.mark.parametrize(
    "path", [CHAT, EMBEDDINGS, "/v1/feedback", "/api/calls", "/api/decisions", "/api/ask", "/api/doctor"]
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic secret-acme", "secret-acme", "Bearer \xe9"])
async def test_a_wrong_key_is_refused_everywhere(keyed: Runtime, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    response = await Client(Windlass(keyed)).post(path, chat(), **headers)
    assert (response.status, response.code) == (401, "invalid_api_key")
    assert (await Client(Windlass(keyed)).get("/v1/models", **headers)).status == 401


async def test_a_wrong_key_is_refused_before_its_body_is_read(keyed: Runtime) -> None:
    response = await Client(Windlass(keyed)).post(CHAT, b"x" * 9_000_000)
    assert response.status == 401


async def test_the_word_bearer_is_read_in_any_case(keyed: Runtime) -> None:
    assert (await Client(Windlass(keyed)).get("/v1/models", authorization="BEARER  secret-acme ")).status == 200


async def test_the_workspace_comes_from_the_header_within_the_keys_own(keyed: Runtime) -> None:
    acme = _as(keyed, "acme")
    for header, workspace in ((None, "one"), ("two", "two")):
        headers = {"x_windlass_workspace": header} if header else {}
        response = await acme.post(CHAT, chat(), **headers)
        trace = keyed.ledger.trace(ALL, response.headers["x-windlass-call"])
        assert trace is not None
        assert trace.call.scope == Scope("acme", workspace)
    for path in (CHAT, "/api/calls", "/v1/feedback"):
        assert (await acme.post(path, chat(), x_windlass_workspace="three")).status == 401
    assert (await acme.get("/v1/models", x_windlass_workspace="three")).status == 401


async def test_another_tenants_key_sees_neither_calls_nor_decisions(keyed: Runtime) -> None:
    call = (await _as(keyed, "acme").post(CHAT, chat("only for acme"))).headers["x-windlass-call"]
    seen = (await _as(keyed, "acme").post("/api/calls")).body
    assert call.encode() in seen
    for stranger in ("globex", "viewer", "acme2"):
        for path in ("/api/calls", "/api/decisions"):
            assert call.encode() not in (await _as(keyed, stranger).post(path, {"limit": 1000})).body
        paged = await _as(keyed, stranger).post("/api/calls", {"before": call})
        assert paged.json == {"calls": []}


# --- feedback


async def test_feedback_is_kept_for_its_target(client: Client, open_runtime: Runtime) -> None:
    call = (await client.post(CHAT, chat())).headers["x-windlass-call"]
    said = {"target": call, "kind": "rating", "value": 0.25, "comment": "meh"}
    kept = await client.post("/v1/feedback", said)
    assert (kept.status, kept.json["object"], kept.json["target"]) == (200, "feedback", call)
    trace = open_runtime.ledger.trace(Scope(), call)
    assert trace is not None
    assert [(f.id, f.value, f.comment, f.at) for f in trace.feedback] == [(kept.json["id"], 0.25, "meh", NOW)]


async def test_the_same_feedback_again_changes_nothing(client: Client, open_runtime: Runtime) -> None:
    call = (await client.post(CHAT, chat())).headers["x-windlass-call"]
    for value in (1.0, 0.0, 0.5):
        said = {"id": f"mine-{call}", "target": call, "kind": "rating", "value": value}
        assert (await client.post("/v1/feedback", said)).status == 200
    trace = open_runtime.ledger.trace(Scope(), call)
    assert trace is not None
    assert [f.value for f in trace.feedback] == [1.0]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"a":' * 2_000,
        b'{"target":"call_1","kind":"rating","value":NaN}',
        b'{"target":"call_1","kind":"rating","value":2.0}',
        b'{"target":"call_1","kind":"rating","value":"x"}',
        b'{"target":"call_1","kind":"rating","value":1e999}',
        b'{"target":"call_1","kind":"rating"}',
        b'{"kind":"rating","value":1}',
        b'{"target":"call_1","kind":"praise","at":4102444800}',
        b'{"target":"call_1","kind":"praise","at":-1}',
        b'{"target":"call_1","kind":"praise","comment":"\\u0000"}',
        b'{"target":"call_1","kind":"praise","metric":"\\u0000"}',
        b'{"target":"call_1","kind":"praise","comment":"\\ud800"}',
    ],
    ids=range(16),
)
async def test_bad_feedback_is_the_clients_mistake(client: Client, said: bytes) -> None:
    response = await client.post("/v1/feedback", said)
    assert response.status == 400, response.body
    assert response.json["error"]["type"] == "invalid_request_error"


async def test_feedback_on_something_unknown_is_kept(client: Client, open_runtime: Runtime) -> None:
    response = await client.post("/v1/feedback", {"target": "item_unheard-of", "kind": "suggestion"})
    assert response.status == 200
    assert open_runtime.ledger.trace(Scope(), "item_unheard-of") is None


async def test_feedback_reaches_neither_the_calls_nor_the_policies_of_another_tenant(keyed: Runtime) -> None:
    call = (await _as(keyed, "acme").post(CHAT, chat(model="auto"))).headers["x-windlass-call"]
    await keyed.caught_up()
    before = dict(keyed.loop.states())
    assert ("acme", "one", "model") in before
    for stranger in ("globex", "acme2"):
        said = {"target": call, "kind": "rating", "value": 0.0, "source": "manager"}
        assert (await _as(keyed, stranger).post("/v1/feedback", said)).status == 200
    await keyed.caught_up()
    assert dict(keyed.loop.states()) == before
    trace = keyed.ledger.trace(ACME, call)
    assert trace is not None
    assert trace.feedback == ()
    assert (
        await _as(keyed, "acme").post("/v1/feedback", {"target": call, "kind": "rating", "value": 0.0})
    ).status == 200
    await keyed.caught_up()
    assert dict(keyed.loop.states()) != before


async def test_the_same_feedback_id_of_two_tenants_is_two_feedbacks(keyed: Runtime) -> None:
    said = {"id": "shared", "target": "call_x", "kind": "praise"}
    for name in ("acme", "globex"):
        assert (await _as(keyed, name).post("/v1/feedback", said)).status == 200
    found = [e.record for e in keyed.ledger.read(ALL) if isinstance(e.record, Feedback) and e.record.id == "shared"]
    assert {record.tenant for record in found} == {"acme", "globex"}


async def test_call_ids_are_typed_and_ordered(client: Client) -> None:
    ids = [(await client.post(CHAT, chat())).headers["x-windlass-call"] for _ in range(3)]
    assert all(re.fullmatch(r"call_[0-9a-f]{32}", one) for one in ids)
    assert len(set(ids)) == 3


async def test_nothing_that_failed_left_half_a_call(open_runtime: Runtime) -> None:
    """Runs last in this file: every call that any test made has its outcome."""
    records = [entry.record for entry in open_runtime.ledger.read(ALL, limit=100_000)]
    called = {record.id for record in records if isinstance(record, Call)}
    assert called == {record.call for record in records if isinstance(record, Outcome)}


async def test_a_whole_answer_says_how_long_it_is_and_a_stream_does_not(client: Client) -> None:
    whole = await client.post(CHAT, chat())
    assert (whole.headers["content-length"], whole.ended) == (str(len(whole.body)), True)
    assert len(whole.parts) == 1
    streamed = await client.post(CHAT, chat(stream=True))
    assert "content-length" not in streamed.headers
