"""Hostile requests over real connections: bodies without end, targets with another host in them, broken framing."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.property.faithful import KEY, Faithful, in_a_thread, on_disk
from tests.property.hostile import cases, fault
from tests.scenario.program import free_port, kill, start, url_of

pytestmark = pytest.mark.scenario
COUNT, SOAK = 250, 5_000
GROWTH_BYTES: Final = 120 * 1024 * 1024
BLOCK: Final = b"x" * 65_536
CHAT: Final = b'{"model": "plain", "messages": [{"role": "user", "content": "ahoy"}]}'


class Server(NamedTuple):
    """A running server, its process, and what stands behind it."""

    host: str
    port: int
    pid: int
    upstream: Faithful

    def resident_bytes(self) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    def raw(self, *parts: bytes, patience_s: float = 20.0) -> bytes:
        """What comes back for these bytes, until the server hangs up or answers no more."""
        with socket.create_connection((self.host, self.port), timeout=patience_s) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except (ConnectionResetError, BrokenPipeError):
                pass
            answered = b""
            try:
                while got := connection.recv(65_536):
                    answered += got
                    if b"\r\n\r\n" in answered and _whole(answered):
                        break
            except ConnectionResetError:
                pass
            return answered


def _whole(answered: bytes) -> bool:
    head, _, body = answered.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= lengths[0]


@pytest.fixture(scope="module", params=["aiohttp", "turbo"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with in_a_thread() as upstream:
        upstream.transport = request.param
        home = folder / "home"
        process = start(home, "up", "--port", str(free_port()), **on_disk(folder, upstream))
        try:
            parts = urlsplit(url_of(home, process))
            yield Server(parts.hostname or "", parts.port or 0, process.pid, upstream)
            assert process.poll() is None, "it is still up"
        finally:
            kill(process)


def _sendable(value: str) -> bool:
    return value.isascii() and value.isprintable()


def test_hostile_requests_get_an_envelope_and_no_memory(server: Server, request: pytest.FixtureRequest) -> None:
    count = SOAK if request.config.getoption("--soak") else COUNT
    found, resident = [], 0
    for number, case in enumerate(cases(count, seed=23)):
        headers = {name: value for name, value in case.headers.items() if _sendable(value) and name != "content-length"}
        if not _sendable(case.path) or " " in case.path or "expect" in headers:
            continue
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=60)) as connection:
            body = iter(case.parts) if number % 2 else b"".join(case.parts)
            try:
                connection.request("POST", case.path, body, {**headers, "authorization": f"Bearer {KEY}"})
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough, and has answered
            try:
                answer = connection.getresponse()
                said = answer.read()
            except (ConnectionResetError, http.client.RemoteDisconnected):
                assert sum(map(len, case.parts)) > 1_000_000, "only who sends too much is hung up on"
                continue
        kind = answer.headers.get("content-type", "")
        if wrong := fault(case.path, answer.status, kind, said, ended=True):
            found.append(f"{case.path} {case.why}: {wrong}")
        resident = resident or server.resident_bytes()
    assert found == []
    assert server.upstream.wrong == []
    assert server.resident_bytes() - resident < GROWTH_BYTES


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/transcriptions", b"/api/calls", b"/v1/feedback"])
def test_a_body_without_end_is_cut_off(server: Server, path: bytes) -> None:
    """50 MB in chunks of unknown number: refused as soon as it is too much, and nothing is kept of it."""
    before = server.resident_bytes()
    kind = b"multipart/form-data; boundary=x" if b"audio" in path else b"application/json"
    head = b"POST %s HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\ncontent-type: %s\r\n" % (
        path,
        f"{server.host}:{server.port}".encode(),
        KEY.encode(),
        kind,
    )
    chunk = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    answered = server.raw(head + b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 800)
    assert answered == b"" or b" 413 " in answered.split(b"\r\n")[0], answered[:300]
    time.sleep(0.2)
    assert server.resident_bytes() - before < GROWTH_BYTES


def _asking(target: bytes, host: bytes, *headers: bytes) -> bytes:
    lines = [b"POST %s HTTP/1.1" % target, b"host: %s" % host, b"authorization: Bearer %s" % KEY.encode()]
    lines += [b"content-type: application/json", b"content-length: %d" % len(CHAT), b"connection: close", *headers]
    return b"\r\n".join([*lines, b"", CHAT])


def test_no_target_of_a_request_picks_a_host(server: Server) -> None:
    """RFC 9112, 3.2: the absolute, the authority and the asterisk form; and two hosts in one request."""
    with in_a_thread() as trap:
        url, host = trap.url.encode(), trap.host.encode()
        targets = [url + b"/chat/completions", b"//" + host + b"/v1/chat/completions", host, b"*", b"/v1/@" + host]
        targets += [b"/v1/..//" + host, b"/v1/%2e%2e/", b"/v1/files?u=" + url, b"http://user@" + host + b"/v1/files"]
        for target in targets:
            for own in (host, b"x", b"", f"{server.host}:{server.port}".encode()):
                answered = server.raw(_asking(target, own, b"x-forwarded-host: " + host, b"host: " + host))
                answered += server.raw(_asking(target, own, b"forwarded: host=" + host))
                for line in answered.split(b"\r\n"):
                    assert not line.startswith(b"HTTP/1.1 5"), (target, own, answered[:500])
        for first in (b"CONNECT %s HTTP/1.1" % host, b"GET %s HTTP/1.1" % url, b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0"):
            answered = server.raw(first + b"\r\nhost: %s\r\nconnection: close\r\n\r\n" % host, patience_s=5.0)
            assert not answered.startswith(b"HTTP/1.1 5"), (first, answered[:500])
        assert trap.asked == []
    assert server.upstream.wrong == []


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
        b"content-length: 5\r\ncontent-length: 6",
        b"content-length: +5",
        b"transfer-encoding: xchunked",
    ],
)
def test_a_request_never_hides_in_another(server: Server, framing: bytes) -> None:
    """Whoever frames a request in two ways is refused: the second of them is never answered (RFC 9112, 11.2)."""
    hidden = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n\r\n" % KEY.encode()
    head = b"POST /v1/feedback HTTP/1.1\r\nhost: x\r\n%s\r\n\r\n0\r\n\r\n" % framing
    answered = server.raw(head + hidden, patience_s=5.0)
    assert answered.count(b"HTTP/1.1 ") <= 1
    assert b'"object":"list"' not in answered
