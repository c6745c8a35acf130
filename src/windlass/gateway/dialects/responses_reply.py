"""Reads a Responses reply, whole or streamed. Source: OpenAI API reference, "The response object" and "Streaming"."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from windlass.gateway.dialects import failures
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
from windlass.gateway.dialects.seals import seal
from windlass.gateway.money.usage import Usage


class ResponsesUsage(msgspec.Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    input_tokens_details: TokenShares | None = None
    output_tokens_details: TokenShares | None = None


class ResponsesSaid(msgspec.Struct):
    type: str = ""
    text: str = ""
    refusal: str = ""
    logprobs: list[msgspec.Raw] | None = None


class ResponsesOutput(msgspec.Struct):
    type: str = ""
    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    content: list[ResponsesSaid] | None = None
    summary: list[ResponsesSaid] | None = None
    encrypted_content: str | None = None


class ResponsesWhy(msgspec.Struct):
    reason: str = ""


class ResponsesBody(msgspec.Struct):
    id: str = ""
    object: str = ""
    model: str = ""
    created_at: Any = None
    status: str = ""
    error: Any = None
    incomplete_details: ResponsesWhy | None = None
    output: list[ResponsesOutput] | None = None
    usage: Any = None


class ResponsesEvent(msgspec.Struct):
    type: str = ""
    response: ResponsesBody | None = None
    item: ResponsesOutput | None = None
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0
    content_index: int = 0
    delta: str = ""
    arguments: str = ""
    logprobs: list[msgspec.Raw] | None = None
    message: str = ""
    code: str | None = None
    param: str | None = None
    error: Any = None


_PENDING = ("", "queued", "in_progress")
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")


_DECODER = msgspec.json.Decoder(ResponsesEvent)


def usage(given: ResponsesUsage) -> Usage:
    """Responses' count in the one form."""
    return within_totals(
        given.input_tokens, given.output_tokens, given.input_tokens_details, given.output_tokens_details
    )


class ResponsesReply:
    """Reads one reply. A stream is whole with one of its three terminal events and not before."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self._written: set[int] = set()
        self._refusing = False
        self._began = False
        self._thought = (-1, "", -1)

    def whole(self, body: bytes) -> list[StreamPiece]:
        """The pieces of a whole body; none of them Finished where it is no response.

        One in the background is still being made: its body is whole, and none of its choices has Ended. So is one that
        leaves `status`, which is optional, out; `error` says why a response failed, not that it did.
        """
        reply = msgspec.json.decode(body, type=ResponsesBody)
        pieces = self._begin(reply)
        for index, item in enumerate(reply.output or ()):
            pieces += [*self._added(item, index), *self._contents(item, index), *self._item_done(item, index)]
        if reply.object == "response" and reply.status in _PENDING:
            return [*pieces, *_counted(reply), Finished()]
        return [*pieces, *self._terminal(reply)]

    def read(self, event: ServerSent) -> list[StreamPiece]:
        """The pieces of one event."""
        said = _DECODER.decode(event.data)
        if said.type in _TERMINAL and said.response is not None:
            return [*self._begin(said.response), *self._terminal(said.response)]
        if said.type == "error" or (said.error is not None and not said.type):
            inner = said.error if isinstance(said.error, dict) else None
            flat = {"message": said.message, "code": said.code, "param": said.param}
            return [Failed(failures.openai(inner or flat))]
        return self._delta(said) if said.delta or said.arguments else self._around(said)

    def end(self) -> list[StreamPiece]:
        """No more events: without a terminal one it was cut."""
        return []

    def _begin(self, reply: ResponsesBody) -> list[StreamPiece]:
        if self._began:
            return []
        self._began = True
        return [Began(reply.id, reply.model, _seconds(reply.created_at))]

    def _around(self, said: ResponsesEvent) -> list[StreamPiece]:
        """What stands around the deltas: the response as it begins, and each item as it begins and ends."""
        match said:
            case ResponsesEvent(type="response.created", response=ResponsesBody() as response):
                return self._begin(response)
            case ResponsesEvent(type="response.output_item.added", item=ResponsesOutput() as item):
                return self._added(item, said.output_index)
            case ResponsesEvent(type="response.output_item.done", item=ResponsesOutput() as item):
                return self._item_done(item, said.output_index)
        return []

    def _delta(self, said: ResponsesEvent) -> list[StreamPiece]:
        match said.type:
            case "response.output_text.delta":
                return [TextDelta(0, said.delta, _kept(said.logprobs))]
            case "response.refusal.delta":
                self._refusing = True
                return [RefusalDelta(0, said.delta)]
            case "response.reasoning_summary_text.delta":
                return self._thinking(said.output_index, "summary", said.summary_index, said.delta)
            case "response.reasoning_text.delta":
                return self._thinking(said.output_index, "content", said.content_index, said.delta)
            case "response.function_call_arguments.delta":
                return self._arguments(said.output_index, said.delta)
            case "response.function_call_arguments.done" if said.output_index not in self._written:
                return self._arguments(said.output_index, said.arguments)
        return []

    def _thinking(self, index: int, kind: str, number: int, text: str) -> list[StreamPiece]:
        """Reasoning; paragraphs of one item stand apart."""
        here = (index, kind, number)
        apart = self._thought[0] == index and self._thought != here
        self._thought = here
        return [ThinkingDelta(0, f"\n\n{text}" if apart else text)]

    def _arguments(self, index: int, text: str) -> list[StreamPiece]:
        if index not in self._calls or not text:
            return []
        self._written.add(index)
        return [CallDelta(0, self._calls[index], text)]

    def _added(self, item: ResponsesOutput, index: int) -> list[StreamPiece]:
        if item.type != "function_call" or index in self._calls:
            return []
        self._calls[index] = len(self._calls)
        return [CallBegan(0, self._calls[index], item.call_id, item.name)]

    def _contents(self, item: ResponsesOutput, index: int) -> list[StreamPiece]:
        """What a whole item says, which a stream says in deltas."""
        pieces: list[StreamPiece] = []
        kinds = {"content": item.content or [], "summary": item.summary or []} if item.type == "reasoning" else {}
        for kind, parts in kinds.items():
            for number, part in enumerate(parts):
                pieces += self._thinking(index, kind, number, part.text) if part.text else []
        for part in (item.content or ()) if item.type == "message" else ():
            if part.type == "refusal":
                self._refusing = True
                pieces.append(RefusalDelta(0, part.refusal))
            elif part.text:
                pieces.append(TextDelta(0, part.text, _kept(part.logprobs)))
        return pieces

    def _item_done(self, item: ResponsesOutput, index: int) -> list[StreamPiece]:
        if item.type == "reasoning" and item.encrypted_content:
            encrypted = item.encrypted_content
            marked = seal("", encrypted) == encrypted
            return [ThinkingDelta(0, "", encrypted if marked else f"responses:{item.id or ''}:{encrypted}")]
        if item.type == "function_call" and index not in self._written:
            return self._arguments(index, item.arguments)
        return []

    def _terminal(self, reply: ResponsesBody) -> list[StreamPiece]:
        counted = _counted(reply)
        if reply.error is not None:
            return [*counted, Failed(failures.openai(reply.error))]
        if reply.status == "completed":
            finish: Finish = "tool_calls" if self._calls else "refusal" if self._refusing else "stop"
        elif reply.status == "incomplete":
            filtered = reply.incomplete_details is not None and reply.incomplete_details.reason == "content_filter"
            finish = "content_filter" if filtered else "length"
        elif not reply.status:
            return counted
        else:
            failure = Failure(f"the response ended as {reply.status[:40]!r}", code=f"response_{reply.status[:40]}")
            return [*counted, Failed(failure)]
        return [*counted, Ended(0, finish), Finished()]


def _counted(reply: ResponsesBody) -> list[StreamPiece]:
    used = counts(reply.usage, ResponsesUsage)
    return [Counted(usage(used))] if used else []


def _kept(logprobs: list[msgspec.Raw] | None) -> tuple[msgspec.Raw, ...]:
    return tuple(map(copied, logprobs or ()))


def _seconds(created_at: Any) -> int:
    """Seconds since 1970, which the reference gives as a number of any kind."""
    return count(int(created_at)) or 0 if isinstance(created_at, int | float) and math.isfinite(created_at) else 0
