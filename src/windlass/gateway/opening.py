"""The opening of a reply: as much as must be seen of it before any of it is passed on.

A stream is held until its first event is whole, a plain reply until all of it is there. Until then another attempt can
take its place without the client seeing anything of it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec

from windlass.errors import ErrorCategory, UpstreamError, upstream_category
from windlass.errors.codes import TYPE_STATUS
from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderReply
from windlass.gateway.wire import DONE, ReplyTally

MOST_WHOLE_BYTES = 64 * 1024 * 1024
MOST_EVENT_BYTES = 1024 * 1024
"""A first event beyond this is passed on as it is, unread."""
MOST_REFUSAL_BYTES = 1024 * 1024
REFUSAL_S = 2.0
"""So much of a refusal is read, for so long: what it says, and its status, are known by then."""
Wants = Literal["events", "json", "either", "any"]
"""What was asked for: a stream of events, one JSON document, one of these two, or whatever comes (sound, files)."""

# A whole line of data that holds something. A colon without a space: WHATWG HTML, 9.2.6.
_EVENT = re.compile(rb"\ndata:[ \t]*([^\s][^\n]*)\n")
# Words of vLLM, llama.cpp, Anthropic, Gemini and Mistral, which give no code of their own for it.
_TOO_LONG = re.compile(
    r"context (length|window|size|limit)|prompt is too long|token count .{0,40}exceeds|too large for model",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Opened:
    """A reply of which `head` has been read, and fed to `tally`; `rest` is what is still to come.

    ended: nothing is to come, and `tally.end()` was called; so it is of everything that an upstream refused in words.
    category: why it is no good, None where it is good.
    """

    reply: ProviderReply
    tally: ReplyTally
    head: list[bytes]
    rest: AsyncIterator[bytes]
    ended: bool
    category: ErrorCategory | None

    async def close(self) -> None:
        """Give the connection back, or break it off so that the upstream stops."""
        await self.reply.chunks.aclose()


async def opened(reply: ProviderReply, wants: Wants, tally: Callable[[bool], ReplyTally]) -> Opened:
    """Read the opening of `reply`, and say whether it is good. `tally` makes what reads along, streamed or not.

    UpstreamError, with the reply closed, where the provider breaks off before anything can be said.
    """
    rest = aiter(reply.chunks)
    kind = reply.content_type.partition(";")[0].strip().lower()
    try:
        if reply.status >= 300:
            found = Opened(reply, tally(False), [], rest, False, None)
            await _read_out(found)
            found.category = error_category(reply.status, _spoken(b"".join(found.head)))
            return found
        if kind == EVENT_STREAM and wants != "json":
            return await _stream(Opened(reply, tally(True), [], rest, False, None))
        if kind == JSON or kind.endswith("+json"):
            found = await _whole(Opened(reply, tally(False), [], rest, False, None))
            if wants == "events" and not found.tally.error:
                found.category = ErrorCategory.CONTENT_TYPE_WRONG
            return found
        wrong = None if wants == "any" and reply.status >= 200 else ErrorCategory.CONTENT_TYPE_WRONG
        return Opened(reply, tally(False), [], rest, False, wrong)
    except BaseException:
        await reply.chunks.aclose()
        raise


async def _stream(found: Opened) -> Opened:
    """Up to the end of the first event."""
    size, line, first = 0, [b"\n"], None
    async for chunk in found.rest:
        found.head.append(chunk)
        found.tally.feed(chunk)
        line.append(chunk)
        size += len(chunk)
        if b"\n" in chunk:
            lines = b"".join(line)
            first = _EVENT.search(lines)
            line = [lines[lines.rindex(b"\n") :]]
        if first is not None or size > MOST_EVENT_BYTES:
            break
    else:
        found.ended = True
        found.tally.end()
        first = _EVENT.search(b"".join((*line, b"\n")))
    data = first[1].strip() if first is not None else None
    if found.tally.error or (data is not None and _refuses(data)):
        await _read_out(found)
        found.category = error_category(found.reply.status, _spoken(b"".join(found.head)))
    else:
        found.category = _of_stream(found, data)
    return found


def _refuses(data: bytes) -> bool:
    """Is this event an error? A tally may not have taken it yet: an event ends with the empty line after it."""
    return (b'"error"' in data or b".failed" in data) and _spoken(data).refuses


def _of_stream(found: Opened, first: bytes | None) -> ErrorCategory | None:
    """What speaks against a stream that does not refuse, whose first event is `first`."""
    tally = found.tally
    if first is None:
        return _of_no_event(found)
    if first == DONE:
        return ErrorCategory.STREAM_EMPTY
    if found.ended and not tally.complete:
        return ErrorCategory.STREAM_CUT
    # A tally counts every event that it cannot read; only the first one stands against a reply that has not begun.
    return ErrorCategory.CHUNK_MALFORMED if tally.malformed and not _reads(first) else None


def _of_no_event(found: Opened) -> ErrorCategory | None:
    """No whole line of data: it is empty, no stream at all, or its first event is very long."""
    lines = [line for line in b"".join(found.head).split(b"\n") if line.strip() and not line.startswith(b":")]
    if not lines:
        return ErrorCategory.STREAM_EMPTY
    if not found.ended and lines[-1].startswith(b"data:"):
        return None
    return ErrorCategory.CHUNK_MALFORMED


def _reads(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


async def _whole(found: Opened) -> Opened:
    """All of it."""
    size, tally = 0, found.tally
    async for chunk in found.rest:
        size += len(chunk)
        if size > MOST_WHOLE_BYTES:
            raise UpstreamError(
                f"the reply has more than {MOST_WHOLE_BYTES} bytes; the rest is left",
                category=ErrorCategory.RESPONSE_MALFORMED,
            )
        found.head.append(chunk)
        tally.feed(chunk)
    found.ended = True
    tally.end()
    if tally.error:
        found.category = error_category(found.reply.status, _spoken(b"".join(found.head)))
    elif not tally.complete:
        found.category = ErrorCategory.RESPONSE_MALFORMED
    return found


async def _read_out(found: Opened) -> None:
    """The rest of a refusal, as far as it comes at once; what came is what there is."""
    size, tally = sum(map(len, found.head)), found.tally
    try:
        async with asyncio.timeout(REFUSAL_S):
            while not found.ended and size < MOST_REFUSAL_BYTES:
                chunk = await anext(found.rest)
                found.head.append(chunk)
                tally.feed(chunk)
                size += len(chunk)
    except (StopAsyncIteration, TimeoutError, UpstreamError):
        pass
    if not found.ended:
        found.ended = True
        tally.end()


class Spoken(msgspec.Struct):
    """What may be said of an error, in a body or in an event, by any of the dialects."""

    error: Any = None
    type: Any = None
    code: Any = None
    message: Any = None
    response: Any = None

    @property
    def refuses(self) -> bool:
        """Is it an error, or something else that was said?"""
        return self.error is not None or self.type in ("error", "response.failed")

    @property
    def about(self) -> Any:
        """The error itself, wherever it stands; None where only the fields beside it tell of one."""
        if self.error is not None or not isinstance(self.response, dict):
            return self.error
        return self.response.get("error")

    @property
    def fields(self) -> Mapping[str, Any]:
        """`code`, `type` and `message`, of the error or of what tells of it."""
        error = self.about
        return error if isinstance(error, dict) else {"code": self.code, "type": self.type, "message": self.message}


def _spoken(data: bytes) -> Spoken:
    """What a body, or the first event that is an error, says; without any the last that can be read."""
    found = Spoken()
    for text in (data, *(line[5:] for line in data.split(b"\n") if line.startswith(b"data:"))):
        try:
            found = msgspec.json.decode(text, type=Spoken)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if found.refuses:
            break
    return found


def error_category(status: int, spoken: Spoken) -> ErrorCategory:
    """What an error stands for, by its status and by what it says; `status` below 300: it came inside a reply."""
    code, kind, message = (spoken.fields.get(name) for name in ("code", "type", "message"))
    if status < 300:
        status = _status(code, kind)
    found = upstream_category(status, _text(code))
    if found is upstream_category(status):
        found = upstream_category(status, _text(kind))
    vague = (ErrorCategory.UPSTREAM_REQUEST_REFUSED, ErrorCategory.REQUEST_TOO_LARGE)
    if found in vague and _TOO_LONG.search(_text(spoken.about) or _text(message)):
        return ErrorCategory.CONTEXT_TOO_LONG
    return found or ErrorCategory.UPSTREAM_SERVER_ERROR


def _status(code: Any, kind: Any) -> int:
    """The status that an error inside a reply stands for: its code may be one, else the first name that is known."""
    if type(code) is int and 400 <= code < 600:
        return code
    return TYPE_STATUS.get(_text(kind)) or TYPE_STATUS.get(_text(code)) or 500


def _text(value: Any) -> str:
    return value[:4096] if isinstance(value, str) else ""


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """How long a provider asks to be left alone: seconds, or a date (RFC 9110, 10.2.3); None where it does not say.

    now: UTC seconds. `retry-after-ms` is finer, where a provider sends it.
    """
    said = headers.get("retry-after-ms")
    if said is not None and (wait_ms := _number(said)) is not None:
        return wait_ms / 1000
    said = headers.get("retry-after")
    if said is None:
        return None
    if (wait_s := _number(said)) is not None:
        return wait_s
    try:
        at = parsedate_to_datetime(said[:64])
        return max(0.0, at.timestamp() - now)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _number(said: str) -> float | None:
    """A number of seconds that makes sense: finite and not negative."""
    try:
        value = float(said[:64])
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
