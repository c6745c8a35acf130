"""Two streams of a chat joined into one: what is read along of the first, and how the second is written on behind it.

All in whole events: an event of which only a part came is none, so no character and no JSON is cut in two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any, TypeAlias

import msgspec

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.money.usage import Usage
from windlass.gateway.opening import MOST_EVENT_BYTES, Spoken, error_category
from windlass.gateway.wire import DONE, Tally, count

MOST_REPEATED, LEAST_REPEATED = 200, 12
"""Characters at the end of a text that may come once more; fewer than these may be chance ("hel", "lo")."""
_EVENT = re.compile(rb".*?(?:\r?\n){2}", re.DOTALL)
_NOT_AGAIN = ("role", "reasoning_content", "reasoning", "reasoning_details", "thinking_blocks")
"""Of a delta: a message has one role, and its reasoning stands before its text."""
Known: TypeAlias = Callable[[str], int | None]
"""How many characters at the beginning of a text are none of it; None as long as more must come to tell."""


class Events:
    """Cuts a stream into events, their bytes as they came. Borders of chunks may fall anywhere."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._last = b""
        self.size = 0

    @property
    def rest(self) -> bytes:
        """What came of an event that is not whole; `size` bytes."""
        return b"".join(self._waiting)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are whole now."""
        seen = self._last + chunk
        self._waiting.append(chunk)
        self.size += len(chunk)
        if b"\n\n" not in seen and b"\r\n\r\n" not in seen:
            self._last = seen[-3:]
            return []
        data = self.rest
        events, rest = _split(data)
        self._waiting, self._last, self.size = [rest], rest[-3:], len(rest)
        return events


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The events of some bytes, and what stands behind them."""
    if b"\r" not in data:
        *found, rest = data.split(b"\n\n")
        return [event + b"\n\n" for event in found], rest
    events: list[bytes] = _EVENT.findall(data)
    return events, data[sum(map(len, events)) :]


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class _ChunkChoice(msgspec.Struct):
    index: Any = 0
    delta: _Delta | None = None
    logprobs: Any = None
    finish_reason: Any = None


class _ChatChunk(msgspec.Struct):
    id: Any = None
    model: Any = None
    created: Any = None
    choices: list[_ChunkChoice] | None = None


class Heard:
    """A chat stream that may have to be continued, read along.

    head: what all of its chunks have in common. failure: the events from an error on, which are held back. closed: it
    is read no further, since nobody could go on with it (a tool was called, a choice of several, unreadable).
    """

    def __init__(self) -> None:
        self.tally = Tally(stream=True)
        self.head: dict[str, Any] = {}
        self.failure = b""
        self.closed = False
        self._ended = False
        self._events = Events()

    @property
    def rest(self) -> bytes:
        """What came of an event that is not whole."""
        return self._events.rest

    @property
    def cut(self) -> bool:
        """Would it be a cut in a text if nothing more came?"""
        last = self.rest.strip().replace(b" ", b"")  # of a line without its break a tally knows nothing yet
        ended = self._ended or self.tally.done or last == b"data:" + DONE
        return not self.closed and not ended and bool(self.tally.text.strip())

    @property
    def category(self) -> ErrorCategory:
        """What the stream itself says of its end."""
        return error_category(200, _spoken(self.failure)) if self.failure else ErrorCategory.STREAM_CUT

    def feed(self, chunk: bytes) -> bytes:
        """What of the stream may go out now."""
        if self.closed:
            return chunk
        passed = b""
        for event in self._events.feed(chunk):
            if not self.failure:
                self._read(event)
            if self.tally.error:
                self.failure += event
            else:
                passed += event
        return passed + self.close() if self.closed or self._events.size > MOST_EVENT_BYTES else passed

    def close(self) -> bytes:
        """Read no further; returns what was held back."""
        held = self.failure + self._events.rest
        self.closed, self.failure, self._events = True, b"", Events()
        return held

    def _read(self, event: bytes) -> None:
        self.tally.feed(event)
        for line in event.split(b"\n"):
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data and data != DONE:
                self._chunk(data)

    def _chunk(self, data: bytes) -> None:
        try:
            chunk = msgspec.json.decode(data, type=_ChatChunk)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.closed = True
            return
        if not self.head and chunk.choices:
            head = {"id": chunk.id, "model": chunk.model, "created": chunk.created}
            self.head = {name: value for name, value in head.items() if value is not None}
        for choice in chunk.choices or ():
            self._ended = self._ended or choice.finish_reason is not None
            self.closed = self.closed or not _is_text(choice)


def _is_text(choice: _ChunkChoice) -> bool:
    """Whether this is the one choice of a stream, and tells nothing but text."""
    delta = choice.delta or _Delta()
    others = (delta.refusal, delta.tool_calls, delta.function_call, delta.audio, choice.logprobs)
    return choice.index == 0 and not any(others) and (delta.content is None or isinstance(delta.content, str))


def _spoken(events: bytes) -> Spoken:
    """The error among these events."""
    for line in events.split(b"\n"):
        try:
            found = msgspec.json.decode(line.removeprefix(b"data:"), type=Spoken)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if found.refuses:
            return found
    return Spoken()


def repeated(before: str) -> Known:
    """Tells how much of the end of `before` a text says once more: at least `LEAST_REPEATED`, or all of `before`."""
    end = before[-MOST_REPEATED:]
    least = min(len(before), LEAST_REPEATED)

    def known(text: str) -> int | None:
        # Where more of the end follows behind a place at which `text` stands, the next characters decide.
        if not text or end.find(text, 0, min(len(end) - 1, len(end) - least + len(text))) >= 0:
            return None
        longest = min(len(end), len(text))
        return next((size for size in range(longest, least - 1, -1) if text.startswith(end[-size:])), 0)

    return known


def restored(space: str) -> Known:
    """Tells how much of the white space that was taken from the end of a text stands before what follows it."""

    def known(text: str) -> int | None:
        if len(text) < len(space) and space.startswith(text):
            return None
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, space, strict=False)))

    return known


class Joint:
    """Writes the second stream as if the first had gone on: one head, no word twice, one count.

    head: of the first. used: what the first used up, which is added to the count of the second where `counts`, else no
    count is shown. dropped: characters that were left out since the first had them.
    """

    def __init__(self, head: dict[str, Any], used: Usage, known: Known, *, counts: bool):
        self.dropped = 0
        self._head = head
        self._used = used
        self._known: Known | None = known
        self._counts = counts
        self._held = ""
        self._events = Events()

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets of the next bytes. UpstreamError where there is no end to an event."""
        written = b"".join(map(self._event, self._events.feed(chunk)))
        if self._events.size > MOST_EVENT_BYTES:
            message = f"an event of the continuation has more than {MOST_EVENT_BYTES} bytes; the rest is left"
            raise UpstreamError(message, category=ErrorCategory.CHUNK_MALFORMED)
        return written

    def end(self) -> bytes:
        """What is left once no more bytes come: some servers end without an empty line, but half an event is none."""
        rest = self._events.rest
        data = _data(rest)
        last = self._event(rest + b"\n\n") if data == DONE or _decoded(data) is not None else b""
        return last + self._text(self._new("", last=True))

    def _event(self, event: bytes) -> bytes:
        data = _data(event)
        chunk = _decoded(data)
        if isinstance(chunk, dict) and chunk.get("error") is None:
            return self._chunk(chunk)
        # What cannot be read goes on as it is: whoever reads along counts it.
        return (self._text(self._new("", last=True)) if data else b"") + event

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        given = chunk.get("choices")
        choices = given if isinstance(given, list) else []
        chunk["choices"] = kept = [one for one in choices if isinstance(one, dict) and self._choice(one)]
        usage = chunk.pop("usage", None)
        counted = self._counts and isinstance(usage, dict)
        if counted:
            chunk["usage"] = _summed(usage, self._used)
        return _written(chunk | self._head) if kept or counted else b""

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Whether anything of the choice is new; what is not has been taken out of it."""
        given = choice.get("delta")
        told = given if isinstance(given, dict) else {}
        said = told.pop("content", None)
        delta = {name: value for name, value in told.items() if value is not None and name not in _NOT_AGAIN}
        ends = choice.get("finish_reason") is not None
        text = self._new(said if isinstance(said, str) else "", last=ends or bool(delta))
        choice["delta"] = delta | {"content": text} if text else delta
        return ends or bool(choice["delta"])

    def _new(self, text: str, *, last: bool) -> str:
        """What is new of the text so far; held back as long as it may have been said before."""
        if self._known is None:
            return text
        self._held += text
        dropped = self._known(self._held)
        if dropped is None and not last:
            return ""
        new, self._held, self._known = self._held[dropped or 0 :], "", None
        self.dropped = dropped or 0
        return new

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return _written({"object": "chat.completion.chunk", "choices": [choice]} | self._head)


def _data(event: bytes) -> bytes:
    return b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _written(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _summed(usage: dict[str, Any], used: Usage) -> dict[str, Any]:
    """A count as a provider gives it, with what was used up before."""
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return usage
    prompt, completion = prompt + (used.prompt_tokens or 0), completion + (used.completion_tokens or 0)
    summed = {**usage, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    shares = (
        ("prompt_tokens_details", "cached_tokens", used.cache_read_tokens),
        ("prompt_tokens_details", "cache_write_tokens", used.cache_write_tokens),
        ("completion_tokens_details", "reasoning_tokens", used.reasoning_tokens),
    )
    for place, name, more in shares:
        if more:
            given = summed.get(place)
            details = dict(given) if isinstance(given, dict) else {}
            summed[place] = details | {name: (count(details.get(name)) or 0) + more}
    return summed
