"""What only `turbo` has: its own TLS, addresses, kept connections and unpacking. The rest is in test_clients.py."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.scenario.tls import self_signed
from tests.unit.gateway.providers.kinds import options, read
from tests.unit.gateway.transport.test_clients import OK, WHOLE, Peer, answers, playing, post

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.transport import turbo
from windlass.gateway.transport.inflate import MOST_CHUNK_BYTES
from windlass.gateway.transport.transport import Transport

RUNS: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs it on one of the event loops that there are."""
    return RUNS[request.param]


# --- TLS


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """What a server proves itself with to whoever trusts `SSL_CERT_FILE`, as this process does meanwhile."""
    paths = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    monkeypatch.setenv("SSL_CERT_FILE", str(paths[0]))
    turbo.trusted.cache_clear()
    yield context
    turbo.trusted.cache_clear()


@contextmanager
def behind_tls(
    certificate: ssl.SSLContext, *parts: bytes, host: str = "127.0.0.1", announced: bool = True
) -> Iterator[str]:
    """The URL of a server, in a thread of its own. Having said `parts` it hangs up, unless they are a whole answer.

    announced: it says so before it does.
    """
    listening = socket.create_server((host, 0))

    def serve(plain: socket.socket) -> None:
        plain.settimeout(5)
        with suppress(OSError), certificate.wrap_socket(plain, server_side=True) as one:
            while one.recv(65_536):
                for part in parts:
                    one.sendall(part)
                if parts != (WHOLE,):
                    time.sleep(0.05)
                    if announced:
                        one.unwrap()
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                serve(listening.accept()[0])

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"https://{host}:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


async def over_tls(url: str, times: int = 1) -> tuple[list[bytes], int]:
    """The bodies of the answers, and how many connections are kept."""
    transport = Transport(options("openai_compatible", url, transport="turbo"), {})
    try:
        bodies = [await read(await post(transport)) for _ in range(times)]
        return bodies, len(vars(transport._client)["_live"])
    finally:
        await transport.close()


def test_a_certificate_that_is_trusted_is_enough(run: Any, certificate: ssl.SSLContext) -> None:
    with behind_tls(certificate, WHOLE) as url:
        assert run(over_tls(url, 3)) == ([b"{}"] * 3, 1)


def test_a_certificate_for_another_address_is_refused(run: Any, certificate: ssl.SSLContext) -> None:
    with behind_tls(certificate, WHOLE, host="127.0.0.2") as url, pytest.raises(UpstreamError) as failed:
        run(over_tls(url))
    assert classify(failed.value) is ErrorCategory.TLS_FAILED


def test_the_server_is_told_which_name_is_meant(run: Any, certificate: ssl.SSLContext) -> None:
    named: list[str | None] = []
    certificate.sni_callback = lambda _socket, name, _context: named.append(name)
    with behind_tls(certificate, WHOLE) as url:
        run(over_tls(url.replace("127.0.0.1", "localhost")))
    assert named == ["localhost"]


def test_over_tls_an_end_that_was_not_announced_is_a_cut(run: Any, certificate: ssl.SSLContext) -> None:
    with behind_tls(certificate, OK + b"\r\n", b"{}") as url:
        assert run(over_tls(url))[0] == [b"{}"]
    silent = behind_tls(certificate, OK + b"\r\n", b"{}", announced=False)
    with silent as url, pytest.raises(UpstreamError) as failed:
        run(over_tls(url))
    assert classify(failed.value) is ErrorCategory.STREAM_CUT


# --- addresses


class Addresses:
    """A resolver that a test writes, in front of the loop's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *hosts: str):
        self.asked = 0
        loop = asyncio.get_running_loop()
        kept = loop.getaddrinfo

        async def answer(host: Any, port: Any, **more: Any) -> Any:
            if host != "upstream.test":
                return await kept(host, port, **more)
            self.asked += 1
            await asyncio.sleep(0.01)
            if not hosts:
                raise socket.gaierror(socket.EAI_NONAME, "no such host")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

        monkeypatch.setattr(loop, "getaddrinfo", answer)


async def test_an_address_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """192.0.2.1 is nobody's (RFC 5737): it is refused at once or never answers; either way the next one is taken."""
    addresses = Addresses(monkeypatch, "192.0.2.1", "127.0.0.1")
    async with playing("turbo", answers(WHOLE)) as (known, peers):
        port = vars(known._client)["_url"].rpartition(":")[2].partition("/")[0]
        named = Transport(options("openai_compatible", f"http://upstream.test:{port}", transport="turbo"), {})
        replies = await asyncio.gather(*(post(named) for _ in range(10)))
        for reply in replies:
            assert await read(reply) == b"{}"
        await named.close()
        assert addresses.asked == 1, "ten that wait for one name ask once"
        assert f"host: upstream.test:{port}".encode() in peers[0].requests[0]


async def test_a_name_that_nobody_has_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = Addresses(monkeypatch)
    transport = Transport(options("openai_compatible", "http://upstream.test", transport="turbo"), {})
    for _ in range(2):
        with pytest.raises(UpstreamError) as failed:
            await post(transport)
        assert classify(failed.value) is ErrorCategory.DNS_FAILED
    await transport.close()
    assert addresses.asked == 2


async def test_what_every_address_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Addresses(monkeypatch, "127.0.0.1", "127.0.0.2")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://upstream.test:{taken.getsockname()[1]}"
        transport = Transport(options("openai_compatible", url, transport="turbo"), {})
        with pytest.raises(UpstreamError) as failed:
            await post(transport)
        await transport.close()
    assert classify(failed.value) is ErrorCategory.CONNECT_REFUSED


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("http://h", "h", "/chat/completions"),
        ("http://h:80/v1/", "h", "/v1/chat/completions"),
        ("https://h:443/v1", "h", "/v1/chat/completions"),
        ("https://h:80/v1", "h:80", "/v1/chat/completions"),
        ("http://[::1]:8000/v1", "[::1]:8000", "/v1/chat/completions"),
        ("http://bücher.example/é", "xn--bcher-kva.example", "/%C3%A9/chat/completions"),
        ("http://h/a%20b", "h", "/a%20b/chat/completions"),
    ],
)
def test_the_head_names_host_and_path(url: str, host: str, path: str) -> None:
    made = turbo.TurboClient(options("openai_compatible", url), {}, url.rstrip("/"))
    lines = made._head("POST", "/chat/completions", "application/json").decode().split("\r\n")
    assert (lines[0], lines[1]) == (f"POST {path} HTTP/1.1", f"host: {host}")
    assert lines[-2:] == ["content-type: application/json", "content-length: "]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://me:pass@h", {"authorization": "Bearer k"}),
        ("http://h:0", {}),
        ("http://h\tx", {"x-a": "b\r\nc: d"}),
        ("http://h", {"x-a": "b\x00"}),
        ("http://h", {"x a": "b"}),
        ("http://h", {"": "b"}),
        ("http://" + "a" * 70, {}),
        ("http://h%0d%0a/", {"x-a": "\n"}),
    ],
)
async def test_what_cannot_be_sent_is_refused_without_telling_it(url: str, headers: dict[str, str]) -> None:
    transport = Transport(options("openai_compatible", url, transport="turbo"), headers)
    with pytest.raises(UpstreamError) as failed:
        await post(transport)
    assert classify(failed.value) is ErrorCategory.URL_INVALID
    assert not any(secret in str(failed.value) for secret in ("me:pass", "Bearer", "c: d"))


@pytest.mark.parametrize("method", ["POST /x HTTP/1.1\r\nx:", "", "GE T", "post"])
async def test_a_method_that_would_split_the_request_is_refused(method: str) -> None:
    async with playing("turbo", answers(WHOLE)) as (transport, peers):
        with pytest.raises(UpstreamError):
            await transport.request(method, "/x", b"")
        assert peers == []


# --- connections


async def keeps_on(peer: Peer) -> None:
    while True:
        await peer.asked()
        await peer.says(WHOLE)


async def test_a_connection_that_nobody_uses_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "KEPT_S", 0.1)
    async with playing("turbo", keeps_on) as (transport, peers):
        live = vars(transport._client)["_live"]
        replies = await asyncio.gather(*(post(transport) for _ in range(3)))
        for reply in replies:
            assert await read(reply) == b"{}"
        assert (len(peers), len(live)) == (3, 3)
        for _ in range(4):  # one stays in use
            await asyncio.sleep(0.04)
            assert await read(await post(transport)) == b"{}"
        assert (len(peers), len(live)) == (3, 1)
        await asyncio.sleep(0.25)
        assert (len(live), vars(transport._client)["_sweep"]) == (0, None)
        assert await read(await post(transport)) == b"{}"
        assert len(peers) == 4


async def test_the_connection_is_free_before_its_answer_is_read() -> None:
    async with playing("turbo", keeps_on) as (transport, peers):
        replies = [await post(transport) for _ in range(5)]
        await asyncio.sleep(0)
        assert [await read(reply) for reply in replies] == [b"{}"] * 5
        for reply in replies:
            await reply.chunks.aclose()
        assert await read(await post(transport)) == b"{}", "closing what was whole breaks nothing off"
        assert len(peers) <= 2


async def test_an_answer_that_comes_before_all_is_sent_ends_the_connection() -> None:
    async def play(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.says(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.sleep(0.2)

    async with playing("turbo", play) as (transport, peers):
        for _ in range(2):
            reply = await transport.request("POST", "/files", bytes(32 * 1024 * 1024))
            assert (reply.status, await read(reply)) == (413, b"")
        assert len(peers) == 2


async def test_the_answer_to_head_has_no_body() -> None:
    async with playing("turbo", answers(OK + b"content-length: 99\r\n\r\n")) as (transport, _):
        reply = await transport.request("HEAD", "/models", b"")
        assert (reply.status, await read(reply)) == (200, b"")


async def test_closing_tells_those_who_read() -> None:
    async def play(peer: Peer) -> None:
        await answers(OK + b"content-length: 9\r\n\r\n{}")(peer)
        await peer.gone()

    async with playing("turbo", play) as (transport, _):
        reply = await post(transport)
        reading = asyncio.create_task(read(reply))
        await asyncio.sleep(0.02)
        await asyncio.gather(transport.close(), transport.close())
        with pytest.raises(UpstreamError):
            await reading


async def test_many_paths_do_not_fill_the_memory() -> None:
    made = turbo.TurboClient(options("openai_compatible", "http://h"), {}, "http://h")
    for number in range(5 * turbo.MOST_HEADS):
        made._head("GET", f"/files/{number}", "")
    assert len(made._heads) <= turbo.MOST_HEADS


# --- bodies that come packed


async def test_a_bomb_is_unpacked_piece_by_piece() -> None:
    size = 64 * 1024 * 1024
    bomb = gzip.compress(bytes(size), 9)
    assert len(bomb) < 100_000
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)

    async def play(peer: Peer) -> None:
        while True:
            await peer.asked()
            await peer.says(head + bomb)

    async with playing("turbo", play) as (transport, _):
        sizes = [len(chunk) async for chunk in (await post(transport)).chunks]
        assert sum(sizes) == size
        assert max(sizes) <= MOST_CHUNK_BYTES
        left = await post(transport)
        await anext(aiter(left.chunks))
        await left.chunks.aclose()
        with pytest.raises((StopAsyncIteration, UpstreamError)):
            await anext(aiter(left.chunks))
