"""The application as a whole: who is let in, what is served, and that no request ever meets a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from tests.golden.application import HOST, Client, Response, chat, key, opened

from windlass.gateway.providers.echo import Echo
from windlass.runtime import Runtime
from windlass.server.app import Windlass

KEYS = [key("ops", "acme"), key("boss", "globex", "one", "two", role="admin")]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with opened(tmp_path_factory.mktemp("home"), [Echo()], gateway__max_body_bytes=2048) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: Runtime) -> Client:
    return Client(Windlass(runtime, token="folder-token"))


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What was logged, which stays off the terminal."""
    with structlog.testing.capture_logs() as entries:
        yield entries


async def test_it_says_that_it_is_well(client: Client) -> None:
    response = await client.get("/healthz")
    assert (response.status, response.json["status"], response.ended) == (200, "ok", True)
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.body)


async def test_the_lifespan_is_answered(runtime: Runtime) -> None:
    coming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return coming.pop(0)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await Windlass(runtime)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- names and origins


@pytest.mark.parametrize(
    "host", [HOST, "localhost:8321", "localhost", "127.0.0.1", "[::1]:8321", "[::1]", "LOCALHOST:1", "127.0.0.1:99999"]
)
async def test_names_of_this_machine_are_served(client: Client, host: str) -> None:
    assert (await client.get("/healthz", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8321",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "[::2]:8321",
        "evil.example@127.0.0.1.evil.example",
        "xn--localhost",
        "",
        "-",
    ],
)
async def test_a_rebound_name_is_refused(client: Client, host: str) -> None:
    """`-` leaves the header out."""
    response = await client.post("/v1/chat/completions", chat(), host=host)
    assert (response.status, response.code) == (403, "wrong_host")


@pytest.mark.parametrize("host", ["[", "[::1", "]", "[x]:1", "[::1]evil", "127.0.0.1:port", "a b", "\xe9", "//", "?#"])
async def test_a_broken_host_is_the_clients_mistake(client: Client, host: str) -> None:
    assert (await client.get("/healthz", host=host)).status in (200, 400, 403)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8321", "https://127.0.0.1:8321"])
async def test_our_own_pages_may_ask(client: Client, origin: str) -> None:
    assert (await client.get("/healthz", origin=origin)).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8322", "http://localhost:8321", "file://", "x"]
)
async def test_pages_of_others_are_refused(client: Client, origin: str) -> None:
    response = await client.post("/v1/chat/completions", chat(), origin=origin)
    assert (response.status, response.code) == (403, "wrong_origin")


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//[x]", "http://\xe9["])
async def test_a_broken_origin_is_refused(client: Client, origin: str) -> None:
    assert (await client.get("/healthz", origin=origin)).status in (400, 403)


async def test_with_keys_any_name_is_served_because_the_key_decides(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()], keys=KEYS) as runtime:
        client = Client(Windlass(runtime), bearer="secret-ops")
        assert (await client.get("/v1/models", host="gateway.example")).status == 200
        assert (await client.get("/v1/models", host="gateway.example", origin="http://evil.example")).status == 403


# --- paths and methods


@pytest.mark.parametrize("path", ["/", "/nope", "/v1/nope", "/v1/models/x/y", "/../etc/passwd", "/" + "x" * 10_000])
async def test_an_unknown_path_is_not_found(client: Client, path: str) -> None:
    response = await client.get(path)
    missing = "model_not_found" if path.startswith("/v1/models") else "not_found"
    assert (response.status, response.code) == (404, missing)
    assert len(response.body) < 1_000


async def test_one_model_is_described(client: Client) -> None:
    response = await client.get("/v1/models/auto")
    assert response.json == {"id": "auto", "object": "model", "created": 0, "owned_by": "windlass"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/v1/feedback"), ("PUT", "/healthz")],
)
async def test_a_wrong_method_says_which_is_right(client: Client, method: str, path: str) -> None:
    response = await client.request(method, path, (), {})
    assert response.status == 405
    assert "; use " in response.json["error"]["message"]


async def test_what_is_not_ours_goes_to_the_dashboard(runtime: Runtime) -> None:
    seen: list[str] = []

    async def pages(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    client = Client(Windlass(runtime, dashboard=pages))
    assert (await client.get("/")).body == b"page"
    assert (await client.get("/ask")).body == b"page"
    assert (await client.get("/v1/nope")).status == 404
    assert (await client.get("/api/nope")).status == 404
    assert (await client.get("/", host="evil.example")).status == 403
    assert seen == ["/", "/ask"]


@pytest.mark.parametrize("started", [False, True])
async def test_a_part_that_breaks_is_answered_without_its_words(
    runtime: Runtime, logged: list[Any], started: bool
) -> None:
    async def broken(_scope: Any, _receive: Any, send: Any) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret: hunter2")

    response = await Client(Windlass(runtime, dashboard=broken)).get("/")
    assert response.status == (200 if started else 500)
    assert b"hunter2" not in response.body
    assert b"Traceback" not in response.body
    assert [(entry["event"], entry["error"]) for entry in logged] == [("request_failed", "bug")]


# --- operations


@pytest.mark.parametrize("name", ["doctor", "ask", "progress", "ingest", "mode", "rollback", "forget", "no-such"])
async def test_what_changes_something_is_posted(client: Client, name: str) -> None:
    assert (await client.get(f"/api/{name}")).status == 404


@pytest.mark.parametrize("name", ["", "nope", "calls/x", "__class__"])
async def test_an_unknown_operation_says_what_there_is(client: Client, name: str) -> None:
    response = await client.post(f"/api/{name}")
    assert response.status == 404
    assert "/api/calls" in response.json["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"5", b"\xff", b'{"a":' * 400, b'{"limit": NaN}'])
async def test_a_body_that_is_no_object_is_bad_json(runtime: Runtime, body: bytes) -> None:
    client = Client(Windlass(runtime))
    response = await client.post("/api/calls", body)
    assert (response.status, response.code) == (400, "invalid_json")


async def test_an_empty_body_asks_for_the_defaults(client: Client) -> None:
    assert (await client.post("/api/calls")).json == {"calls": []}


async def test_ingest_reads_files_and_takes_the_folders_token(client: Client, tmp_path: Path) -> None:
    wanted = {"paths": [str(tmp_path)]}
    for headers in (
        {},
        {"x_windlass_token": "wrong"},
        {"x_windlass_token": ""},
        {"authorization": "Bearer folder-token"},
    ):
        response = await client.post("/api/ingest", wanted, **headers)
        assert (response.status, response.code) == (401, "invalid_api_key")
    told = await client.post("/api/ingest", wanted, x_windlass_token="folder-token")
    assert told.status == 400
    assert "no transcripts" in told.json["error"]["message"]


async def test_without_a_token_of_ours_no_token_is_right(runtime: Runtime, tmp_path: Path) -> None:
    response = await Client(Windlass(runtime)).post("/api/ingest", {"paths": [str(tmp_path)]}, x_windlass_token="")
    assert response.status == 401


@pytest.mark.parametrize("token", ["\xe9", "\xff" * 9, "folder-token\xe9"])
async def test_a_token_of_any_bytes_is_only_wrong(client: Client, token: str) -> None:
    response = await client.post("/api/ingest", {"paths": ["/"]}, x_windlass_token=token)
    assert (response.status, response.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("role", ["viewer", "operator", "approver", "admin"])
async def test_no_key_of_any_role_reads_files(tmp_path: Path, role: str) -> None:
    async with opened(tmp_path, [Echo()], keys=[key("k", "acme", role=role)]) as runtime:
        client = Client(Windlass(runtime, token="folder-token"), bearer="secret-k")
        assert (await client.post("/api/ingest", {"paths": ["/etc"]})).status == 401


async def test_the_token_stands_for_the_owner_where_keys_are_configured(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()], keys=KEYS) as runtime:
        client = Client(Windlass(runtime, token="folder-token"))
        assert (await client.post("/api/calls")).status == 401
        assert (await client.post("/api/calls", x_windlass_token="folder-token")).json == {"calls": []}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback", "/api/calls"])
@pytest.mark.parametrize("split", [1, 100])
async def test_an_oversized_body_is_refused_with_and_without_a_length(client: Client, path: str, split: int) -> None:
    parts = tuple(b"x" * (4000 // split) for _ in range(split))
    response = await client.post(path, parts)
    assert (response.status, response.code) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback", "/api/calls"])
async def test_a_client_that_leaves_during_its_request_gets_nothing(client: Client, path: str) -> None:
    class Leaving(Client):
        async def request(self, method: str, path: str, parts: Any, headers: dict[str, str]) -> Response:
            sent: list[Any] = []
            events = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

            async def receive() -> Any:
                return events.pop(0)

            async def send(event: Any) -> None:
                sent.append(event)

            scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", HOST.encode())]}
            await self.app(scope, receive, send)
            assert sent == []
            return Response()

    await Leaving(client.app).post(path)


async def test_many_requests_at_once_are_all_answered(client: Client) -> None:
    replies = await asyncio.gather(*(client.post("/v1/chat/completions", chat(f"n{n}")) for n in range(40)))
    texts = {reply.json["choices"][0]["message"]["content"] for reply in replies}
    assert texts == {f"n{n}" for n in range(40)}
