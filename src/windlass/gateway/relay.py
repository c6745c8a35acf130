"""A reply on its way out: read along, kept, bounded, and closed however it ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from windlass.errors import ErrorCategory, UpstreamError, classify, upstream_category
from windlass.gateway.opening import MOST_WHOLE_BYTES, Opened
from windlass.gateway.transport.http import Patience

AFTER_DONE_S = 0.5
MAX_REPLY_BYTES = MOST_WHOLE_BYTES
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_EVENT = re.compile(rb".*?(?:\r?\n){2}", re.DOTALL)
_DONE = re.compile(rb"data: ?\[DONE\]")

Record = Callable[[int, str], Awaitable[None]]
"""Commit what came of the call: the status that the client gets, and an ErrorCategory value or ''."""
GONE = (499, ErrorCategory.CLIENT_GONE.value)


def ending(exc: BaseException) -> tuple[int, str]:
    """What a call that ended in `exc` is recorded as."""
    if isinstance(exc, asyncio.CancelledError):
        return GONE
    category = classify(exc).value
    return 504 if "timeout" in category else 502, category


class Incoming:
    """The bytes of a reply as they pass: counted, tallied, and kept for the ledger.

    deadline: of the event loop's clock, when all of it must be there. A file passes through, of any size, and is
    neither read along nor kept (`keep`). sent: what the client gets of it; where that is not what came, only with
    `copy`.
    """

    def __init__(self, opened: Opened, deadline: float, *, drop_usage: bool = False, copy: bool = False):
        self.reply = opened.reply
        self.tally = opened.tally
        self.keep = opened.tally.stream or opened.ended or bool(opened.head)
        self.kept = list(opened.head)
        self._usage = UsageEvents() if drop_usage and opened.tally.stream else None
        self._copy = copy and self._usage is not None
        self.sent: list[bytes] = [] if self._copy else self.kept
        self._opened = opened
        self._deadline = deadline
        self._size = sum(map(len, opened.head))
        self._patience: Patience | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What is for the client. UpstreamError where the provider fails, sends more than `MAX_REPLY_BYTES`, or is
        late."""
        # Left early, a generator within another one is closed whenever the loop comes to it, unless it is named here.
        async with aclosing(self._arriving()) as arriving:
            async for chunk in arriving:
                for_client = chunk if self._usage is None else self._usage.without(chunk)
                if for_client:
                    if self._copy:
                        self.sent.append(for_client)
                    yield for_client
        if self._usage is not None and self._usage.rest:
            if self._copy:
                self.sent.append(self._usage.rest)
            yield self._usage.rest

    async def _arriving(self) -> AsyncGenerator[bytes, None]:
        """Each chunk once."""
        for chunk in self._opened.head:
            yield chunk
        if self._opened.ended:
            return
        patience = self._patience = Patience()
        while True:
            try:
                chunk = await patience.wait(anext(self._opened.rest), self._until())
            except StopAsyncIteration:
                break
            except TimeoutError as exc:
                if self.tally.done:
                    break  # an upstream that has said [DONE] may keep its socket open; nobody waits for that
                if not patience.expired:
                    raise
                late = "the reply took longer than resilience.total_timeout_s; raise it, or ask for less"
                raise UpstreamError(late, category=ErrorCategory.TOTAL_TIMEOUT) from exc
            if self.keep:
                self._read(chunk)
            yield chunk
        self.tally.end()

    @property
    def there(self) -> bool:
        """Whether all of it came with its opening, as plain replies do: walking through it took 5 us."""
        return self._opened.ended and self._usage is None

    def _until(self) -> float:
        """When the next chunk must be there."""
        if not self.tally.done:
            return self._deadline
        return min(self._deadline, asyncio.get_running_loop().time() + AFTER_DONE_S)

    def _read(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_REPLY_BYTES:
            raise UpstreamError(f"the reply has more than {MAX_REPLY_BYTES} bytes; the rest is left")
        self.kept.append(chunk)
        self.tally.feed(chunk)

    def error(self) -> str:
        """What the whole body says of the call: '' for a completion, else an ErrorCategory value."""
        category = upstream_category(self.reply.status, self.tally.code)
        if category is None and self.keep and not self.tally.complete:
            category = ErrorCategory.STREAM_CUT if self.tally.stream else ErrorCategory.RESPONSE_MALFORMED
        return category.value if category is not None else ""

    async def close(self) -> None:
        """Give the connection back, or break it off so that the upstream stops."""
        if self._patience is not None:
            self._patience.close()
        await self.reply.chunks.aclose()


class UsageEvents:
    """Takes the events of a chat stream out that hold the count alone, which the client has not asked for."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._last = b""

    @property
    def rest(self) -> bytes:
        """What came of an event that is not whole."""
        return b"".join(self._waiting)

    def without(self, chunk: bytes) -> bytes:
        """What of the events that are whole by now is for the client; event borders may fall anywhere."""
        if not self._waiting and b"usage" not in chunk and chunk.endswith(b"\n\n"):
            return chunk  # nearly all of them: looking for their choices took a tenth of a stream
        seen = self._last + chunk
        if b"\n\n" not in seen and b"\r\n\r\n" not in seen:
            self._last = seen[-3:]
            self._waiting.append(chunk)
            return b""
        data = b"".join((*self._waiting, chunk))
        self._waiting, self._last = [], b""
        if not data.endswith(b"\n\n"):
            border = max(at + len(end) for end in (b"\n\n", b"\r\n\r\n") if (at := data.rfind(end)) >= 0)
            self._waiting, self._last = [data[border:]], data[border:][-3:]
            data = data[:border]
        if not _NO_CHOICES.search(data):
            return data
        return b"".join(event for event in _EVENT.findall(data) if not _counts_only(event))


def _counts_only(event: bytes) -> bool:
    if not _NO_CHOICES.search(event):
        return False
    try:
        said = msgspec.json.decode(event.strip().removeprefix(b"data:"), type=_Counted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return said.usage is not None and said.choices == []


class _Counted(msgspec.Struct):
    choices: Any = None
    usage: Any = None


async def whole(incoming: Incoming, record: Record) -> bytes:
    """The whole reply, after its commit. Whatever happens is recorded first and the upstream closed."""
    try:
        if not incoming.there:
            async for _ in incoming.chunks():
                pass
        ended = incoming.reply.status, incoming.error()
        await incoming.close()
    except BaseException as exc:
        await asyncio.shield(_over(incoming, record, *ending(exc)))
        raise
    await record(*ended)
    return b"".join(incoming.kept)


async def _over(incoming: Incoming, record: Record, status: int, error: str) -> None:
    """Close the upstream and record the call, both, whoever leaves meanwhile."""
    await incoming.close()
    await record(status, error)


class Stream:
    """A streamed reply. What holds `[DONE]` waits for the commit; a stream that breaks ends with an error event.

    spoil: writes the event that says so, for a cause. Close it, also if it was never begun: then the upstream is
    stopped and the call recorded as left.
    """

    def __init__(self, incoming: Incoming, record: Record, spoil: Callable[[str], bytes]):
        self._spoil = spoil
        self._incoming = incoming
        self._record = record
        self._recorded = False
        self._held = b""
        self._border = b"\n"
        self._events = self._run()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        return await self._events.__anext__()

    async def aclose(self) -> None:
        """End it here. A second call does nothing."""
        await self._events.aclose()
        await self._end(GONE[1])

    async def _run(self) -> AsyncGenerator[bytes, None]:
        error = ""
        try:
            async with aclosing(self._incoming.chunks()) as chunks:
                async for chunk in chunks:
                    passed = self._passed(chunk)
                    if passed:
                        yield passed
            error = self._incoming.error()
        except UpstreamError as exc:
            error = classify(exc).value
        except GeneratorExit:
            raise  # `aclose` records it: a generator that is closed may not wait
        except BaseException as exc:
            await self._end(ending(exc)[1])
            raise
        await self._end(error)
        last = self._last_words(error) if error else self._held
        if last:
            yield last

    def _passed(self, chunk: bytes) -> bytes:
        """What may leave at once; the end waits for the commit, of a file the last that there is."""
        if not self._incoming.keep:
            chunk, self._held = self._held, chunk
        elif self._incoming.tally.done:
            self._held += chunk
            return b""
        self._border = chunk or self._border
        return chunk

    def _last_words(self, error: str) -> bytes:
        """What is left where the stream broke off: never a false `[DONE]`."""
        if not self._incoming.keep:
            raise UpstreamError(f"the file ended early: {error}", category=ErrorCategory(error))
        before = _DONE.split(self._held)[0]
        line_break = b"" if (self._border + before).endswith(b"\n") else b"\n\n"
        spoiled = self._spoil(error)
        return before + line_break + spoiled if spoiled else before

    async def _end(self, error: str) -> None:
        if not self._recorded:
            self._recorded = True
            await asyncio.shield(_over(self._incoming, self._record, self._incoming.reply.status, error))


class Once:
    """A reply that is there already, as chunks."""

    def __init__(self, body: bytes):
        self._left = [body]

    def take(self) -> bytes:
        """All that is left."""
        body, self._left = b"".join(self._left), []
        return body

    def __aiter__(self) -> Once:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()

    async def aclose(self) -> None:
        """Nothing is held open."""
        self._left.clear()


def error_event(category: str) -> bytes:
    """An error inside a stream that has begun: never a false `[DONE]`."""
    name = category.encode()
    return b'data: {"error": {"message": "the stream ended early: %s", "type": "upstream_error", "code": "%s"}}\n\n' % (
        name,
        name,
    )
