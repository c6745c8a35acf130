"""Answers a chat-completions client, whole or streamed. Source: OpenAI API reference, "The chat completion object" and
"The chat completion chunk object".

Reasoning stands in `reasoning_content`, its seals in `thinking_blocks`; a client that sends both back keeps them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures
from windlass.gateway.dialects.events import data_event
from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Completion,
    CompletionChoice,
    Counted,
    Ended,
    Failed,
    Failure,
    Finished,
    OutputPart,
    RefusalDelta,
    RefusalPart,
    StreamPiece,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
)
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.seals import REDACTED, opened, outside
from windlass.gateway.money.usage import Usage

_ENCODER = msgspec.json.Encoder()


def usage(used: Usage) -> dict[str, Any] | None:
    """The usage as chat counts it; None where the provider said nothing."""
    if used.prompt_tokens is None and used.completion_tokens is None:
        return None
    prompt, completion = used.prompt_tokens or 0, used.completion_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": used.cache_read_tokens,
            "cache_write_tokens": used.cache_write_tokens,
            "audio_tokens": used.audio_prompt_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning_tokens,
            "audio_tokens": used.audio_completion_tokens,
        },
    }


def error(failure: Failure) -> bytes:
    """The error envelope."""
    return msgspec.json.encode(failures.as_openai(failure))


def whole(completion: Completion, identity: Identity) -> bytes:
    """A whole reply."""
    return msgspec.json.encode(
        {
            "id": identity.of("chatcmpl-", completion.id),
            "object": "chat.completion",
            "created": completion.created_s or identity.at_s,
            "model": identity.model,
            "choices": [_choice(choice) for choice in completion.choices],
            "usage": usage(completion.usage),
        }
    )


def _choice(choice: CompletionChoice) -> dict[str, Any]:
    refused = any(isinstance(part, RefusalPart) for part in choice.parts)
    logprobs = [one for part in choice.parts if isinstance(part, TextPart) for one in part.logprobs]
    return {
        "index": choice.index,
        "message": {"role": "assistant", **_said(choice.parts), **_thoughts(choice.parts), **_calls(choice.parts)},
        "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
        "finish_reason": _finish(choice.finish, refused=refused),
    }


def _said(parts: tuple[OutputPart, ...]) -> dict[str, Any]:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    refusals = [part.text for part in parts if isinstance(part, RefusalPart)]
    return {"content": "".join(texts) if texts else None, "refusal": "".join(refusals) or None}


def _thoughts(parts: tuple[OutputPart, ...]) -> dict[str, Any]:
    thoughts = [part for part in parts if isinstance(part, ThinkingPart)]
    text = "".join(part.text for part in thoughts)
    told: dict[str, Any] = {"reasoning_content": text} if text else {}
    if any(part.seal for part in thoughts):
        told["thinking_blocks"] = [_thought(part.text, part.seal) for part in thoughts]
    return told


def _calls(parts: tuple[OutputPart, ...]) -> dict[str, Any]:
    calls = [
        _call(part.id, part.name, part.seal) | {"function": {"name": part.name, "arguments": part.arguments}}
        for part in parts
        if isinstance(part, ToolCall)
    ]
    return {"tool_calls": calls} if calls else {}


def _finish(finish: str, *, refused: bool) -> str:
    """A model that refuses in words stops; one that is stopped is filtered."""
    return finish if finish != "refusal" else "stop" if refused else "content_filter"


def _thought(text: str, sealed: str) -> dict[str, Any]:
    if data := opened(REDACTED, sealed):
        return {"type": "redacted_thinking", "data": data}
    return {"type": "thinking", "thinking": text, "signature": outside("messages", sealed)}


def _call(call_id: str, name: str, sealed: str) -> dict[str, Any]:
    call: dict[str, Any] = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    if sealed:
        call["extra_content"] = {"google": {"thought_signature": outside("gemini", sealed)}}
    return call


class ChatAnswer:
    """Writes one stream. Finish reasons wait for the end: a stream that is cut must not have shown one."""

    def __init__(self, identity: Identity, *, include_usage: bool):
        self._identity = identity
        self._include_usage = include_usage
        self._head = b""
        self._spoke: set[int] = set()
        self._refused: set[int] = set()
        self._thoughts: dict[int, str] = {}
        self._sealed: dict[int, int] = {}
        self._ends: list[Ended] = []
        self._usage = Usage()

    def write(self, piece: StreamPiece) -> bytes:
        """The bytes that this piece makes."""
        match piece:
            case TextDelta(choice, text, logprobs):
                return self._delta(choice, {"content": text}, logprobs)
            case ThinkingDelta(choice, text, sealed):
                return self._thinking(choice, text, sealed)
            case CallBegan(choice, index, call_id, name, sealed):
                return self._delta(choice, {"tool_calls": [{"index": index, **_call(call_id, name, sealed)}]})
            case CallDelta(choice, index, arguments):
                return self._delta(choice, {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
            case RefusalDelta(choice, text):
                self._refused.add(choice)
                return self._delta(choice, {"refusal": text})
            case Began(reply_id, _, created_s):
                self._begin(reply_id, created_s)
            case Ended():
                self._ends.append(piece)
            case Counted(used):
                self._usage = used
            case Finished():
                return self._finished()
            case Failed(failure):
                return data_event(error(failure))
        return b""

    def _thinking(self, choice: int, text: str, sealed: str) -> bytes:
        delta: dict[str, Any] = {"reasoning_content": text} if text else {}
        thought = self._thoughts.get(choice, "") + text
        if sealed:
            number = self._sealed.get(choice, 0)
            self._sealed[choice] = number + 1
            # OpenAI's own client puts the entries of a list together by their index.
            delta["thinking_blocks"] = [{"index": number, **_thought(thought, sealed)}]
            thought = ""
        self._thoughts[choice] = thought
        return self._delta(choice, delta)

    def _delta(self, choice: int, delta: dict[str, Any], logprobs: tuple[msgspec.Raw, ...] = ()) -> bytes:
        if choice not in self._spoke:
            self._spoke.add(choice)
            delta = {"role": "assistant"} | delta
        told = {"content": logprobs, "refusal": None} if logprobs else None
        return self._chunk([{"index": choice, "delta": delta, "logprobs": told, "finish_reason": None}])

    def _finished(self) -> bytes:
        chunks = []
        for end in self._ends:
            reason = _finish(end.finish, refused=end.choice in self._refused)
            role = {} if end.choice in self._spoke else {"role": "assistant", "content": ""}
            choice = {"index": end.choice, "delta": role, "logprobs": None, "finish_reason": reason}
            chunks.append(self._chunk([choice]))
        if self._include_usage and (used := usage(self._usage)):
            chunks.append(self._chunk([], used))
        return b"".join((*chunks, data_event(b"[DONE]")))

    def _begin(self, reply_id: str, created_s: int) -> None:
        """What every chunk begins with is written once."""
        head = {
            "id": self._identity.of("chatcmpl-", reply_id),
            "object": "chat.completion.chunk",
            "created": created_s or self._identity.at_s,
            "model": self._identity.model,
        }
        self._head = msgspec.json.encode(head)[:-1] + b',"choices":'

    def _chunk(self, choices: list[dict[str, Any]], used: dict[str, Any] | None = None) -> bytes:
        if not self._head:
            self._begin("", 0)
        counted = b',"usage":' + _ENCODER.encode(used) if self._include_usage else b""
        return b"data: %b%b%b}\n\n" % (self._head, _ENCODER.encode(choices), counted)
