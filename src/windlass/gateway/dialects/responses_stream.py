"""Answers a Responses client with a stream. Source: OpenAI API reference, "Streaming events"."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures
from windlass.gateway.dialects import responses_answer as answer
from windlass.gateway.dialects.events import named_event
from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Failure,
    RefusalDelta,
    RefusalPart,
    TextDelta,
    TextPart,
)
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.writing import INTERLEAVED, UNNAMED, PartWriter

_ENCODER = msgspec.json.Encoder()


class _OpenItem:
    """The item that is being written, and the part of it."""

    def __init__(self, kind: str, item_id: str, call: CallBegan | None = None):
        self.kind = kind
        self.item_id = item_id
        self.call = call
        self.parts: list[dict[str, Any]] = []
        self.part = ""
        self.texts: list[str] = []
        self.logprobs: list[msgspec.Raw] = []
        self.seal = ""


class ResponsesStream(PartWriter):
    """Writes one stream: items, and the status at the end."""

    def __init__(self, identity: Identity):
        super().__init__()
        self._identity = identity
        self._body: dict[str, Any] = {}
        self._number = 0
        self._item: _OpenItem | None = None
        self._refused = False

    def _begin(self, began: Began) -> bytes:
        if self._body:
            return b""
        self._body = answer.response(self._identity, began.id, began.created_s, "in_progress")
        started = {"response": self._body}
        return self._event("response.created", started) + self._event("response.in_progress", started)

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        number, self._number = self._number, self._number + 1
        return named_event(name, _ENCODER.encode({"type": name, "sequence_number": number, **fields}))

    def _open(self, kind: str, call: CallBegan | None = None) -> bytes:
        """Begin an item, after the end of the one before."""
        before = self._begin(UNNAMED) + self._close()
        item_id = f"{self._body['id']}_{len(self._body['output'])}"
        self._item = _OpenItem(kind, item_id, call)
        match kind:
            case "message":
                item = answer.message(item_id, [], "in_progress")
            case "reasoning":
                item = answer.reasoning(item_id, "", "")
            case _:
                item = answer.function_call(item_id, call.id, call.name, "", "in_progress") if call else {}
        self._item.item_id = item["id"]
        return before + self._event("response.output_item.added", {"output_index": self._at, "item": item})

    @property
    def _at(self) -> int:
        return len(self._body["output"])

    def _place(self, item: _OpenItem) -> dict[str, Any]:
        """Where an event of the open part belongs."""
        index = {"summary_index" if item.kind == "reasoning" else "content_index": len(item.parts)}
        return {"item_id": item.item_id, "output_index": self._at, **({} if item.call else index)}

    def _text(self, delta: TextDelta) -> bytes:
        written = self._content("output_text", delta.text, {"logprobs": delta.logprobs})
        if self._item is not None:
            self._item.logprobs += delta.logprobs
        return written

    def _refusal(self, delta: RefusalDelta) -> bytes:
        self._refused = True
        return self._content("refusal", delta.text, {})

    def _content(self, part: str, text: str, more: dict[str, Any]) -> bytes:
        """More of a message's part, begun where it is not open."""
        written = b""
        if self._item is None or self._item.kind != "message":
            written = self._open("message")
        item = self._item
        assert item is not None  # just opened
        if item.part != part:
            written += self._close_part(item)
            item.part = part
            empty = answer.content(TextPart("") if part == "output_text" else RefusalPart(""))
            written += self._event("response.content_part.added", {**self._place(item), "part": empty})
        item.texts.append(text)
        return written + self._event(f"response.{part}.delta", {**self._place(item), "delta": text, **more})

    def _thinking(self, text: str, sealed: str) -> bytes:
        written = b""
        if self._item is None or self._item.kind != "reasoning":
            written = self._open("reasoning")
        item = self._item
        assert item is not None  # just opened
        if text:
            if not item.part:
                item.part = "reasoning_summary_text"
                empty = {"type": "summary_text", "text": ""}
                written += self._event("response.reasoning_summary_part.added", {**self._place(item), "part": empty})
            item.texts.append(text)
            written += self._event("response.reasoning_summary_text.delta", {**self._place(item), "delta": text})
        if sealed:
            item.seal = sealed
            written += self._close()
        return written

    def _call(self, call: CallBegan) -> bytes:
        return self._open("function_call", call)

    def _arguments(self, delta: CallDelta) -> bytes:
        item = self._item
        if item is None or item.call is None or item.call.index != delta.index:
            return self.write(INTERLEAVED)
        item.texts.append(delta.arguments)
        return self._event("response.function_call_arguments.delta", {**self._place(item), "delta": delta.arguments})

    def _close_part(self, item: _OpenItem) -> bytes:
        """End the part of a message or of reasoning that is open."""
        if not item.part:
            return b""
        name, text, place = item.part, "".join(item.texts), self._place(item)
        match name:
            case "refusal":
                part = answer.content(RefusalPart(text))
                done = self._event("response.refusal.done", {**place, "refusal": text})
            case "output_text":
                logprobs = tuple(item.logprobs)
                part = answer.content(TextPart(text, logprobs))
                done = self._event("response.output_text.done", {**place, "text": text, "logprobs": logprobs})
            case _:
                part = {"type": "summary_text", "text": text}
                done = self._event("response.reasoning_summary_text.done", {**place, "text": text})
        ended = "reasoning_summary_part" if item.kind == "reasoning" else "content_part"
        done += self._event(f"response.{ended}.done", {**place, "part": part})
        item.parts.append(part)
        item.part, item.texts, item.logprobs = "", [], []
        return done

    def _close(self, status: str = "completed") -> bytes:
        """End the open item; what it became stands in the response from then on."""
        item, self._item = self._item, None
        if item is None:
            return b""
        text = "".join(item.texts)
        done = self._close_part(item)
        own_id = item.item_id.partition("_")[2]
        if item.call is not None:
            call = item.call
            arguments = {**self._place(item), "name": call.name, "arguments": text}
            done = self._event("response.function_call_arguments.done", arguments)
            made = answer.function_call(own_id, call.id, call.name, text, status)
        elif item.kind == "reasoning":
            made = answer.reasoning(own_id, text, item.seal)
        else:
            made = answer.message(own_id, item.parts, status)
        done += self._event("response.output_item.done", {"output_index": self._at, "item": made})
        self._body["output"].append(made)
        return done

    def _finished(self) -> bytes:
        ending = answer.ending(self._end.finish, refused=self._refused)
        before = self._begin(UNNAMED) + self._close(ending["status"])
        self._body |= ending | {"usage": answer.usage(self._usage)}
        return before + self._event(f"response.{ending['status']}", {"response": self._body})

    def _fail(self, failure: Failure) -> bytes:
        """OpenAI's error event; no terminal event follows it, as nothing is complete.

        Beside the documented fields stands the envelope, at which OpenAI's own clients raise.
        """
        told = {"code": failure.code or failure.kind, "message": failure.message, "param": failure.param}
        return self._event("error", {**told, **failures.as_openai(failure)})
