"""The fake upstream: upstream.c, compiled when there is a compiler; else the same on asyncio, five times as dear.

`python -m benchmarks.upstream 600 32 1000` serves by hand until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.machine import Running

SOURCE = Path(__file__).with_suffix(".c")
AT_ONCE = "[at once]"  # a stream whose prompt holds it is sent without a pause
USAGE = {"prompt_tokens": 75, "completion_tokens": 40, "total_tokens": 115}
PART = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": "m"}


class Upstream:
    """A running upstream. `gone_ns` holds when somebody left in the middle of a stream, monotonic nanoseconds."""

    def __init__(self, folder: Path, core: int, *, reply_bytes: int, events: int, gap_us: int):
        command = compiled(folder)
        self.native = command is not None
        words = [command] if command else [sys.executable, "-m", "benchmarks.upstream"]
        self._running = Running([*words, str(reply_bytes), str(events), str(gap_us)], [core], folder / "upstream.log")
        self.pid = self._running.pid
        self.port = int(self._running.line())
        self.gone_ns: list[int] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(ValueError, OSError):  # the pipe is closed under the reader at the end
            for line in self._running.output:
                self.gone_ns.append(int(line.removeprefix("gone ")))

    def left(self, number: int, timeout_s: float) -> int | None:
        """When the `number`th client to leave was seen leaving; None where it is not within the time."""
        deadline = time.monotonic() + timeout_s
        while len(self.gone_ns) <= number:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        return self.gone_ns[number]

    def stop(self) -> None:
        self._running.stop()


def compiled(folder: Path) -> str | None:
    """The path of the program, None where it cannot be compiled here."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = folder / "upstream"
    done = subprocess.run([compiler, "-O2", "-o", program, SOURCE], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"gateway: {SOURCE.name} does not compile: {done.stderr[:500]}", file=sys.stderr)
        return None
    return str(program)


class Slow(asyncio.Protocol):
    """One connection of the upstream without a compiler."""

    def __init__(self, reply_bytes: int, events: int, gap_s: float):
        self._text, self._events, self._gap_s = ("abcde " * (reply_bytes // 6 + 1))[:reply_bytes], events, gap_s
        self._data = b""
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (border := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:border].lower()
            said = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
            whole = border + 4 + int(said or 0)
            if len(self._data) < whole:
                return
            body, self._data = self._data[border + 4 : whole], self._data[whole:]
            self._answer(json.loads(body or b"{}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._streaming is not None and not self._streaming.done():
            self._streaming.cancel()
            print(f"gone {time.monotonic_ns()}", flush=True)

    def _answer(self, asked: dict[str, object]) -> None:
        if asked.get("stream"):
            gap_s = 0.0 if AT_ONCE in str(asked.get("messages")) else self._gap_s
            self._streaming = asyncio.ensure_future(self._stream(gap_s, counts=bool(asked.get("stream_options"))))
            return
        message = {"role": "assistant", "content": self._text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        body = json.dumps({**PART, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    async def _stream(self, gap_s: float, *, counts: bool) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._transport.write(head)
        delta = [{"index": 0, "delta": {"content": "a pawl holds "}, "finish_reason": None}]
        for _ in range(self._events):
            self._event(json.dumps({**PART, "choices": delta}))
            await asyncio.sleep(gap_s)
        self._event(json.dumps({**PART, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        if counts:
            self._event(json.dumps({**PART, "choices": [], "usage": USAGE}))
        self._event("[DONE]")
        self._transport.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))


async def _serve(reply_bytes: int, events: int, gap_us: int) -> None:
    running = asyncio.get_running_loop()
    server = await running.create_server(lambda: Slow(reply_bytes, events, gap_us / 1e6), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await running.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(*map(int, sys.argv[1:])))
