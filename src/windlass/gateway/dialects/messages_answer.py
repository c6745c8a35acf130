"""Answers a Messages client, whole or streamed. Source: Anthropic API reference, "Create a Message" and "Streaming"."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures, fields
from windlass.gateway.dialects.events import named_event
from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Completion,
    Failure,
    Finish,
    OutputPart,
    RefusalDelta,
    RefusalPart,
    TextDelta,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.seals import REDACTED, opened, outside
from windlass.gateway.dialects.writing import INTERLEAVED, UNNAMED, PartWriter
from windlass.gateway.money.usage import Usage

_STOP: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
}


_ENCODER = msgspec.json.Encoder()
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'


def usage(used: Usage) -> dict[str, Any]:
    """The usage as Anthropic counts it: what the cache held and took up stands beside `input_tokens`."""
    read, written = used.cache_read_tokens, used.cache_write_tokens
    return {
        "input_tokens": max(0, (used.prompt_tokens or 0) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": used.completion_tokens or 0,
        "output_tokens_details": {"thinking_tokens": used.reasoning_tokens},
    }


def error(failure: Failure) -> bytes:
    """The error envelope."""
    return msgspec.json.encode(failures.as_anthropic(failure))


def whole(completion: Completion, identity: Identity) -> bytes:
    """A whole reply; the requests of this dialect ask for one choice."""
    choice = completion.choices[0]
    return msgspec.json.encode(
        _message(identity, completion.id)
        | {
            "content": [block for part in choice.parts for block in _blocks(part)],
            "stop_reason": "stop_sequence" if choice.stop_sequence else _STOP[choice.finish],
            "stop_sequence": choice.stop_sequence,
            "usage": usage(completion.usage),
        }
    )


def _message(identity: Identity, reply_id: str) -> dict[str, Any]:
    return {
        "id": identity.of("msg_", reply_id),
        "type": "message",
        "role": "assistant",
        "model": identity.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(Usage()),
    }


def _blocks(part: OutputPart) -> list[dict[str, Any]]:
    match part:
        case TextPart(text) | RefusalPart(text):
            return [{"type": "text", "text": text}] if text else []
        case ThinkingPart(text, sealed):
            return [_thought(text, sealed)]
        case ToolCall(call_id, name, arguments, sealed):
            # A model may write what is no JSON, above all where it ran out of tokens; Anthropic's guide to
            # fine-grained tool streaming hands it on in this wrapping.
            given = fields.json_object(arguments) or {"INVALID_JSON": arguments}
            call = {"type": "tool_use", "id": call_id, "name": name, "input": given}
            return [_thought("", sealed), call] if sealed else [call]


def _thought(text: str, sealed: str) -> dict[str, Any]:
    if data := opened(REDACTED, sealed):
        return {"type": "redacted_thinking", "data": data}
    return {"type": "thinking", "thinking": text, "signature": outside("messages", sealed)}


class MessagesAnswer(PartWriter):
    """Writes one stream: blocks, and the stop reason at the end."""

    def __init__(self, identity: Identity):
        super().__init__()
        self._identity = identity
        self._began = False
        self._block = -1
        self._kind = ""

    def _begin(self, began: Began) -> bytes:
        if self._began:
            return b""
        self._began = True
        return _event("message_start", {"message": _message(self._identity, began.id)})

    def _text(self, delta: TextDelta) -> bytes:
        return self._delta("text", {"type": "text_delta", "text": delta.text}) if delta.text else b""

    def _refusal(self, delta: RefusalDelta) -> bytes:
        return self._delta("text", {"type": "text_delta", "text": delta.text})

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        """Begin a block, after the end of the one before."""
        ended = self._close()
        self._kind = kind
        self._block += 1
        started = _event("content_block_start", {"index": self._block, "content_block": block})
        return self._begin(UNNAMED) + ended + started

    def _close(self) -> bytes:
        kind, self._kind = self._kind, ""
        return _event("content_block_stop", {"index": self._block}) if kind else b""

    def _delta(self, kind: str, delta: dict[str, Any]) -> bytes:
        opening = b""
        if self._kind != kind:
            empty = {"type": "text", "text": ""} if kind == "text" else _thought("", "")
            opening = self._open(kind, empty)
        return opening + _DELTA % (self._block, _ENCODER.encode(delta))

    def _thinking(self, text: str, sealed: str) -> bytes:
        if opened(REDACTED, sealed):
            return self._open("redacted", _thought("", sealed)) + self._close()
        written = self._delta("thinking", {"type": "thinking_delta", "thinking": text}) if text else b""
        if sealed:
            signature = {"type": "signature_delta", "signature": outside("messages", sealed)}
            written += self._delta("thinking", signature) + self._close()
        return written

    def _call(self, call: CallBegan) -> bytes:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        return self._open(f"call {call.index}", block)

    def _arguments(self, delta: CallDelta) -> bytes:
        if self._kind != f"call {delta.index}":
            return self.write(INTERLEAVED)
        return self._delta(self._kind, {"type": "input_json_delta", "partial_json": delta.arguments})

    def _finished(self) -> bytes:
        end = self._end
        delta = {
            "stop_reason": "stop_sequence" if end.stop_sequence else _STOP[end.finish],
            "stop_sequence": end.stop_sequence,
        }
        ending = _event("message_delta", {"delta": delta, "usage": usage(self._usage)})
        return self._begin(UNNAMED) + self._close() + ending + _event("message_stop", {})

    def _fail(self, failure: Failure) -> bytes:
        return named_event("error", error(failure))


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return named_event(name, _ENCODER.encode({"type": name, **fields}))
