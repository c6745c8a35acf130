"""Server-sent events: tell open pages that the ledger has moved, no more than that.

The ledger's head is the id of an event, so a browser that comes back with `Last-Event-ID` hears at once whether it
missed something, and every worker gives the same ids. A stream holds one head and no queue: a slow browser skips to the
newest. Source: HTML Living Standard, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from windlass.errors import LedgerError
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import asgi

log = structlog.get_logger(__name__)
TICK_S = 0.2
POLL_S = 2.0
REST_S = 0.05
HEARTBEAT_S = 15.0
FOLD_WAIT_S = 2.0
RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": still here\n\n"


@dataclass
class Listeners:
    """The open streams of one scope: the head they were told last, how far the ledger was searched, a bell for each."""

    head: int
    searched: int
    bells: set[asyncio.Event] = field(default_factory=set)


class Streams:
    """The open event streams of this process. `stopping` says that the server is about to end."""

    def __init__(self, runtime: Runtime, stopping: Callable[[], bool]):
        self._runtime = runtime
        self._stopping = stopping
        self._audiences: dict[Scope, Listeners] = {}
        self._committed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._follower: asyncio.Task[None] | None = None
        runtime.ledger.on_commit(self._on_commit)

    async def send(
        self, owner: Scope, last_id: str, receive: asgi.Receive, send: asgi.Send, *, welcome: Callable[[], bool]
    ) -> None:
        """Feed one browser until it leaves, the server stops or `welcome` turns false."""
        headers = (("cache-control", "no-store"), ("x-accel-buffering", "no"))
        await asgi.start(send, 200, "text/event-stream; charset=utf-8", headers)
        await _write(send, RETRY)
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            with self._listening(owner) as (audience, bell):
                heard = int(last_id) if last_id.isascii() and last_id.isdecimal() and len(last_id) < 19 else -1
                while not leaving.done() and not self._stopping() and welcome():
                    if audience.head != heard:
                        heard = audience.head
                        await _write(send, b"event: head\nid: %d\ndata: %d\n\n" % (heard, heard))
                    await self._wait(bell, leaving, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()

    async def _wait(self, bell: asyncio.Event, leaving: asyncio.Future[None], send: asgi.Send) -> None:
        ringing = asyncio.ensure_future(bell.wait())
        try:
            done, _ = await asyncio.wait((ringing, leaving), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ringing.cancel()
        bell.clear()
        if not done:
            await _write(send, HEARTBEAT)

    @contextlib.contextmanager
    def _listening(self, owner: Scope) -> Iterator[tuple[Listeners, asyncio.Event]]:
        """A place in the scope's audience; the first listener starts the follower, the last one ends it."""
        bell, cursor = asyncio.Event(), self._runtime.overview.cursor
        audience = self._audiences.setdefault(owner, Listeners(cursor, cursor))
        audience.bells.add(bell)
        if self._follower is None or self._follower.done():
            self._loop = asyncio.get_running_loop()
            self._follower = asyncio.create_task(self._follow())
        try:
            yield audience, bell
        finally:
            audience.bells.discard(bell)
            if not audience.bells:
                self._audiences.pop(owner, None)

    async def _follow(self) -> None:
        """Ring the bells of the scopes that have something new, until nobody listens."""
        seen = self._runtime.overview.cursor
        waited_s = POLL_S
        while self._audiences and not self._stopping():
            # Commits of other processes do not ring here, so the head is also looked up now and then.
            if self._committed.is_set() or waited_s >= POLL_S:
                self._committed.clear()
                waited_s = 0.0
                seen = await self._announce(seen)
                await asyncio.sleep(REST_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._committed.wait(), TICK_S)
            waited_s += TICK_S
        for audience in self._audiences.values():
            _ring(audience)

    async def _announce(self, seen: int) -> int:
        """Tell each scope that has records after `seen`; returns the head that was told."""
        try:
            head = await asyncio.to_thread(self._runtime.ledger.head)
            if head <= seen:
                return seen
            await self._folded(head)
            for owner, audience in tuple(self._audiences.items()):
                moved = audience.searched < head and await asyncio.to_thread(self._moved, owner, audience.searched)
                audience.searched = max(audience.searched, head)
                if moved:
                    audience.head = head
                    _ring(audience)
        except LedgerError as exc:
            log.warning("events_wait", reason=str(exc))
            return seen
        return head

    async def _folded(self, head: int) -> None:
        """Have the overview see `head`, so that a page fetched on the event shows it."""
        if self._runtime.overview.cursor < head:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLD_WAIT_S):
                    await self._runtime.caught_up()

    def _moved(self, owner: Scope, after: int) -> bool:
        return bool(self._runtime.ledger.read(owner, after=after, limit=1))

    def _on_commit(self) -> None:
        """Called from the committing thread."""
        if self._loop is not None and self._audiences:
            with contextlib.suppress(RuntimeError):  # the loop has closed since: nobody listens any more
                self._loop.call_soon_threadsafe(self._committed.set)


def _ring(audience: Listeners) -> None:
    for bell in audience.bells:
        bell.set()


async def _write(send: asgi.Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _gone(receive: asgi.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
