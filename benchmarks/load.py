"""A load of HTTP/1.1 requests over kept connections, one loop of raw sockets in this process; checks each answer.

Light enough that a client library's own cost does not hide a gateway's latency: 10 to 20 us a request of its core.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

TIMEOUT_S = 60.0
READ_BYTES = 262_144


class Refused(Exception):
    """An answer that no caller should get; the message holds its beginning."""


@dataclass
class Sample:
    """What a load saw. `latency_s` and `first_s` (to the first byte of the body) have one entry for each request."""

    seconds: float = 0.0
    latency_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latency_s) / self.seconds

    def latency_ms(self, quantile: float) -> float:
        return float(np.quantile(self.latency_s, quantile) * 1000)

    def first_ms(self, quantile: float) -> float:
        return float(np.quantile(self.first_s, quantile) * 1000)


def request(port: int, path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The bytes of one POST."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        "accept: */*",
        "user-agent: load",
        *(f"{name}: {value}" for name, value in headers),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Reading:
    """One answer as it arrives."""

    def __init__(self, *, streamed: bool):
        self._streamed = streamed
        self._data = b""
        self._ends = -1
        self._body = -1

    @property
    def begun(self) -> bool:
        """Whether a byte of the body is there."""
        return 0 <= self._body < len(self._data)

    def feed(self, data: bytes) -> bool:
        """Take what was read; True once the answer is whole. Refused where it is not what was asked for."""
        self._data += data
        if self._body < 0:
            border = self._data.find(b"\r\n\r\n")
            if border < 0:
                return False
            self._body = border + 4
            self._ends = self._end(self._data[:border].lower())
        known = self._ends >= 0
        whole = len(self._data) >= self._ends if known else self._data.endswith(b"\r\n0\r\n\r\n")
        if whole:
            self._check()
        return whole

    def _end(self, head: bytes) -> int:
        """Where the answer ends, -1 where only its last chunk tells."""
        name = b"content-length:"
        place = head.find(name)
        if place < 0:
            return -1
        return self._body + int(head[place + len(name) :].split(b"\r\n", 1)[0])

    def _check(self) -> None:
        wanted = b"[DONE]" if self._streamed else b'"usage"'
        if not self._data.startswith(b"HTTP/1.1 200") or wanted not in self._data[self._body :]:
            raise Refused(self._data[:2_000].decode(errors="replace"))


def drive(port: int, sending: bytes, count: int, connections: int, *, streamed: bool = False) -> Sample:
    """`count` requests over so many connections, each of which sends the next one when it has its answer.

    Raises Refused; OSError where a connection breaks, TimeoutError where nothing comes for a minute.
    """
    sample = Sample()
    poller = select.epoll()
    open_, reading, began, left = {}, {}, {}, count
    try:
        for _ in range(min(connections, count)):
            made = connect(port)
            open_[made.fileno()] = made
            poller.register(made, select.EPOLLIN)
        started = time.perf_counter()
        for number, made in open_.items():
            reading[number], began[number], left = Reading(streamed=streamed), time.perf_counter(), left - 1
            made.sendall(sending)
        while len(sample.latency_s) < count:
            ready = poller.poll(TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"nothing came for {TIMEOUT_S:.0f} s from port {port}")
            for number, _ in ready:
                data, now = open_[number].recv(READ_BYTES), time.perf_counter()
                if not data:
                    raise ConnectionError(f"port {port} closed a connection in the middle of an answer")
                one = reading[number]
                before = one.begun
                whole = one.feed(data)
                if one.begun and not before:
                    sample.first_s.append(now - began[number])
                if not whole:
                    continue
                sample.latency_s.append(now - began[number])
                if left:
                    left -= 1
                    reading[number], began[number] = Reading(streamed=streamed), time.perf_counter()
                    open_[number].sendall(sending)
        sample.seconds = time.perf_counter() - started
    finally:
        for made in open_.values():
            made.close()
        poller.close()
    return sample


def leave(port: int, sending: bytes, after_bytes: int) -> int:
    """Ask for a stream, leave once so many bytes of it are there; the monotonic nanoseconds of leaving."""
    with connect(port) as made:
        made.sendall(sending)
        seen = 0
        while seen < after_bytes:
            data = made.recv(READ_BYTES)
            if not data:
                raise ConnectionError(f"port {port} ended the stream before anybody left")
            seen += len(data)
        return time.monotonic_ns()
