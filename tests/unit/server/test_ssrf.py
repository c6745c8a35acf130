"""Client input never picks a host: not by a header, a body, a path, a query, nor through an upstream that redirects.

What is guaranteed: connections go to the addresses of the hosts in the settings and nowhere else, and names are looked
up for those alone. Where such a name leads is up to whoever runs its zone: TLS, not the address, says who answers.
An audit hook of the interpreter watches every look-up and every connection of the process.
"""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from tests.golden.application import HOST, Client, Response, chat, opened
from tests.property.faithful import SECRET, Faithful, before, faithful, providers, reply
from tests.property.hostile import BODIES

from windlass.gateway.endpoints import FOREIGN, RELAYED
from windlass.runtime import Runtime
from windlass.server.app import API, Windlass
from windlass.server.dashboard.pages import dashboard
from windlass.server.operations import OPERATIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
MODELS = ("plain", "translated", "gemini", "azure")
ENDPOINTS = (CHAT, "/v1/embeddings", *(f"/v1{path}" for path in RELAYED), *(f"/v1/{name}" for name in FOREIGN))
SENT = {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length", "connection"}
SENT |= {"authorization", "x-api-key", "x-goog-api-key", "api-key", "anthropic-version"}
"""All that may go up; the keys are the provider's own."""


class Reached:
    """Where the process connects to and what it looks up, while it watches."""

    def __init__(self) -> None:
        self.watching = False
        self.ports: set[tuple[str, int]] = set()
        self.names: set[str] = set()
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            self.ports.add(arguments[1][:2])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self.names.add(str(arguments[0]))

    @contextmanager
    def only(self, upstream: Faithful) -> Iterator[None]:
        """Nothing else is connected to, and no other name looked up."""
        self.watching, self.ports, self.names = True, set(), set()
        try:
            yield
        finally:
            self.watching = False
        host, _, port = upstream.host.partition(":")
        assert self.ports <= {(host, int(port))}
        assert self.names <= {host}
        assert upstream.wrong == []


@pytest.fixture(scope="module")
def reached() -> Reached:
    return Reached()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trap() -> AsyncIterator[Faithful]:
    """Where nobody is ever sent."""
    async with faithful() as server:
        yield server
    assert server.asked == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Faithful]:
    async with faithful() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(upstream: Faithful, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with before(upstream, tmp_path_factory.mktemp("home")) as opened_runtime:
        yield opened_runtime


async def _ask(
    runtime: Runtime, path: str, body: Any = None, *, query: bytes = b"", method: str = "POST", **headers: str
) -> Response:
    """Send it with the key; `query` is what stands behind the `?`."""
    app = Windlass(runtime)

    async def with_query(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "query_string": query}, receive, send)

    client = Client(with_query, bearer="secret-boss")  # type: ignore[arg-type]
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    return await client.request(method, path, (data,), {"content-type": "application/json", **headers})


def _body(path: str, model: str = "plain") -> dict[str, Any]:
    return {**BODIES[path](random.Random(1)), "model": model, "stream": False}


# --- headers


ROUTING = (
    *("x-forwarded-host", "x-forwarded-server", "x-forwarded-proto", "x-original-url", "x-rewrite-url", "forwarded"),
    *("x-host", "x-real-ip", "via", "location", "destination", "x-base-url", "x-upstream-url", "x-target-url"),
    *("openai-base-url", "openai-organization", "x-portkey-custom-host", "helicone-target-url", "cf-aig-target"),
    *("proxy-authorization", "proxy-connection", "upgrade", "x-http-method-override", "cookie", "referer"),
)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_no_header_of_a_client_goes_up_or_picks_a_host(
    runtime: Runtime, upstream: Faithful, trap: Faithful, reached: Reached, path: str
) -> None:
    headers = dict.fromkeys(ROUTING, trap.url) | {"host": trap.host, "forwarded": f"host={trap.host};proto=http"}
    with reached.only(upstream):
        response = await _ask(runtime, path, _body(path), **headers)
    assert response.status == 200, response.body
    assert upstream.heads[-1].keys() <= SENT
    assert trap.host not in str(upstream.heads[-1])
    assert "secret-boss" not in str(upstream.heads[-1])


@pytest.mark.parametrize(
    "kind", ["text/plain\r\nhost: {host}", "text/\x00", "text/\x0b", "text/\x7f", "m; boundary=\xe9"]
)
async def test_a_content_type_that_is_none_is_the_clients_mistake(
    runtime: Runtime, upstream: Faithful, trap: Faithful, kind: str
) -> None:
    upstream.asked.clear()
    for path in ("/v1/batches", "/v1/audio/transcriptions", CHAT):
        response = await _ask(runtime, path, b"x", **{"content-type": kind.replace("{host}", trap.host)})
        assert (response.status, response.json["error"]["param"]) == (400, "content-type")
    assert upstream.asked == []


# --- bodies


ROUTES: dict[str, Any] = {
    **dict.fromkeys(("base_url", "api_base", "endpoint", "url", "host", "proxy", "webhook_url"), "{trap}"),
    **dict.fromkeys(("provider", "custom_llm_provider", "api_version", "organization", "deployment_id"), "{trap}"),
    "user_config": {"model_list": [{"litellm_params": {"api_base": "{trap}", "model": "plain"}}]},
    "litellm_params": {"api_base": "{trap}"},
    "extra_body": {"base_url": "{trap}"},
    "extra_headers": {"host": "{trap}"},
    "fallbacks": ["{trap}"],
    "metadata": {"base_url": "{trap}"},
}


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("model", MODELS)
async def test_no_field_of_a_body_picks_a_host(
    runtime: Runtime, upstream: Faithful, trap: Faithful, reached: Reached, path: str, model: str
) -> None:
    more = json.loads(json.dumps(ROUTES).replace("{trap}", trap.url))
    with reached.only(upstream):
        response = await _ask(runtime, path, {**_body(path, model), **more})
        assert response.status < 500, response.body
        for name, value in more.items():
            await _ask(runtime, path, {**_body(path, model), name: value})


@pytest.mark.parametrize("model", MODELS)
async def test_nothing_that_a_message_names_is_fetched(
    runtime: Runtime, upstream: Faithful, trap: Faithful, reached: Reached, model: str
) -> None:
    """Pictures, files and servers of tools are for the model's own provider to fetch, or refused."""
    url = f"{trap.url}/a.png"
    image = {"type": "image_url", "image_url": {"url": url}}
    chats = [
        chat("x", model, messages=[{"role": "user", "content": [image]}]),
        chat("x", model, messages=[{"role": "user", "content": [{"type": "file", "file": {"file_data": url}}]}]),
        chat("x", model, tools=[{"type": "mcp", "server_label": "x", "server_url": url}]),
        chat("x", model, messages=[{"role": "user", "content": url}], web_search_options={"url": url}),
    ]
    parts = [{"type": "input_image", "image_url": url}, {"type": "input_file", "file_url": url}]
    answers = [
        {"model": model, "input": [{"role": "user", "content": [part]}], "prompt": {"id": url}} for part in parts
    ]
    answers += [{"model": model, "input": "x", "tools": [{"type": "mcp", "server_label": "x", "server_url": url}]}]
    source = {"type": "url", "url": url}
    blocks = [{"type": "image", "source": source}, {"type": "document", "source": source}]
    messages = [{"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": [one]}]} for one in blocks]
    messages += [{**messages[0], "mcp_servers": [{"type": "url", "url": url, "name": "x"}]}]
    with reached.only(upstream):
        for path, bodies in ((CHAT, chats), ("/v1/responses", answers), ("/v1/messages", messages)):
            for body in bodies:
                assert (await _ask(runtime, path, body)).status < 500


NAMES = (
    *(
        "{trap}",
        "http://{host}/v1",
        "openai/{trap}",
        "plain@{host}",
        "//{host}/x",
        "\\\\{host}",
        "plain#@{host}",
        "plain?x={trap}",
    ),
    *(
        "../../{host}",
        "..",
        ".",
        "%2e%2e%2f",
        "plain\r\nhost: {host}",
        "plain\x00",
        "plain ",
        "/",
        ":80",
        "a:b@{host}",
        "é",
    ),
    *("models/../../x", "x/../../../y", "publishers/{host}/models/x", "x" * 300),
)


@pytest.mark.parametrize("kind", ["openai_compatible", "anthropic", "gemini", "azure"])
async def test_no_name_of_a_model_picks_a_host_or_a_path(
    trap: Faithful, reached: Reached, tmp_path: Path, kind: str
) -> None:
    """Where one entry stands for models of any name, and so for a name that was made to lead elsewhere."""
    async with faithful() as upstream:
        upstream.models = ()
        (one,) = [one for one in providers(upstream) if one["kind"] == kind]
        options = {"api_version": "2025-01-01"} if kind == "azure" else {}
        any_model = {**one, "models": [{"name": "*"}], "endpoints": [], "options": options}
        async with before(upstream, tmp_path, providers=[any_model], gateway__pass_through="") as runtime:
            for name in NAMES:
                model = name.replace("{trap}", trap.url).replace("{host}", trap.host)
                await _named(runtime, upstream, reached, model)


async def _named(runtime: Runtime, upstream: Faithful, reached: Reached, model: str) -> None:
    for path in (CHAT, "/v1/messages", "/v1/embeddings", "/v1/images/generations"):
        upstream.asked.clear()
        with reached.only(upstream):
            response = await _ask(runtime, path, _body(path, model))
        assert response.status < 500, (model, response.body)
        for line in upstream.asked:
            sent = line.split(" ")[1].partition("?")[0]
            assert sent.startswith(("/v1/", "/openai/deployments/")), line
            assert ".." not in sent.split("/"), line
    assert (await _ask(runtime, "/v1/models/" + model, method="GET")).status in (200, 404)


# --- paths and queries


PATHS = (
    *("/../../admin", "/files/../../admin", "/files/..", "/./files", "//{host}/x", "/@{host}/", "/http://{host}/x"),
    *("/\\\\{host}\\x", "/files/\\..\\..", "/files/a b", "/files/a\r\nhost: {host}", "/files/a\x00", "/files/é"),
    *(
        "/files/%2e%2e/%2e%2e",
        "/files/%0d%0ahost:%20{host}",
        "/files/;{host}",
        "/:80/x",
        "/.",
        "/files//x",
        "/?x",
        "/#x",
    ),
    *("/{host}", "/files/{host}", "/threads/x/../../..", "/models/../files", "/models/..", "/responses/.."),
)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_no_path_leaves_the_base_url(
    runtime: Runtime, upstream: Faithful, trap: Faithful, reached: Reached, method: str
) -> None:
    for one in PATHS:
        path = "/v1" + one.replace("{host}", trap.host)
        upstream.asked.clear()
        with reached.only(upstream):
            response = await _ask(runtime, path, {} if method == "POST" else None, method=method)
        assert response.status < 500, (path, response.body)
        assert all(line.split(" ")[1] == path for line in upstream.asked), upstream.asked


QUERIES = (
    b"base_url={trap}",
    b"@{host}",
    b"x=1&api-version=../..",
    b"x=%0d%0ahost:%20{host}",
    b"?",
    b"&&&",
)
RAW = (b"#@{host}", b"x=\r\nhost: {host}", b"x=a b", b"x=\xe9", b"x=\x00", b"x=\x7f")


async def test_no_query_picks_a_host(runtime: Runtime, upstream: Faithful, trap: Faithful, reached: Reached) -> None:
    for one in QUERIES:
        query = one.replace(b"{trap}", trap.url.encode()).replace(b"{host}", trap.host.encode())
        with reached.only(upstream):
            response = await _ask(runtime, "/v1/files", query=query, method="GET")
        assert response.status == 200
        assert upstream.asked[-1].split(" ")[1] == f"/v1/files?{query.decode()}"


async def test_a_query_that_is_none_is_the_clients_mistake(
    runtime: Runtime, upstream: Faithful, trap: Faithful, reached: Reached
) -> None:
    upstream.asked.clear()
    for one in RAW:
        with reached.only(upstream):
            response = await _ask(runtime, "/v1/files", query=one.replace(b"{host}", trap.host.encode()), method="GET")
        assert response.status == 400, (one, response.body)
    assert upstream.asked == []


# --- upstreams that send elsewhere


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_no_redirect_is_followed_and_no_key_goes_along(
    trap: Faithful, reached: Reached, tmp_path: Path, status: int
) -> None:
    async with faithful() as upstream:
        more = (f"location: {trap.url}/chat/completions", "set-cookie: crumb=1", f"refresh: 0;url={trap.url}")
        upstream.aside = lambda _first: reply("text/html", b"moved", f"{status} Moved", *more)
        async with before(upstream, tmp_path) as runtime:
            for model, path in [(model, CHAT) for model in MODELS] + [("plain", path) for path in ENDPOINTS]:
                for stream in (False, True):
                    with reached.only(upstream):
                        response = await _ask(runtime, path, {**_body(path, model), "stream": stream})
                    assert response.status in (status, 502), response.body
                    assert "location" not in response.headers
                    assert trap.host not in f"{response.headers} {response.body!r}"
                    assert SECRET not in f"{response.headers} {response.body!r}"
            with reached.only(upstream):
                told = await _ask(runtime, "/v1/files/f", method="GET")
            assert told.status in (status, 502)
            assert "location" not in told.headers
        assert upstream.asked
        assert not any("cookie" in head for head in upstream.heads), "what an upstream sets is not kept"


async def test_no_proxy_of_the_environment_is_used(
    trap: Faithful, reached: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{trap.host}")
    async with faithful() as upstream, before(upstream, tmp_path) as runtime:
        with reached.only(upstream):
            assert (await _ask(runtime, CHAT, _body(CHAT))).status == 200


async def test_a_name_that_moves_is_followed_only_where_the_settings_name_it(
    trap: Faithful, reached: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zone of a provider is its own: what it says now is where calls go. No other name is ever looked up."""
    async with faithful() as upstream:
        port = int(upstream.host.partition(":")[2])
        upstream.host = f"crane.test:{port}"
        looked_up: list[str] = []
        found = ["127.0.0.1"]

        def moving(host: Any, at: Any, *_more: Any, **_named: Any) -> list[Any]:
            name = host.decode() if isinstance(host, bytes) else str(host)
            looked_up.append(name)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[-1], int(at)))]

        monkeypatch.setattr(socket, "getaddrinfo", moving)
        async with before(upstream, tmp_path) as runtime:
            for path in (CHAT, "/v1/messages", "/v1/embeddings"):
                response = await _ask(runtime, path, {**_body(path), "base_url": trap.url}, x_forwarded_host=trap.host)
                assert response.status == 200, response.body
            found.append("127.0.0.2")
            assert (await _ask(runtime, CHAT, _body(CHAT))).status in (200, 502)
    assert set(looked_up) <= {"crane.test", "127.0.0.1"}
    assert upstream.wrong == []


# --- names that a browser was made to believe


async def test_without_keys_no_door_answers_another_name(tmp_path: Path) -> None:
    """A page of another site whose name now leads to 127.0.0.1 reads nothing here, whatever it asks for."""
    async with opened(tmp_path) as runtime:
        app = Windlass(runtime, token="folder-token", dashboard=dashboard(runtime))
        routes = [*app._routes, *(("POST", API + name) for name in OPERATIONS), ("GET", "/api/calls"), ("GET", "/v1/x")]
        routes += [("GET", page) for page in ("/", "/calls", "/decisions", "/feedback", "/ask", "/events", "/login")]
        for method, path in routes:
            for host in ("evil.example", "evil.example:8321", "127.0.0.1.evil.example", ""):
                response = await Client(app).request(method, path, (b"{}",), {"host": host})
                assert response.status == 403, (method, path, host, response.body)
                told = await Client(app).request(method, path, (b"{}",), {"origin": "http://evil.example"})
                assert told.status == 403, (method, path)
                assert "access-control-allow-origin" not in response.headers | told.headers
        assert (await Client(app).get("/healthz", host=HOST)).status == 200
