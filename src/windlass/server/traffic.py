"""What this process answers, counted as it leaves: a status, a stream that opens, a limit that refused.

The only part of the metrics that costs a request anything: about a microsecond (tests/unit/server/test_traffic.py).
"""

from __future__ import annotations

from bisect import bisect_left

from windlass.server.asgi import Event
from windlass.watch.metrics.figures import OVERHEAD_BOUNDS_S

CALLS, PAGES = "calls", "pages"
_OVERHEAD = b"x-windlass-overhead-ms"
_STREAM = b"text/event-stream"


class Traffic:
    """Counts of one process, moved on its event loop alone."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.streams = {CALLS: 0, PAGES: 0}
        self.responses: dict[int, int] = {}
        self.refused: dict[str, int] = {}
        self.overhead = [0] * (len(OVERHEAD_BOUNDS_S) + 1)
        self.overhead_s = 0.0

    def answered(self, start: Event) -> bool:
        """A response begins; whether it is an event stream, which `start` says as it does our own overhead."""
        status = start["status"]
        self.responses[status] = self.responses.get(status, 0) + 1
        for name, value in start.get("headers", ()):
            if name == b"content-type":
                if value.startswith(_STREAM):
                    return True
            elif name == _OVERHEAD:
                took_s = float(value) / 1000
                self.overhead[bisect_left(OVERHEAD_BOUNDS_S, took_s)] += 1
                self.overhead_s += took_s
        return False

    def refuse(self, limit: str) -> None:
        """A limit left no room for a call. Limits have their names from the settings, or one of three of keys."""
        self.refused[limit] = self.refused.get(limit, 0) + 1

    def cumulative(self) -> tuple[int, ...]:
        """How many calls took at most each of `OVERHEAD_BOUNDS_S`."""
        counts, seen = [], 0
        for count in self.overhead[:-1]:
            seen += count
            counts.append(seen)
        return tuple(counts)
