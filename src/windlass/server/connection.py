"""uvicorn's connection, which tells a request that its client has left.

ASGI says so through `receive`, which takes a task of its own for each request; where a request is answered in a few
hundred microseconds, making it, waking it and ending it are a noticeable part of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from windlass.server.asgi import Scope

_NAME: Final = "windlass.connection"
MOST_WAITING, MOST_WAITING_BYTES = 8, 65_536
"""Requests, and bytes of a body, that a connection takes in behind one that is being answered."""


class Connection(HttpToolsProtocol):
    """One connection; it stands among the `extensions` of its requests (ASGI 3.0, "Extensions")."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._watching: set[Callable[[], None]] = set()
        self._open: list[RequestResponseCycle] = []
        self._lost = False

    def watch(self, stop: Callable[[], None]) -> None:
        """Call `stop` when the client leaves, at once where it has left."""
        if self._lost:
            stop()
            return
        self._watching.add(stop)
        self.flow.resume_reading()  # a body that came in haste paused it, and nobody would see the client leave

    def unwatch(self, stop: Callable[[], None]) -> None:
        """It need not be called any more."""
        self._watching.discard(stop)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_NAME: self}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None:
            self._open = [cycle for cycle in self._open if not cycle.response_complete]
            self._open.append(self.cycle)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A request that waits behind another pauses reading; so long as little waits, a client is still seen to leave.
        waiting = len(self.cycle.body) if self.cycle is not None else 0
        if self._watching and len(self.pipeline) <= MOST_WAITING and waiting <= MOST_WAITING_BYTES:
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in self._open:  # of those that wait one behind another uvicorn tells the last alone
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        self._lost = True
        while self._watching:
            self._watching.pop()()


def connection_of(scope: Scope) -> Connection | None:
    """The connection that a request came over; None where another server serves."""
    found = scope.get("extensions", {}).get(_NAME)
    return found if isinstance(found, Connection) else None
