"""An upstream that does as it is asked, run in a process of its own: `python scripted_upstream.py`.

It shares no code with the program. It prints its port and serves until its standard input ends. To whoever forces a
tool, or speaks of one, it answers with a call of that tool whose arguments fit the schema; to a schema with JSON that
fits it; to everything else, a tool's answer among it, with the same words. `GET /_seen` tells the bodies that it got.

Shapes: OpenAI API reference ("Chat completions", "Responses"), Anthropic API reference ("Messages", "Streaming").
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT = "A pawl lets the drum turn one way."
PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS = 21, 5, 9
CREATED = 1_800_000_000
Event = tuple[str, Any]
Fields = dict[str, Any]


@dataclass
class Asked:
    """What a request asks for. forced: `any`, or the tool that must be called. schema: of the answer; {}: any JSON.

    form: the one that Responses repeats in the answer.
    """

    model: str
    said: str = ""
    tools: dict[str, Fields] = field(default_factory=dict)
    forced: str = ""
    schema: Fields | None = None
    answered: bool = False
    usage: bool = True
    form: Fields = field(default_factory=dict)

    def call(self) -> tuple[str, str] | None:
        """The tool to call, and its arguments as JSON; None where it shall speak."""
        named = [name for name in self.tools if any(word in self.said.lower() for word in name.lower().split("_"))]
        name = self.forced if self.forced in self.tools else next(iter((*named, *self.tools)), "")
        if self.answered or not name or not (self.forced or named):
            return None
        return name, json.dumps(fit(self.tools[name], self.said, self.tools[name]), ensure_ascii=False)

    def text(self) -> str:
        """What it says."""
        if self.schema is None or self.answered:
            return TEXT
        keys = re.findall(r"'(\w+)'", self.said)
        return json.dumps(fit(self.schema, self.said, self.schema) if self.schema else dict.fromkeys(keys, TEXT))


def fit(schema: Fields, said: str, root: Fields) -> Any:
    """A value of a JSON Schema: the number or the quotation in what was said, where one of its kind is wanted."""
    if "$ref" in schema:
        found = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return fit(found, said, root)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return fit(schema[several][0], said, root)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type", "object")
    if kind in ("integer", "number"):
        return int((re.findall(r"\d+", said) or ["3"])[0])
    if kind == "object":
        return {name: fit(one, said, root) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [fit(schema.get("items", {"type": "string"}), said, root)]
    simple = {"boolean": True, "null": None}
    return simple[kind] if kind in simple else (re.findall(r"'([^']+)'", said) or ["a drum"])[0]


def words(text: str) -> list[str]:
    """A text in the pieces of a stream."""
    return re.findall(r"\s*\S+", text)


def text_of(content: Any) -> str:
    """The text of a message."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if isinstance(part, dict) and "text" in part)


class Chat:
    """OpenAI's chat completions."""

    done = b"data: [DONE]\n\n"

    @staticmethod
    def read(body: Fields) -> Asked:
        last = body["messages"][-1]
        choice = body.get("tool_choice", "auto")
        form = body.get("response_format") or {}
        return Asked(
            model=body["model"],
            said=text_of(last.get("content")),
            tools={tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in body.get("tools", ())},
            forced=choice["function"]["name"] if isinstance(choice, dict) else "any" if choice == "required" else "",
            schema={"json_schema": form.get("json_schema", {}).get("schema"), "json_object": {}}.get(form.get("type")),
            answered=last["role"] == "tool",
            usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )

    @staticmethod
    def usage() -> Fields:
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def __init__(self, asked: Asked, number: int):
        self.asked = asked
        self.call = asked.call()
        self.id = f"call_{number}"
        self.head = {"id": f"chatcmpl-{number}", "created": CREATED, "model": asked.model}
        self.reason = "tool_calls" if self.call else "stop"

    def whole(self) -> Fields:
        message: Fields = {"role": "assistant", "content": None if self.call else self.asked.text(), "refusal": None}
        if self.call:
            function = {"name": self.call[0], "arguments": self.call[1]}
            message["tool_calls"] = [{"id": self.id, "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.reason}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self.usage()}

    def events(self) -> Iterator[Event]:
        yield "", self._chunk({"role": "assistant", "content": None if self.call else ""})
        if self.call:
            begun = {"index": 0, "id": self.id, "type": "function", "function": {"name": self.call[0], "arguments": ""}}
            yield "", self._chunk({"tool_calls": [begun]})
            for piece in words(self.call[1]):
                yield "", self._chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        else:
            for piece in words(self.asked.text()):
                yield "", self._chunk({"content": piece})
        yield "", self._chunk({}, self.reason)
        if self.asked.usage:
            yield "", {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage()}

    def _chunk(self, delta: Fields, reason: str | None = None) -> Fields:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}


class Responses:
    """OpenAI's Responses."""

    done = b""

    @staticmethod
    def read(body: Fields) -> Asked:
        given = body["input"]
        last = {"role": "user", "content": given} if isinstance(given, str) else given[-1]
        choice = body.get("tool_choice", "auto")
        form = (body.get("text") or {}).get("format") or {}
        return Asked(
            model=body["model"],
            said=text_of(last.get("content")),
            tools={tool["name"]: tool.get("parameters", {}) for tool in body.get("tools", ())},
            forced=choice.get("name", "any") if isinstance(choice, dict) else "any" if choice == "required" else "",
            schema={"json_schema": form.get("schema"), "json_object": {}}.get(form.get("type")),
            answered=last.get("type") == "function_call_output",
            form=form or {"type": "text"},
        )

    @staticmethod
    def usage() -> Fields:
        return {
            "input_tokens": PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
            "output_tokens": COMPLETION_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        }

    def __init__(self, asked: Asked, number: int):
        self.asked = asked
        self.call = asked.call()
        self.number = number
        self.sequence = itertools.count()

    def whole(self) -> Fields:
        return self._response("completed", [self._item("completed")], self.usage())

    def events(self) -> Iterator[Event]:
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response("in_progress", [], None))
        yield self._event("response.output_item.added", output_index=0, item=self._item("in_progress"))
        yield from self._arguments() if self.call else self._text()
        yield self._event("response.output_item.done", output_index=0, item=self._item("completed"))
        yield self._event("response.completed", response=self.whole())

    def _arguments(self) -> Iterator[Event]:
        assert self.call is not None
        place = {"item_id": f"fc_{self.number}", "output_index": 0}
        for piece in words(self.call[1]):
            yield self._event("response.function_call_arguments.delta", **place, delta=piece)
        done = {"name": self.call[0], "arguments": self.call[1]}
        yield self._event("response.function_call_arguments.done", **place, **done)

    def _text(self) -> Iterator[Event]:
        place = {"item_id": f"msg_{self.number}", "output_index": 0, "content_index": 0}
        text = self.asked.text()
        yield self._event("response.content_part.added", **place, part=self._part(""))
        for piece in words(text):
            yield self._event("response.output_text.delta", **place, delta=piece, logprobs=[])
        yield self._event("response.output_text.done", **place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=self._part(text))

    def _event(self, name: str, /, **fields: Any) -> Event:
        return name, {"type": name, "sequence_number": next(self.sequence), **fields}

    @staticmethod
    def _part(text: str) -> Fields:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str) -> Fields:
        whole = status == "completed"
        if self.call:
            called = {
                "call_id": f"call_{self.number}",
                "name": self.call[0],
                "arguments": self.call[1] if whole else "",
            }
            return {"id": f"fc_{self.number}", "type": "function_call", "status": status, **called}
        content = [self._part(self.asked.text())] if whole else []
        return {
            "id": f"msg_{self.number}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(self, status: str, output: list[Fields], usage: Fields | None) -> Fields:
        absent = ("error", "incomplete_details", "instructions", "max_output_tokens", "previous_response_id", "user")
        return {
            **dict.fromkeys(absent),
            "id": f"resp_{self.number}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "model": self.asked.model,
            "output": output,
            "parallel_tool_calls": True,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": 1.0,
            "text": {"format": self.asked.form},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "metadata": {},
        }


class Messages:
    """Anthropic's Messages."""

    done = b""

    @staticmethod
    def read(body: Fields) -> Asked:
        last = body["messages"][-1]["content"]
        choice = body.get("tool_choice") or {}
        form = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        results = isinstance(last, list) and any(block.get("type") == "tool_result" for block in last)
        return Asked(
            model=body["model"],
            said=text_of(last),
            tools={tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools", ())},
            forced={"any": "any", "tool": choice.get("name", "")}.get(choice.get("type", ""), ""),
            schema=form.get("schema"),
            answered=results,
        )

    @staticmethod
    def usage() -> Fields:
        """What the cache held is counted apart here."""
        read = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": CACHED_TOKENS}
        return {"input_tokens": PROMPT_TOKENS - CACHED_TOKENS, **read, "output_tokens": COMPLETION_TOKENS}

    def __init__(self, asked: Asked, number: int):
        self.asked = asked
        self.call = asked.call()
        self.head = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": asked.model}
        self.tool = {"type": "tool_use", "id": f"toolu_{number}", "name": self.call[0] if self.call else ""}
        self.reason = "tool_use" if self.call else "end_turn"

    def whole(self) -> Fields:
        called = [{**self.tool, "input": json.loads(self.call[1])}] if self.call else []
        content = called or [{"type": "text", "text": self.asked.text()}]
        return {
            **self.head,
            "content": content,
            "stop_reason": self.reason,
            "stop_sequence": None,
            "usage": self.usage(),
        }

    def events(self) -> Iterator[Event]:
        begun = {**self.head, "content": [], "stop_reason": None, "stop_sequence": None}
        yield self._event("message_start", message={**begun, "usage": {**self.usage(), "output_tokens": 1}})
        yield "ping", {"type": "ping"}
        block = {**self.tool, "input": {}} if self.call else {"type": "text", "text": ""}
        yield self._event("content_block_start", index=0, content_block=block)
        for piece in words(self.call[1] if self.call else self.asked.text()):
            spoken = {"type": "text_delta", "text": piece}
            delta = {"type": "input_json_delta", "partial_json": piece} if self.call else spoken
            yield self._event("content_block_delta", index=0, delta=delta)
        yield self._event("content_block_stop", index=0)
        ended = {"stop_reason": self.reason, "stop_sequence": None}
        yield self._event("message_delta", delta=ended, usage={"output_tokens": COMPLETION_TOKENS})
        yield self._event("message_stop")

    @staticmethod
    def _event(name: str, **fields: Any) -> Event:
        return name, {"type": name, **fields}


DIALECTS: dict[str, type[Chat] | type[Responses] | type[Messages]] = {
    "/v1/chat/completions": Chat,
    "/v1/responses": Responses,
    "/v1/messages": Messages,
}


class Upstream(BaseHTTPRequestHandler):
    """One connection; what is asked under a model `whole` is never streamed."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    numbers = itertools.count(1)
    seen: list[Fields] = []

    def do_GET(self) -> None:
        self._json(200, self.seen)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if self.path == "/v1/messages/count_tokens":
            self._json(200, {"input_tokens": PROMPT_TOKENS})
            return
        dialect = DIALECTS.get(self.path)
        if dialect is None:
            self._json(404, {"error": {"message": self.path, "type": "not_found", "param": None, "code": None}})
            return
        self.seen.append({"path": self.path, "body": body})
        writer = dialect(dialect.read(body), next(self.numbers))
        if not body.get("stream") or body["model"] == "whole":
            self._json(200, writer.whole())
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for name, data in writer.events():
            self._chunk((f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n")
        if writer.done:
            self._chunk(writer.done)
        self._chunk(b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running() -> Iterator[str]:
    """The base URL of an upstream in a process of its own, which ends with the block."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.communicate(timeout=10)


if __name__ == "__main__":
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    sys.stdout.write(f"{listening.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
