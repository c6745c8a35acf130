"""What every HTTP client promises (`gateway.transport.http.HttpClient`), on both event loops, against raw sockets."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from tests.golden.application import upstream
from tests.unit.gateway.providers.kinds import head_of, options, read, whole

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.transport.transport import CLIENTS, Transport

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
WHOLE = OK + b"content-length: 2\r\n\r\n{}"
C = ErrorCategory
STRICT = [name for name in CLIENTS if name != "aiohttp"]
"""Clients that promise more. aiohttp 3.14 sends a PUT again whose answer had begun, waits for `idle_timeout_s` after
nonsense in a later packet, and takes for whole a body that was compressed and cut, or without a length and reset."""


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Peer:
    """One connection as the upstream sees it: `ended_at` by the monotonic clock."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0
    requests: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    async def asked(self) -> bytes:
        """The next request, with its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        self.requests.append(head + await self.reader.readexactly(length))
        return self.requests[-1]

    async def says(self, *parts: bytes) -> None:
        """One packet each."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            self.sent += len(part)
            await asyncio.sleep(0.002)

    def reset(self) -> None:
        """End it as a crash does."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()

    async def gone(self) -> None:
        """Wait until the other side hangs up."""
        await self.reader.read()
        self.ended_at = time.monotonic()
        self.ended.set()


Play = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def playing(client: str, play: Play, **more: Any) -> AsyncIterator[tuple[Transport, list[Peer]]]:
    """A transport and the connections that its upstream has seen; `play` is run for each."""
    peers: list[Peer] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peers.append(Peer(reader, writer))
        try:
            await play(peers[-1])
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    transport = Transport(options("openai_compatible", url, transport=client, **more), {"authorization": "Bearer k"})
    try:
        yield transport, peers
    finally:
        await transport.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)


async def post(transport: Transport, body: bytes = b"{}") -> Any:
    return await transport.request("POST", "/chat/completions", body)


async def answered(transport: Transport) -> tuple[int, bytes]:
    reply = await post(transport)
    return reply.status, await read(reply)


def answers(*parts: bytes) -> Play:
    """These to one request, one packet each, then nothing more."""

    async def play(peer: Peer) -> None:
        await peer.asked()
        await peer.says(*parts)

    return play


PACKED = gzip.compress(b'{"ok": true}')
GOOD: dict[str, tuple[list[bytes], tuple[int, bytes]]] = {
    "length": ([WHOLE], (200, b"{}")),
    "byte by byte": ([bytes([one]) for one in WHOLE], (200, b"{}")),
    "interim": ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" + WHOLE], (200, b"{}")),
    "chunks": ([OK + b"transfer-encoding: chunked\r\n\r\n1;e=1\r\n{\r\n1\r\n}\r\n0\r\nt: r\r\n\r\n"], (200, b"{}")),
    "to the end": ([OK + b"\r\n", b"{", b"}"], (200, b"{}")),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], (204, b"")),
    "304": ([b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"], (304, b"")),
    "1.0": ([b"HTTP/1.0 200 OK\r\n\r\n{}"], (200, b"{}")),
    "no reason": ([b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}"], (200, b"{}")),
    "upgrade offered": ([OK + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}"], (200, b"{}")),
    "gzip": ([OK + b"content-encoding: gzip\r\n\r\n", PACKED[:7], PACKED[7:]], (200, b'{"ok": true}')),
    "two gzips": ([OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(b"{") + gzip.compress(b"}")], (200, b"{}")),
    "deflate": ([OK + b"content-encoding: deflate\r\n\r\n" + zlib.compress(b"{}")], (200, b"{}")),
    "raw deflate": ([OK + b"content-encoding: deflate\r\n\r\n" + zlib.compress(b"{}", wbits=-15)], (200, b"{}")),
    "gzip of nothing": ([OK + b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n"], (200, b"")),
}


@pytest.mark.parametrize("name", GOOD)
async def test_every_form_of_an_answer_is_read(client: str, name: str) -> None:
    parts, expected = GOOD[name]
    async with playing(client, answers(*parts)) as (transport, _):
        assert await answered(transport) == expected


BAD: dict[str, tuple[list[bytes], ErrorCategory]] = {
    "nothing": ([], C.CONNECTION_RESET),
    "half a head": ([OK], C.CONNECTION_RESET),
    "interim alone": ([b"HTTP/1.1 100 Continue\r\n\r\n"], C.CONNECTION_RESET),
    "length": ([OK + b"content-length: 20\r\n\r\n{}"], C.STREAM_CUT),
    "chunks": ([OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"], C.STREAM_CUT),
    "no TLS expected": ([b"\x16\x03\x01 no\r\n\r\n"], C.RESPONSE_MALFORMED),
    "HTTP/2": ([b"HTTP/2 200 OK\r\ncontent-length: 0\r\n\r\n"], C.RESPONSE_MALFORMED),
    "NUL": ([OK + b"x: a\x00b\r\ncontent-length: 2\r\n\r\n{}"], C.RESPONSE_MALFORMED),
    "two framings": ([OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], C.RESPONSE_MALFORMED),
    "two lengths": ([OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"], C.RESPONSE_MALFORMED),
    "negative length": ([OK + b"content-length: -2\r\n\r\n{}"], C.RESPONSE_MALFORMED),
    "status of two digits": ([b"HTTP/1.1 20 X\r\ncontent-length: 2\r\n\r\n{}"], C.RESPONSE_MALFORMED),
    "nonsense for a chunk": ([OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"], C.CHUNK_MALFORMED),
    "a header without end": ([OK + b"x: ", *[b"y" * 9_000] * 20], C.RESPONSE_MALFORMED),
    "a long header": ([OK + b"x: " + b"y" * 100_000 + b"\r\ncontent-length: 2\r\n\r\n{}"], C.RESPONSE_MALFORMED),
    "no gzip": ([OK + b"content-encoding: gzip\r\n\r\nnot gzip at all"], C.RESPONSE_MALFORMED),
    "brotli": ([OK + b"content-encoding: br\r\ncontent-length: 2\r\n\r\n{}"], C.RESPONSE_MALFORMED),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_breaks_off_or_is_nonsense_is_never_a_clean_end(client: str, name: str) -> None:
    parts, category = BAD[name]
    async with playing(client, answers(*parts)) as (transport, _):
        with pytest.raises(UpstreamError, match="provider up failed") as failed:
            await answered(transport)
        assert classify(failed.value) is category


@pytest.mark.parametrize(("parts", "category"), [([], C.CONNECTION_RESET), ([WHOLE[:-1]], C.STREAM_CUT)])
async def test_a_reset_is_told_as_what_it_broke(client: str, parts: list[bytes], category: ErrorCategory) -> None:
    async def play(peer: Peer) -> None:
        await peer.asked()
        await peer.says(*parts)
        await asyncio.sleep(0.02)
        peer.reset()

    async with playing(client, play) as (transport, _):
        with pytest.raises(UpstreamError) as failed:
            await answered(transport)
        assert classify(failed.value) is category


STRICT_BAD: dict[str, tuple[list[bytes], ErrorCategory]] = {
    "nonsense for a later chunk": ([OK + b"transfer-encoding: chunked\r\n\r\n", b"zz\r\n"], C.CHUNK_MALFORMED),
    "gzip": ([OK + b"content-encoding: gzip\r\n\r\n" + PACKED[:-9]], C.RESPONSE_MALFORMED),
    "an encoding that nobody knows": ([OK + b"content-encoding: x\r\n\r\n{}"], C.RESPONSE_MALFORMED),
    "endless trailers": (
        [OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", *[b"x: " + b"y" * 9_000 + b"\r\n"] * 20],
        C.RESPONSE_MALFORMED,
    ),
    "an endless extension": (
        [OK + b"transfer-encoding: chunked\r\n\r\n2;", *[b"x" * 9_000] * 20],
        C.RESPONSE_MALFORMED,
    ),
    "interims without end": ([b"HTTP/1.1 103 E\r\n\r\n" * 900] * 9, C.RESPONSE_MALFORMED),
    "another protocol": ([b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], C.RESPONSE_MALFORMED),
}


@pytest.mark.parametrize("client", STRICT)
@pytest.mark.parametrize("name", STRICT_BAD)
async def test_what_a_strict_client_takes_for_nonsense_too(client: str, name: str) -> None:
    parts, category = STRICT_BAD[name]

    async def play(peer: Peer) -> None:
        await answers(*parts)(peer)
        await asyncio.sleep(0.05 if name == "gzip" else 1.0)

    async with playing(client, play) as (transport, _):
        with pytest.raises(UpstreamError) as failed:
            await answered(transport)
        assert classify(failed.value) is category


@pytest.mark.parametrize("client", STRICT)
async def test_a_reset_is_no_end_of_a_body_without_length(client: str) -> None:
    await test_a_reset_is_told_as_what_it_broke(client, [OK + b"\r\n{}"], C.STREAM_CUT)


@pytest.mark.parametrize("client", STRICT)
async def test_a_part_of_another_answer_spoils_the_connection(client: str) -> None:
    await test_a_connection_that_is_not_clean_is_not_used_again(client, WHOLE + b"HT")


async def test_what_came_before_a_break_is_the_readers(client: str) -> None:
    async with playing(client, answers(OK + b"content-length: 9\r\n\r\n", b"one", b"two")) as (transport, _):
        reply, seen = await post(transport), b""
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamError) as failed:
            async for chunk in reply.chunks:
                seen += chunk
        assert (seen, classify(failed.value)) == (b"onetwo", C.STREAM_CUT)


# --- time


@pytest.mark.parametrize(
    ("parts", "category"),
    [
        ([], C.FIRST_BYTE_TIMEOUT),
        ([OK], C.FIRST_BYTE_TIMEOUT),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], C.FIRST_BYTE_TIMEOUT),
        ([OK + b"content-length: 9\r\n\r\n"], C.STREAM_IDLE),
        ([OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"], C.STREAM_IDLE),
    ],
    ids=["silent", "half a head", "interim", "no body", "half a body"],
)
async def test_every_wait_has_its_bound(client: str, parts: list[bytes], category: ErrorCategory) -> None:
    async def play(peer: Peer) -> None:
        await answers(*parts)(peer)
        await peer.gone()

    async with playing(client, play, first_byte_timeout_s=0.15, idle_timeout_s=0.1) as (transport, peers):
        began = time.monotonic()
        with pytest.raises(UpstreamError) as failed:
            await answered(transport)
        assert classify(failed.value) is category
        assert 0.08 <= time.monotonic() - began < 1.0
        async with asyncio.timeout(1):
            await peers[0].ended.wait()


async def test_time_between_chunks_is_counted_anew_for_each_call_of_a_connection(client: str) -> None:
    """Longer in total than one wait may be, and a short wait after a long one."""

    async def play(peer: Peer) -> None:
        for _ in range(3):
            await peer.asked()
            await asyncio.sleep(0.05)
            await peer.says(OK + b"content-length: 6\r\n\r\n")
            for part in (b"a", b"b", b"c"):
                await asyncio.sleep(0.22)
                await peer.says(part + part)
        await peer.asked()
        await peer.gone()

    async with playing(client, play, first_byte_timeout_s=0.9, idle_timeout_s=0.6) as (transport, peers):
        for _ in range(3):
            assert await answered(transport) == (200, b"aabbcc")
        with pytest.raises(UpstreamError) as failed:
            await answered(transport)
        assert classify(failed.value) is C.FIRST_BYTE_TIMEOUT
        assert len(peers) == 1


async def test_a_host_that_takes_no_connection_is_a_timeout_of_its_own(client: str) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        timeouts = {"connect_timeout_s": 0.1, "first_byte_timeout_s": 5.0}
        transport = Transport(options("openai_compatible", url, transport=client, **timeouts), {})
        with pytest.raises(UpstreamError) as failed:
            await post(transport)
        assert classify(failed.value) is C.CONNECT_TIMEOUT
        await transport.close()
        for one in filling:
            one.close()


# --- who leaves


async def left_after(client: str, parts: list[bytes], *, read_first: bool) -> float:
    """Seconds from leaving to the upstream's seeing it."""

    async def play(peer: Peer) -> None:
        await answers(*parts)(peer)
        await peer.gone()

    async with playing(client, play) as (transport, peers):
        if parts:
            reply = await post(transport)
            if read_first:
                await anext(aiter(reply.chunks))
            left_at = time.monotonic()
            await reply.chunks.aclose()
            await reply.chunks.aclose()
        else:
            waiting = asyncio.create_task(post(transport))
            while not (peers and peers[0].requests):
                await asyncio.sleep(0.001)
            left_at = time.monotonic()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with asyncio.timeout(2):
            await peers[0].ended.wait()
        return peers[0].ended_at - left_at


STREAM = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n"


@pytest.mark.parametrize(
    ("parts", "read_first"), [([], False), ([STREAM], False), ([STREAM], True)], ids=["silent", "unread", "reading"]
)
async def test_leaving_hangs_up_within_50_ms(client: str, parts: list[bytes], read_first: bool) -> None:
    took = sorted([await left_after(client, parts, read_first=read_first) for _ in range(7)])
    # The median: a pause of a busy machine falls into some.
    assert took[3] <= 0.05


async def test_a_reader_that_is_cancelled_may_read_on(client: str) -> None:
    """A time-out of the reader's own is no end of the body."""

    async def play(peer: Peer) -> None:
        await answers(OK + b"content-length: 4\r\n\r\nab")(peer)
        await asyncio.sleep(0.1)
        await peer.says(b"cd")

    async with playing(client, play) as (transport, _):
        reply = await post(transport)
        chunks = aiter(reply.chunks)
        assert await anext(chunks) == b"ab"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(chunks)
        assert await anext(chunks) == b"cd"
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


async def test_what_nobody_reads_is_not_taken(client: str) -> None:
    """A slow client: the upstream is stopped by its own full socket, not by the end of our memory."""
    total = 64 * 1024 * 1024

    async def play(peer: Peer) -> None:
        await peer.asked()
        peer.writer.transport.set_write_buffer_limits(64 * 1024)
        await peer.says(OK + b"content-length: %d\r\n\r\n" % total)
        for _ in range(total // 65_536):
            peer.writer.write(bytes(65_536))
            await peer.writer.drain()
            peer.sent += 65_536

    async with playing(client, play) as (transport, peers):
        reply = await post(transport)
        await anext(aiter(reply.chunks))
        await asyncio.sleep(0.5)
        taken = peers[0].sent
        await asyncio.sleep(0.2)
        assert peers[0].sent == taken < total // 3, "it has stopped"
        size = 0
        async for chunk in reply.chunks:
            size += len(chunk)
            assert len(chunk) <= 1024 * 1024
        assert total - 1024 * 1024 <= size <= total


# --- connections


async def test_a_connection_is_used_again_when_the_answer_is_whole(client: str) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.asked()
            await peer.says(WHOLE)

    async with playing(client, play) as (transport, peers):
        for _ in range(5):
            assert await answered(transport) == (200, b"{}")
        assert [len(peer.requests) for peer in peers] == [5]


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        WHOLE + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    ],
    ids=["close", "1.0", "another answer"],
)
async def test_a_connection_that_is_not_clean_is_not_used_again(client: str, answer: bytes) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.asked()
            await peer.says(answer)

    async with playing(client, play) as (transport, peers):
        for _ in range(3):
            assert await answered(transport) == (200, b"{}")
            await asyncio.sleep(0.02)
        assert [len(peer.requests) for peer in peers] == [1, 1, 1]


async def test_words_that_nobody_asked_for_are_no_answer_to_the_next_request(client: str) -> None:
    async def play(peer: Peer) -> None:
        await peer.asked()
        await peer.says(WHOLE)
        await peer.says(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await peer.gone()

    async with playing(client, play) as (transport, peers):
        for _ in range(2):
            assert await answered(transport) == (200, b"{}")
            await asyncio.sleep(0.05)
        assert len(peers) == 2


async def test_a_kept_connection_that_was_closed_is_replaced(client: str) -> None:
    async def play(peer: Peer) -> None:
        await peer.asked()
        await peer.says(WHOLE)

    async with playing(client, play) as (transport, peers):
        for _ in range(3):
            assert await answered(transport) == (200, b"{}")
            await asyncio.sleep(0.03)
        assert len(peers) == 3


async def closes_on_the_second(peer: Peer) -> None:
    """It hangs up when the second request is there: what a kept connection does whose end was on its way."""
    await peer.asked()
    await peer.says(WHOLE)
    await peer.asked()


async def test_a_request_that_may_be_repeated_is_sent_once_more(client: str) -> None:
    async with playing(client, closes_on_the_second) as (transport, peers):
        for _ in range(2):
            assert await read(await transport.request("GET", "/models", b"")) == b"{}"
        assert [len(peer.requests) for peer in peers] == [2, 1]


async def test_a_post_is_never_sent_twice(client: str) -> None:
    async with playing(client, closes_on_the_second) as (transport, peers):
        assert await answered(transport) == (200, b"{}")
        with pytest.raises(UpstreamError) as failed:
            await answered(transport)
        assert classify(failed.value) is C.CONNECTION_RESET
        assert [len(peer.requests) for peer in peers] == [2]


@pytest.mark.parametrize("client", STRICT)
async def test_what_was_begun_to_be_answered_is_never_sent_twice(client: str) -> None:
    async def play(peer: Peer) -> None:
        await peer.asked()
        await peer.says(WHOLE)
        await peer.asked()
        await peer.says(OK)

    async with playing(client, play) as (transport, peers):
        assert await read(await transport.request("PUT", "/files", b"x")) == b"{}"
        with pytest.raises(UpstreamError):
            await transport.request("PUT", "/files", b"x")
        assert sum(len(peer.requests) for peer in peers) <= 3


async def test_closing_ends_every_connection_and_a_later_request_opens_new_ones(client: str) -> None:
    async def play(peer: Peer) -> None:
        await peer.asked()
        await peer.says(WHOLE)
        await peer.gone()

    async with playing(client, play) as (transport, peers):
        for _ in range(2):
            assert await answered(transport) == (200, b"{}")
            await transport.close()
            async with asyncio.timeout(2):
                await peers[-1].ended.wait()
        assert len(peers) == 2


async def test_a_large_body_goes_up_while_the_upstream_reads_slowly(client: str) -> None:
    body = bytes(range(256)) * 4_000

    async def play(peer: Peer) -> None:
        await asyncio.sleep(0.1)
        assert (await peer.asked()).endswith(body)
        await peer.says(WHOLE)

    async with playing(client, play) as (transport, peers):
        reply = await transport.request("POST", "/audio/transcriptions", body, "multipart/form-data; boundary=x")
        assert await read(reply) == b"{}"
        assert b"content-type: multipart/form-data; boundary=x" in peers[0].requests[0].lower()[:600]


# --- what is sent


@pytest.mark.parametrize("said", ["a/b\r\nx-evil: 1", "a/b\nx-evil: 1", "a/b\rx", "a/b\x00"])
async def test_a_type_that_would_split_the_request_is_refused(client: str, said: str) -> None:
    async with playing(client, answers(WHOLE)) as (transport, peers):
        with pytest.raises(UpstreamError):
            await transport.request("POST", "/files", b"x", said)
        assert [peer.requests for peer in peers if peer.requests] == []


async def test_a_password_in_the_url_becomes_a_header(client: str) -> None:
    async with upstream(whole("200 OK", b"{}")) as server:
        url = server.url.replace("http://", "http://me:s%2Fecret@")
        transport = Transport(options("openai_compatible", url, transport=client), {})
        assert await answered(transport) == (200, b"{}")
        await transport.close()
    assert head_of(server)[1]["authorization"] == "Basic bWU6cy9lY3JldA=="


# --- the loop that the server runs on


async def every_form(client: str) -> None:
    for name in GOOD:
        await test_every_form_of_an_answer_is_read(client, name)


async def every_break(client: str) -> None:
    for name in BAD:
        await test_what_breaks_off_or_is_nonsense_is_never_a_clean_end(client, name)
    await test_a_reset_is_told_as_what_it_broke(client, [], C.CONNECTION_RESET)
    await test_a_reset_is_told_as_what_it_broke(client, [WHOLE[:-1]], C.STREAM_CUT)


async def every_wait(client: str) -> None:
    await test_every_wait_has_its_bound(client, [OK], C.FIRST_BYTE_TIMEOUT)
    await test_every_wait_has_its_bound(client, [OK + b"content-length: 9\r\n\r\n"], C.STREAM_IDLE)


async def every_leaving(client: str) -> None:
    for parts, read_first in (([], False), ([STREAM], False), ([STREAM], True)):
        await test_leaving_hangs_up_within_50_ms(client, parts, read_first)


@pytest.mark.parametrize(
    "test",
    [
        every_form,
        every_break,
        every_wait,
        every_leaving,
        test_what_came_before_a_break_is_the_readers,
        test_time_between_chunks_is_counted_anew_for_each_call_of_a_connection,
        test_a_host_that_takes_no_connection_is_a_timeout_of_its_own,
        test_a_reader_that_is_cancelled_may_read_on,
        test_what_nobody_reads_is_not_taken,
        test_words_that_nobody_asked_for_are_no_answer_to_the_next_request,
        test_a_kept_connection_that_was_closed_is_replaced,
        test_a_request_that_may_be_repeated_is_sent_once_more,
        test_a_post_is_never_sent_twice,
        test_closing_ends_every_connection_and_a_later_request_opens_new_ones,
        test_a_large_body_goes_up_while_the_upstream_reads_slowly,
    ],
)
def test_on_uvloop(client: str, test: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test(client))
