"""Reads a chat-completions reply, whole or streamed. Source: OpenAI API reference, "The chat completion object" and
"The chat completion chunk object".
"""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures
from windlass.gateway.dialects.chat_wire import ChatExtra, ChatThinking
from windlass.gateway.dialects.counts import TokenShares, count, counts, within_totals
from windlass.gateway.dialects.events import ServerSent
from windlass.gateway.dialects.fields import copied
from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Counted,
    Ended,
    Failed,
    Failure,
    Finish,
    Finished,
    RefusalDelta,
    StreamPiece,
    TextDelta,
    ThinkingDelta,
)
from windlass.gateway.dialects.seals import REDACTED, seal
from windlass.gateway.money.usage import Usage
from windlass.gateway.wire import DONE, text_of

_FINISH: dict[str, Finish] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class ChatUsage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: TokenShares | None = None
    completion_tokens_details: TokenShares | None = None


class ChatReplyFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ChatReplyCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: ChatReplyFunction | None = None
    extra_content: ChatExtra | None = None


class ChatSaid(msgspec.Struct):
    content: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[ChatThinking] | None = None
    tool_calls: list[ChatReplyCall] | None = None


class ChatLogprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


class ChatReplyChoice(msgspec.Struct):
    index: int = 0
    delta: ChatSaid | None = None
    message: ChatSaid | None = None
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None


class ChatReplyFields(msgspec.Struct):
    id: Any = None
    model: Any = None
    created: Any = None
    choices: list[ChatReplyChoice] | None = None
    usage: Any = None
    error: Any = None


_DECODER = msgspec.json.Decoder(ChatReplyFields)


def usage(given: ChatUsage) -> Usage:
    """Chat's count in the one form."""
    return within_totals(
        given.prompt_tokens, given.completion_tokens, given.prompt_tokens_details, given.completion_tokens_details
    )


class ChatReply:
    """Reads one reply. A stream is whole with `[DONE]`, or once every choice that began has its finish reason."""

    def __init__(self) -> None:
        self._began = False
        self._done = False
        self._open: set[int] = set()
        self._closed: set[int] = set()
        self._calls: dict[int, dict[int, str]] = {}
        self._refusing: set[int] = set()

    def whole(self, body: bytes) -> list[StreamPiece]:
        """The pieces of a whole body; none of them Finished where it is no completion."""
        reply = msgspec.json.decode(body, type=ChatReplyFields)
        pieces = self._pieces(reply)
        if reply.choices and not isinstance(pieces[-1], Failed):
            pieces += [Ended(at, self._ending(at, "stop")) for at in sorted(self._open - self._closed)]
            pieces.append(Finished())
        return pieces

    def read(self, event: ServerSent) -> list[StreamPiece]:
        """The pieces of one event."""
        if event.data == DONE:
            return self._finish()
        return self._pieces(_DECODER.decode(event.data))

    def end(self) -> list[StreamPiece]:
        """No more events: some servers leave `[DONE]` out."""
        return self._finish() if self._open and self._open == self._closed else []

    def _finish(self) -> list[StreamPiece]:
        if self._done or not self._open:
            return []
        self._done = True
        return [*(Ended(at, self._ending(at, "stop")) for at in sorted(self._open - self._closed)), Finished()]

    def _pieces(self, reply: ChatReplyFields) -> list[StreamPiece]:
        if reply.error is not None:
            return [Failed(failures.openai(reply.error))]
        pieces: list[StreamPiece] = []
        if not self._began and reply.choices:
            self._began = True
            reply_id, model = (one if isinstance(one, str) else "" for one in (reply.id, reply.model))
            pieces.append(Began(reply_id, model, count(reply.created) or 0))
        for choice in reply.choices or ():
            self._choice(choice, pieces)
            if pieces and isinstance(pieces[-1], Failed):
                return pieces
        if counted := counts(reply.usage, ChatUsage):
            pieces.append(Counted(usage(counted)))
        return pieces

    def _choice(self, choice: ChatReplyChoice, pieces: list[StreamPiece]) -> None:
        at, reason = choice.index, choice.finish_reason
        self._open.add(at)
        said = choice.delta or choice.message
        if said is not None:
            self._said(choice, said, pieces)
        if reason == "error":
            pieces.append(Failed(Failure("the provider failed while it answered", code="finish_reason_error")))
        elif reason is not None and at not in self._closed:
            self._closed.add(at)
            pieces.append(Ended(at, self._ending(at, reason)))

    def _ending(self, choice: int, reason: str) -> Finish:
        """The finish reason; a forced call and a refusal both end with `stop` in chat."""
        if reason in _FINISH:
            return _FINISH[reason]
        if self._calls.get(choice):
            return "tool_calls"
        return "refusal" if choice in self._refusing else "stop"

    def _said(self, choice: ChatReplyChoice, said: ChatSaid, pieces: list[StreamPiece]) -> None:
        at = choice.index
        self._thinking(choice, said, pieces)
        text = text_of(said.content)
        logprobs = tuple(choice.logprobs.content or ()) if choice.logprobs else ()
        if text or logprobs:
            pieces.append(TextDelta(at, text, tuple(map(copied, logprobs))))
        if said.refusal:
            self._refusing.add(at)
            pieces.append(RefusalDelta(at, said.refusal))
        for call in said.tool_calls or ():
            self._call(at, call, pieces)

    def _thinking(self, choice: ChatReplyChoice, said: ChatSaid, pieces: list[StreamPiece]) -> None:
        """Whole blocks tell text and seal; in a stream they repeat what `reasoning_content` said, and add the seal."""
        blocks = said.thinking_blocks or []
        whole = choice.message is not None and bool(blocks)
        found = [ThinkingDelta(choice.index, "" if whole else said.reasoning_content or said.reasoning or "")]
        for block in blocks:
            sealed = seal(REDACTED, block.data) if block.data else seal("messages", block.signature)
            found.append(ThinkingDelta(choice.index, block.thinking if whole else "", sealed))
        pieces += (piece for piece in found if piece.text or piece.seal)

    def _call(self, at: int, call: ChatReplyCall, pieces: list[StreamPiece]) -> None:
        calls = self._calls.setdefault(at, {})
        index = call.index
        if index is None:  # servers that send calls whole leave it out
            index = next((known for known, call_id in calls.items() if call_id == call.id), len(calls))
        function = call.function or ChatReplyFunction()
        if index not in calls:
            calls[index] = call.id or ""
            google = call.extra_content.google if call.extra_content else None
            sealed = seal("gemini", google.thought_signature) if google else ""
            pieces.append(CallBegan(at, index, call.id or "", function.name or "", sealed))
        if function.arguments:
            pieces.append(CallDelta(at, index, function.arguments))
