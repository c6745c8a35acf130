"""Reads a Messages reply, whole or streamed. Source: Anthropic API reference, "Create a Message" and "Streaming"."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures, fields
from windlass.gateway.dialects.counts import count, counts, share, total
from windlass.gateway.dialects.events import ServerSent
from windlass.gateway.dialects.fields import NULL
from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Counted,
    Ended,
    Failed,
    Finish,
    Finished,
    StreamPiece,
    TextDelta,
    ThinkingDelta,
)
from windlass.gateway.dialects.seals import REDACTED, seal
from windlass.gateway.money.usage import Usage

# pause_turn: the provider stopped a long turn of its own tools; what is there is not all.
_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


class MessagesOutputShares(msgspec.Struct):
    thinking_tokens: Any = None


class MessagesUsage(msgspec.Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    output_tokens_details: MessagesOutputShares | None = None


class MessagesContent(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = NULL
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class MessagesBody(msgspec.Struct):
    id: str = ""
    type: str = ""
    model: str = ""
    content: list[MessagesContent] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Any = None
    error: Any = None


class MessagesEvent(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: MessagesBody | None = None
    content_block: MessagesContent | None = None
    delta: MessagesContent | None = None
    usage: Any = None
    error: Any = None


_DECODER = msgspec.json.Decoder(MessagesEvent)


def usage(given: MessagesUsage) -> Usage:
    """Anthropic's count in the one form: its `input_tokens` leaves out what the cache held and took up."""
    read, written = count(given.cache_read_input_tokens), count(given.cache_creation_input_tokens)
    own = count(given.input_tokens)
    details = given.output_tokens_details
    return Usage(
        prompt_tokens=None if own is None else total(own, read, written),
        completion_tokens=count(given.output_tokens),
        cache_read_tokens=read or 0,
        cache_write_tokens=written or 0,
        reasoning_tokens=share(details and details.thinking_tokens),
    )


class MessagesReply:
    """Reads one reply. A stream is whole with `message_stop` and not before."""

    def __init__(self) -> None:
        self._calls = 0
        self._call: MessagesContent | None = None
        self._written = False
        self._ended = False
        self._usage = MessagesUsage()

    def whole(self, body: bytes) -> list[StreamPiece]:
        """The pieces of a whole body; none of them Finished where it is no message."""
        reply = msgspec.json.decode(body, type=MessagesBody)
        if reply.error is not None:
            return [Failed(failures.anthropic(reply.error))]
        pieces: list[StreamPiece] = [Began(reply.id, reply.model, 0)]
        for block in reply.content or ():
            pieces += [*self._start(block), *self._stop()]
        pieces += self._count(reply.usage)
        if reply.content is not None and reply.stop_reason is not None:
            pieces += [self._end(reply.stop_reason, reply.stop_sequence), Finished()]
        return pieces

    def read(self, event: ServerSent) -> list[StreamPiece]:
        """The pieces of one event."""
        said = _DECODER.decode(event.data)
        match said.type:
            case "message_start" if said.message is not None:
                return [Began(said.message.id, said.message.model, 0), *self._count(said.message.usage)]
            case "content_block_start" if said.content_block is not None:
                return self._start(said.content_block)
            case "content_block_delta" if said.delta is not None:
                return self._delta(said.delta)
            case "content_block_stop":
                return self._stop()
            case "message_delta":
                counted = self._count(said.usage)
                reason = said.delta.stop_reason if said.delta else None
                if said.delta is None or reason is None:
                    return counted
                return [*counted, self._end(reason, said.delta.stop_sequence)]
            case "message_stop":
                return [Finished()] if self._ended else []
            case "error":
                return [Failed(failures.anthropic(said.error))]
        return []

    def end(self) -> list[StreamPiece]:
        """No more events: without `message_stop` it was cut."""
        return []

    def _end(self, reason: str, stop_sequence: str | None) -> Ended:
        self._ended = True
        return Ended(0, _FINISH.get(reason, "stop"), stop_sequence)

    def _count(self, said: Any) -> list[StreamPiece]:
        """The usage so far: a later event repeats or replaces what an earlier one said."""
        given = counts(said, MessagesUsage)
        if given is None:
            return []
        for name in MessagesUsage.__struct_fields__:
            value = getattr(given, name)
            if value is not None:
                setattr(self._usage, name, value)
        return [Counted(usage(self._usage))]

    def _start(self, block: MessagesContent) -> list[StreamPiece]:
        match block.type:
            case "text":
                return [TextDelta(0, block.text)] if block.text else []
            case "thinking":
                sealed = seal("messages", block.signature)
                return [ThinkingDelta(0, block.thinking, sealed)] if block.thinking or sealed else []
            case "redacted_thinking":
                return [ThinkingDelta(0, "", seal(REDACTED, block.data))]
            case "tool_use":
                self._call, self._written = block, False
                self._calls += 1
                return [CallBegan(0, self._calls - 1, block.id, block.name)]
        return []

    def _delta(self, delta: MessagesContent) -> list[StreamPiece]:
        match delta.type:
            case "text_delta" if delta.text:
                return [TextDelta(0, delta.text)]
            case "thinking_delta" if delta.thinking:
                return [ThinkingDelta(0, delta.thinking)]
            case "signature_delta" if delta.signature:
                return [ThinkingDelta(0, "", seal("messages", delta.signature))]
            case "input_json_delta" if delta.partial_json and self._call is not None:
                self._written = True
                return [CallDelta(0, self._calls - 1, delta.partial_json)]
        return []

    def _stop(self) -> list[StreamPiece]:
        """A call without arguments has none in the stream either, where the other dialects write `{}`."""
        call, self._call = self._call, None
        if call is None or self._written:
            return []
        return [CallDelta(0, self._calls - 1, fields.compact(call.input) if fields.given(call.input) else "{}")]
