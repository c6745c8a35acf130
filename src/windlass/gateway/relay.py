"""A reply on its way out: read along, kept, bounded, and closed however it ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable

from windlass.errors import ErrorCategory, UpstreamError, classify, upstream_category
from windlass.gateway.provider import ProviderReply
from windlass.gateway.wire import Tally

AFTER_DONE_S = 0.5
MAX_REPLY_BYTES = 64 * 1024 * 1024
_DONE = re.compile(rb"data: ?\[DONE\]")

Record = Callable[[int, str], Awaitable[None]]
"""Commit what came of the call: the status that the client gets, and an ErrorCategory value or ''."""
GONE = (499, ErrorCategory.CLIENT_GONE.value)


def ending(exc: BaseException) -> tuple[int, str]:
    """What a call that ended in `exc` is recorded as."""
    return GONE if isinstance(exc, asyncio.CancelledError) else (502, classify(exc).value)


class Incoming:
    """The bytes of a reply as they pass: counted, tallied, and kept for the ledger."""

    def __init__(self, reply: ProviderReply, tally: Tally):
        self.reply = reply
        self.tally = tally
        self.kept: list[bytes] = []
        self._size = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Each chunk once. UpstreamError where the provider fails, or sends more than `MAX_REPLY_BYTES`."""
        arriving = aiter(self.reply.chunks)
        while True:
            try:
                # An upstream that has said [DONE] may keep its socket open; nobody waits for that.
                async with asyncio.timeout(AFTER_DONE_S if self.tally.done else None):
                    chunk = await anext(arriving)
            except (StopAsyncIteration, TimeoutError):
                break
            self._size += len(chunk)
            if self._size > MAX_REPLY_BYTES:
                raise UpstreamError(f"the reply has more than {MAX_REPLY_BYTES} bytes; the rest is left")
            self.kept.append(chunk)
            self.tally.feed(chunk)
            yield chunk
        self.tally.end()

    def error(self) -> str:
        """What the whole body says of the call: '' for a completion, else an ErrorCategory value."""
        category = upstream_category(self.reply.status, self.tally.code)
        if category is None and not self.tally.complete:
            category = ErrorCategory.STREAM_CUT if self.tally.stream else ErrorCategory.RESPONSE_MALFORMED
        return category.value if category is not None else ""

    async def close(self) -> None:
        """Give the connection back, or break it off so that the upstream stops."""
        await self.reply.chunks.aclose()


async def whole(incoming: Incoming, record: Record) -> bytes:
    """The whole reply, after its commit. Whatever happens is recorded first and the upstream closed."""
    try:
        async for _ in incoming.chunks():
            pass
        ended = incoming.reply.status, incoming.error()
    except BaseException as exc:
        await incoming.close()
        await asyncio.shield(record(*ending(exc)))
        raise
    await incoming.close()
    await record(*ended)
    return b"".join(incoming.kept)


class Stream:
    """A streamed reply. What holds `[DONE]` waits for the commit; a stream that breaks ends with an error event.

    Close it, also if it was never begun: then the upstream is stopped and the call recorded as left.
    """

    def __init__(self, incoming: Incoming, record: Record):
        self._incoming = incoming
        self._record = record
        self._recorded = False
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
        error, held, last = "", b"", b"\n"
        try:
            async for chunk in self._incoming.chunks():
                if self._incoming.tally.done:
                    held += chunk
                else:
                    last = chunk
                    yield chunk
            error = self._incoming.error()
        except UpstreamError as exc:
            error = classify(exc).value
        except GeneratorExit:
            raise  # `aclose` records it: a generator that is closed may not wait
        except BaseException as exc:
            await self._end(ending(exc)[1])
            raise
        await self._end(error)
        if error:
            before = _DONE.split(held)[0]
            line_break = b"" if (last + before).endswith(b"\n") else b"\n\n"
            held = before + line_break + _error_event(error)
        if held:
            yield held

    async def _end(self, error: str) -> None:
        if not self._recorded:
            self._recorded = True
            await self._incoming.close()
            await asyncio.shield(self._record(self._incoming.reply.status, error))


class Once:
    """A reply that is there already, as chunks."""

    def __init__(self, body: bytes):
        self._left = [body]

    def __aiter__(self) -> Once:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()

    async def aclose(self) -> None:
        """Nothing is held open."""
        self._left.clear()


def _error_event(category: str) -> bytes:
    """An error inside a stream that has begun: never a false `[DONE]`."""
    name = category.encode()
    return b'data: {"error": {"message": "the stream ended early: %s", "type": "upstream_error", "code": "%s"}}\n\n' % (
        name,
        name,
    )
