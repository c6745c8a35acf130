"""The one way to an upstream: what must not become a part of the URL. The rest is in test_openai_compatible.py."""

from __future__ import annotations

import pytest
from tests.golden.application import upstream
from tests.unit.gateway.kinds import head_of, options, read, whole

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.transport import Transport


@pytest.mark.parametrize(
    "path",
    [
        "",
        "chat",
        "@evil.example/",
        ".evil.example/",
        ":1/",
        "//evil.example/x",
        "/a b",
        "/a\r\nx: y",
        "/\u00e9",
        "/a\x00",
    ],
)
async def test_a_path_never_moves_the_host_nor_splits_the_request(path: str) -> None:
    async with upstream(whole("200 OK", b"{}")) as server:
        transport = Transport(options("openai_compatible", server.url.removesuffix("/v1")), {"x-key": "k"})
        try:
            await read(await transport.request("POST", path, b"{}"))
        except UpstreamError as failed:
            assert classify(failed) is ErrorCategory.URL_INVALID
            assert server.requests == []
        else:
            assert path == "//evil.example/x", "a path on this very host"
            assert head_of(server)[0] == "POST //evil.example/x HTTP/1.1"
        await transport.close()


async def test_a_request_without_a_body_names_no_type_of_one() -> None:
    async with upstream(whole("200 OK", b"{}")) as server:
        transport = Transport(options("openai_compatible", server.url), {"x-key": "k"}, below="/below")
        await read(await transport.request("DELETE", "/files/f", b""))
        await transport.close()
        first, headers, body = head_of(server)
    assert (first, headers["x-key"], body) == ("DELETE /v1/below/files/f HTTP/1.1", "k", b"")
    assert headers.get("content-type", "application/octet-stream") == "application/octet-stream"
