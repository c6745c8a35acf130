"""Group commit: many callers, one writer thread, one transaction per batch.

A durable caller waits for the commit that holds its rows; telemetry waits at most `TELEMETRY_DELAY_S`. While one
batch is being committed the next one gathers, so that throughput rises with load (DeWitt et al. 1984, "group commit").
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import accumulate
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from windlass.errors import ErrorCategory, LedgerError

T = TypeVar("T")
Waiter: TypeAlias = Future[int] | asyncio.Future[int] | None
"""Who is told of a commit: a thread, a task of an event loop, or nobody."""
TELEMETRY_DELAY_S = 0.05
TELEMETRY_KEPT = 10_000
BATCH = 2048
COMMIT_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Pace(NamedTuple):
    """How the writer keeps up. waiting: appends in the queue; at_most: commits that took at most each of
    `COMMIT_BOUNDS_S`; commits, took_s: all of them, those that failed too."""

    waiting: int
    at_most: tuple[int, ...]
    commits: int
    took_s: float


class GroupCommit(Generic[T]):
    """Gathers items and hands them, in order, to `write`, which commits them and returns the ledger's new head.

    A batch that fails fails its durable callers with the same exception; its telemetry is tried again with the
    next batch, up to `TELEMETRY_KEPT` items (then the oldest are dropped and counted in `dropped`).
    """

    def __init__(self, write: Callable[[Sequence[T]], int]):
        self.dropped = 0
        self._write = write
        self._waiting: list[tuple[Waiter, tuple[T, ...]]] = []
        self._due_s: float | None = None
        self._closed = False
        self._took = [0] * (len(COMMIT_BOUNDS_S) + 1)
        self._took_s = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ledger-commit", daemon=True)
        self._thread.start()

    def submit(self, items: tuple[T, ...], *, durable: bool) -> Future[int]:
        """Queue `items`; the future ends with the head once they are committed (at once for telemetry)."""
        future: Future[int] = Future()
        self._queue(future if durable else None, items)
        if not durable:
            future.set_result(0)
        return future

    def begin(self, items: tuple[T, ...]) -> asyncio.Future[int]:
        """`submit` of what is durable for the running event loop, which hears of a whole batch at once: a call into
        the loop, and two futures chained, were a noticeable part of each append."""
        future = asyncio.get_running_loop().create_future()
        self._queue(future, items)
        return future

    def _queue(self, waiter: Waiter, items: tuple[T, ...]) -> None:
        with self._changed:
            if self._closed:
                raise LedgerError("the ledger is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
            self._waiting.append((waiter, items))
            if waiter is not None:
                self._due_s = 0.0
            elif self._due_s is None:
                self._due_s = time.monotonic() + TELEMETRY_DELAY_S
            self._changed.notify()

    @property
    def pace(self) -> Pace:
        """How the writer keeps up, since it began."""
        return Pace(len(self._waiting), tuple(accumulate(self._took[:-1])), sum(self._took), self._took_s)

    def close(self) -> None:
        """Commit what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ready():
                    self._changed.wait(self._patience_s())
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._due_s = 0.0 if self._waiting else None
                if not batch:
                    return
            began = time.monotonic()
            self._commit([entry for entry in batch if _wanted(entry[0])])
            took_s = time.monotonic() - began
            self._took[bisect_left(COMMIT_BOUNDS_S, took_s)] += 1
            self._took_s += took_s

    def _ready(self) -> bool:
        return self._closed or (self._due_s is not None and time.monotonic() >= self._due_s)

    def _patience_s(self) -> float | None:
        return None if self._due_s is None else max(0.0, self._due_s - time.monotonic())

    def _commit(self, batch: list[tuple[Waiter, tuple[T, ...]]]) -> None:
        try:
            head = self._write([item for _, items in batch for item in items])
        except Exception as exc:  # noqa: BLE001 (whatever the database raised belongs to the waiting callers)
            self._failed(batch, exc)
            return
        _tell([waiter for waiter, _ in batch], head, None)

    def _failed(self, batch: list[tuple[Waiter, tuple[T, ...]]], exc: Exception) -> None:
        telemetry: list[tuple[Waiter, tuple[T, ...]]] = [(None, items) for waiter, items in batch if waiter is None]
        _tell([waiter for waiter, _ in batch], 0, exc)
        with self._changed:
            lost = max(0, len(telemetry) - TELEMETRY_KEPT) if not self._closed else len(telemetry)
            self.dropped += lost
            self._waiting[:0] = telemetry[lost:]
            if self._waiting and self._due_s is None:
                self._due_s = time.monotonic() + TELEMETRY_DELAY_S


def _wanted(waiter: Waiter) -> bool:
    """Whether somebody still waits for what was queued; telemetry nobody waits for is wanted always."""
    if isinstance(waiter, Future):
        return waiter.set_running_or_notify_cancel()
    return waiter is None or not waiter.cancelled()


def _tell(waiters: Sequence[Waiter], head: int, failed: Exception | None) -> None:
    """Tell all who wait: the threads one by one, each event loop with one call."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[int]]] = defaultdict(list)
    for waiter in waiters:
        if isinstance(waiter, Future):
            _end(waiter, head, failed)
        elif waiter is not None:
            loops[waiter.get_loop()].append(waiter)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # a loop that was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(_tell_here, futures, head, failed)


def _tell_here(futures: Sequence[asyncio.Future[int]], head: int, failed: Exception | None) -> None:
    for future in futures:
        if not future.done():
            _end(future, head, failed)


def _end(future: Future[int] | asyncio.Future[int], head: int, failed: Exception | None) -> None:
    if failed is None:
        future.set_result(head)
    else:
        future.set_exception(failed)
