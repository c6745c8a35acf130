"""The one way to an upstream: what must not become a part of the URL. The rest is in test_openai_compatible.py."""

from __future__ import annotations

import pytest
from tests.golden.application import upstream
from tests.unit.gateway.providers.kinds import head_of, options, read, whole

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.transport.transport import CLIENTS, Transport


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Every test is run over each HTTP client."""
    return str(request.param)


@pytest.mark.parametrize(
    "path", ["", "chat", "@evil.example/", ".evil.example/", ":1/", "/a b", "/a\r\nx: y", "/\u00e9", "/a\x00"]
)
async def test_a_path_never_moves_the_host_nor_splits_the_request(client: str, path: str) -> None:
    async with upstream(whole("200 OK", b"{}")) as server:
        transport = Transport(
            options("openai_compatible", server.url.removesuffix("/v1"), transport=client), {"x-key": "k"}
        )
        with pytest.raises(UpstreamError) as failed:
            await transport.request("POST", path, b"{}")
        await transport.close()
        assert classify(failed.value) is ErrorCategory.URL_INVALID
        assert server.requests == []


@pytest.mark.parametrize(
    "url", ["http://user:secret@[::1/v1", "http://user:secret@127.0.0.1:99999", "http://u:secret@/v1"]
)
async def test_a_password_in_the_url_is_not_told(client: str, url: str) -> None:
    transport = Transport(options("openai_compatible", url, transport=client), {})
    with pytest.raises(UpstreamError) as failed:
        await transport.request("POST", "/chat/completions", b"{}")
    await transport.close()
    assert "secret" not in str(failed.value)


async def test_a_path_that_looks_like_a_host_is_a_path(client: str) -> None:
    async with upstream(whole("200 OK", b"{}")) as server:
        transport = Transport(options("openai_compatible", server.url.removesuffix("/v1"), transport=client), {})
        await read(await transport.request("POST", "//evil.example/x", b"{}"))
        await transport.close()
        assert head_of(server)[0] == "POST //evil.example/x HTTP/1.1"


async def test_a_request_without_a_body_names_no_type_of_one(client: str) -> None:
    async with upstream(whole("200 OK", b"{}")) as server:
        transport = Transport(
            options("openai_compatible", "http://127.0.0.1:1", transport=client),
            {"x-key": "k"},
            base_url=f"{server.url}/below/",
        )
        await read(await transport.request("DELETE", "/files/f", b""))
        await transport.close()
        first, headers, body = head_of(server)
    assert (first, headers["x-key"], body) == ("DELETE /v1/below/files/f HTTP/1.1", "k", b"")
    assert headers.get("content-type", "application/octet-stream") == "application/octet-stream"
