"""The program with a watchdog in its event loop: `python watched.py REPORT COMMAND...`.

Every millisecond the loop notes how much processor time its thread has used since the last note, and how long it was
away although nobody else had the processor (Linux: `schedstat` tells how long a thread that could run had to wait).
What other processes of a busy machine take counts for neither. The worst of each tenth of a second goes to REPORT.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

import uvloop

from windlass.cli import main

EVERY_S = 0.001
BUCKET_S = 0.1


class Watchdog:
    """worst: by tenths of a second since boot, (milliseconds of processor time, milliseconds away)."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._schedstat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self.worst: dict[int, tuple[float, float]] = {}
        self._last = self._now()

    def _now(self) -> tuple[float, float, float]:
        """(processor time, time, time in the queue for the processor) of this thread, in seconds."""
        return time.thread_time(), time.monotonic(), int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9

    def note(self) -> None:
        """Note, and come again."""
        now = self._now()
        used, passed, queued = (after - before for after, before in zip(now, self._last, strict=True))
        bucket = int(now[1] / BUCKET_S)
        cpu_ms, away_ms = self.worst.get(bucket, (0.0, 0.0))
        self.worst[bucket] = max(cpu_ms, used * 1000), max(away_ms, (passed - queued - EVERY_S) * 1000)
        self._last = now
        self._loop.call_later(EVERY_S, self.note)


def watched() -> int:
    """Run the command; returns its exit code."""
    dogs: list[Watchdog] = []
    make = uvloop.new_event_loop

    def made() -> uvloop.Loop:
        loop = make()
        dogs.append(Watchdog(loop))
        loop.call_soon(dogs[-1].note)
        return loop

    uvloop.new_event_loop = made  # type: ignore[assignment]
    report, *command = sys.argv[1:]
    code = main(command)
    Path(report).write_text(json.dumps([dog.worst for dog in dogs]))
    return code


if __name__ == "__main__":
    sys.exit(watched())
