"""An upstream that fails in sixteen ways, run in a process of its own: `python faulty_upstream.py [CERTIFICATE KEY]`.

It shares no code with the program: bytes on sockets, by the standard library alone. It prints one line of JSON with its
ports and serves until its standard input ends. The name of the model says what happens: `cut`, `cut/anything`; what
counts (`500-burst`) counts for each full name apart. `GET /_seen` tells what it saw, by the clock that all processes of
the machine share (`time.monotonic`).

Shapes: OpenAI API reference ("Chat completions", "Responses"), Anthropic API reference ("Messages", "Streaming").
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any

TOKENS = ("A ", "pawl ", "lets ", "the ", "drum ", "turn ", "one ", "way.")
TEXT = "".join(TOKENS)
PROMPT_TOKENS = 7
CUT_AFTER = 3
"""Tokens that are sent before a stream stalls or is cut."""
BURST = 2
"""Failures in a row of `500-burst`, and of `503-recovers`."""
SLOW_S = 0.4
RETRY_AFTER_S = 1
REFUSALS: dict[str, tuple[int, str, int | None]] = {
    "400": (400, "invalid_value", None),
    "401": (401, "invalid_api_key", None),
    "429-seconds": (429, "rate_limit_exceeded", 1),
    "429-date": (429, "rate_limit_exceeded", 1),
    "429-long": (429, "rate_limit_exceeded", None),
    "500-burst": (500, "server_error", BURST),
    "503-recovers": (503, "overloaded", BURST),
    "flapping": (500, "server_error", None),
    "down": (503, "overloaded", None),
}
"""Scenario -> status, the provider's code, and how often, None: always (`flapping`: every other time)."""
Event = tuple[str, dict[str, Any]]


class ChatWriter:
    """OpenAI's chat completions."""

    done: bytes = b"data: [DONE]\n\n"
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(TOKENS)} | {
        "total_tokens": PROMPT_TOKENS + len(TOKENS)
    }

    def __init__(self, model: str, body: dict[str, Any]):
        self.head = {"id": "chatcmpl-1", "created": 1_800_000_000, "model": model}
        self.wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": TEXT, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def opening(self) -> Iterator[Event]:
        yield "", self._chunk({"role": "assistant", "content": ""}, None)

    def token(self, text: str) -> Event:
        return "", self._chunk({"content": text}, None)

    def ending(self) -> Iterator[Event]:
        yield "", self._chunk({}, "stop")
        if self.wants_usage:
            yield "", {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage}

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    @staticmethod
    def error(status: int, code: str) -> dict[str, Any]:
        return {"error": {"message": f"made to fail with {status}", "type": "upstream", "param": None, "code": code}}


class ResponsesWriter:
    """OpenAI's Responses."""

    done: bytes = b""
    usage = {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": len(TOKENS),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": PROMPT_TOKENS + len(TOKENS),
    }
    error = staticmethod(ChatWriter.error)

    def __init__(self, model: str, _body: dict[str, Any]):
        self.model = model
        self.number = itertools.count()

    def whole(self) -> dict[str, Any]:
        return self._response("completed", [self._item("completed", TEXT)], self.usage)

    def opening(self) -> Iterator[Event]:
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response("in_progress", [], None))
        yield self._event("response.output_item.added", output_index=0, item=self._item("in_progress", None))
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", item_id="msg_1", output_index=0, content_index=0, part=part)

    def token(self, text: str) -> Event:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return self._event("response.output_text.delta", **place, delta=text, logprobs=[])

    def ending(self) -> Iterator[Event]:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
        yield self._event("response.output_text.done", **place, text=TEXT, logprobs=[])
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=self._item("completed", TEXT))
        yield self._event("response.completed", response=self.whole())

    def _event(self, name: str, **fields: Any) -> Event:
        return name, {"type": name, "sequence_number": next(self.number), **fields}

    def _item(self, status: str, text: str | None) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
        return {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_800_000_000,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage,
        }


class MessagesWriter:
    """Anthropic's Messages."""

    done: bytes = b""
    usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": len(TOKENS)}

    def __init__(self, model: str, _body: dict[str, Any]):
        self.head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}

    def whole(self) -> dict[str, Any]:
        content = [{"type": "text", "text": TEXT}]
        return {**self.head, "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": self.usage}

    def opening(self) -> Iterator[Event]:
        begun: dict[str, Any] = {**self.head, "content": [], "stop_reason": None, "stop_sequence": None}
        begun["usage"] = {"input_tokens": PROMPT_TOKENS, "output_tokens": 1}
        yield self._event("message_start", message=begun)
        yield self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield self._event("ping")

    def token(self, text: str) -> Event:
        return self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def ending(self) -> Iterator[Event]:
        yield self._event("content_block_stop", index=0)
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        yield self._event("message_delta", delta=ended, usage={"output_tokens": len(TOKENS)})
        yield self._event("message_stop")

    @staticmethod
    def _event(name: str, **fields: Any) -> Event:
        return name, {"type": name, **fields}

    @staticmethod
    def error(status: int, _code: str) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 503: "overloaded_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": f"failed with {status}"}}


Writer = ChatWriter | ResponsesWriter | MessagesWriter
WRITERS: dict[str, Callable[[str, dict[str, Any]], Writer]] = {
    "/chat/completions": ChatWriter,
    "/responses": ResponsesWriter,
    "/messages": MessagesWriter,
}


@dataclass
class Seen:
    """One request. `closed_at`: when its client hung up before all was sent; `tokens`: how many were sent."""

    model: str
    path: str
    at: float
    status: int = 0
    tokens: int = 0
    whole: bool = False
    closed_at: float | None = None
    headers: dict[str, str] = field(default_factory=dict)


seen: list[Seen] = []
asked: Counter[str] = Counter()


class Connection(asyncio.Protocol):
    """One client. Requests come one after the other; each is answered by a task that ends with the connection."""

    def __init__(self) -> None:
        self.data = b""
        self.answering: asyncio.Task[None] | None = None
        self.current: Seen | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._next()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.current is not None and self.current.closed_at is None:
            self.current.closed_at = time.monotonic()
        if self.answering is not None:
            self.answering.cancel()

    def _next(self) -> None:
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found or self.current is not None:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        body, self.data = rest[:length], rest[length:]
        method, path, _ = first.split(" ", 2)
        if method == "GET":
            self._reply(json.dumps([asdict(one) for one in seen] if path == "/_seen" else {}).encode())
            return
        self.answering = asyncio.create_task(self._answer(path, headers, json.loads(body)))
        self.answering.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.answering = None
        if not task.cancelled():
            task.result()
        if self.current is not None and self.current.whole:
            self.current = None
            self._next()

    async def _answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        model = body["model"]
        self.current = Seen(model, path, time.monotonic(), headers=headers)
        seen.append(self.current)
        asked[model] += 1
        make = next(make for end, make in WRITERS.items() if path.endswith(end))
        await Answer(self, make(model, body), bool(body.get("stream")), self.current).play(model.partition("/")[0])

    def _reply(self, body: bytes) -> None:
        self.write(head(200, "application/json", {"content-length": str(len(body))}) + body)

    def write(self, data: bytes) -> None:
        self.transport.write(data)


def head(status: int, kind: str, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += ["", ""]
    return "\r\n".join(lines).encode()


@dataclass
class Answer:
    """One answer, as its scenario wants it."""

    to: Connection
    writer: Writer
    stream: bool
    seen: Seen

    async def play(self, scenario: str) -> None:
        if scenario in REFUSALS:
            self.refused(scenario)
            return
        match scenario:
            case "silent":
                await asyncio.Event().wait()
            case "slow":
                await asyncio.sleep(SLOW_S)
                self.answer()
            case "stalled":
                self.part()
                await asyncio.Event().wait()
            case "cut":
                self.part()
                self.hang_up()
            case "malformed":
                self.malformed()
            case "empty":
                self.send("text/event-stream" if self.stream else "application/json", b"")
            case "html":
                self.send("text/html; charset=utf-8", b"<!doctype html>\n<title>Welcome</title>\n")
            case _:
                self.answer()

    def refused(self, scenario: str) -> None:
        """A refusal, for as many times as the scenario wants, then the answer."""
        status, code, times = REFUSALS[scenario]
        number = asked[self.seen.model]
        if (number % 2 == 0) if scenario == "flapping" else (times is not None and number > times):
            self.answer()
            return
        headers = {}
        match scenario:
            case "429-seconds":
                headers = {"retry-after": str(RETRY_AFTER_S)}
            case "429-date":
                # An HTTP date has whole seconds: one more than is meant, so that it is never less.
                headers = {"retry-after": formatdate(time.time() + RETRY_AFTER_S + 1, usegmt=True)}
            case "429-long":
                headers = {"retry-after": "3600"}
        self.send("application/json", json.dumps(self.writer.error(status, code)).encode(), status, headers)

    def answer(self) -> None:
        """All of it, as it should be."""
        if not self.stream:
            self.seen.tokens = len(TOKENS)
            self.send("application/json", json.dumps(self.writer.whole()).encode())
            return
        self.begin()
        for token in TOKENS:
            self.event(*self.writer.token(token))
            self.seen.tokens += 1
        for event in self.writer.ending():
            self.event(*event)
        self.chunk(self.writer.done)
        self.end()

    def part(self) -> None:
        """The beginning: some tokens of a stream, or half of a body."""
        self.seen.tokens = CUT_AFTER
        if not self.stream:
            body = json.dumps(self.writer.whole()).encode()
            self.seen.status = 200
            self.to.write(head(200, "application/json", {"content-length": str(len(body))}) + body[: len(body) // 2])
            return
        self.begin()
        for token in TOKENS[:CUT_AFTER]:
            self.event(*self.writer.token(token))

    def malformed(self) -> None:
        """JSON that breaks off, in a body or in the first event."""
        body = json.dumps(self.writer.whole()).encode()[:-20]
        if not self.stream:
            self.send("application/json", body)
            return
        self.start()
        self.chunk(b"data: " + body + b"\n\n")
        self.end()

    # --- bytes

    def send(self, kind: str, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.seen.status, self.seen.whole = status, True
        self.to.write(head(status, kind, {"content-length": str(len(body)), **(headers or {})}) + body)

    def start(self) -> None:
        self.seen.status = 200
        self.to.write(head(200, "text/event-stream; charset=utf-8", {"transfer-encoding": "chunked"}))

    def begin(self) -> None:
        self.start()
        for event in self.writer.opening():
            self.event(*event)

    def event(self, name: str, data: dict[str, Any]) -> None:
        named = f"event: {name}\n" if name else ""
        self.chunk(f"{named}data: {json.dumps(data)}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        if data:
            self.to.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.seen.whole = True
        self.to.write(b"0\r\n\r\n")

    def hang_up(self) -> None:
        self.to.current = None
        self.to.transport.close()


class Garbage(asyncio.Protocol):
    """No TLS at all behind a port that should speak it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"220 mail.invalid ESMTP\r\n" * 10)


async def serve(certificate: str = "", key: str = "") -> None:
    loop = asyncio.get_running_loop()
    ports: dict[str, int] = {}
    Kind = tuple[Callable[[], asyncio.Protocol], ssl.SSLContext | None]
    kinds: dict[str, Kind] = {"http": (Connection, None), "garbage": (Garbage, None)}
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        kinds["self_signed"] = Connection, context
    servers = []
    for name, (protocol, speaks) in kinds.items():
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=speaks, backlog=1024)
        ports[name] = server.sockets[0].getsockname()[1]
        servers.append(server)
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
