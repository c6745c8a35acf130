"""Group commit: many callers, one writer thread, one transaction per batch.

A durable caller waits for the commit that holds its rows; telemetry waits at most `TELEMETRY_DELAY_S`. While one
batch is being committed the next one gathers, so that throughput rises with load (DeWitt et al. 1984, "group commit").
What stands in a journal is durable before its commit: nobody waits for that, and it comes as late as telemetry's.
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
from enum import Enum, auto
from itertools import accumulate
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from windlass.errors import ErrorCategory, LedgerError

T = TypeVar("T")


class _Mark(Enum):
    KEPT = auto()


KEPT: Final = _Mark.KEPT
Waiter: TypeAlias = Future[int] | asyncio.Future[int] | Literal[_Mark.KEPT] | None
"""Who is told of a commit: a thread, a task of an event loop, or nobody; KEPT: nobody, it stands in the journal."""
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


class Kept(Protocol):
    """A journal, as far as commits have to do with it; see journal.py."""

    @property
    def waiting(self) -> bool: ...

    def append(self, data: bytes) -> bool: ...

    def turn(self) -> None: ...

    def done(self, count: int) -> None: ...

    def rest(self) -> None: ...


class GroupCommit(Generic[T]):
    """Gathers items and hands them, in order, to `write`, which commits them and returns the ledger's new head.

    A batch that fails fails its durable callers with the same exception; its telemetry is tried again with the
    next batch, up to `TELEMETRY_KEPT` items (then the oldest are dropped and counted in `dropped`). What stands in the
    journal is never dropped; while it cannot be committed, nothing more is taken by `keep`.
    """

    def __init__(self, write: Callable[[Sequence[T]], int], journal: Kept | None = None):
        self.dropped = 0
        self._write = write
        self._journal = journal
        self._failing = False
        self._left = False
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

    def keep(self, items: tuple[T, ...], record: bytes) -> bool:
        """Write `record`, which stands for `items`, to the journal, and commit them later. False, and nothing done,
        where there is no journal, or it takes none now."""
        with self._changed:
            if self._closed or self._failing or self._journal is None or not self._journal.append(record):
                return False
            self._waiting.append((KEPT, items))
            if self._due_s is None:
                self._due_s = time.monotonic() + TELEMETRY_DELAY_S
                self._changed.notify()
        return True

    def flush(self) -> None:
        """Return once what stood in the journal is committed, or could not be. Not for the event loop of a server."""
        journal, here = self._journal, threading.current_thread()
        if journal is None or not journal.waiting or self._failing or here is self._thread:
            return
        try:
            self.submit((), durable=True).result()
        except Exception:  # noqa: BLE001 (whoever has something to lose by it hears of it; this one wants to look)
            if self._closed:  # the last commit is under way
                self._thread.join()

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
                if self._journal is not None:
                    self._journal.turn()
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
        if self._journal is not None:
            self._settle(self._journal, sum(waiter is KEPT for waiter, _ in batch))
        _tell([waiter for waiter, _ in batch], head, None)

    def _settle(self, journal: Kept, count: int) -> None:
        """So many items of the journal are committed, the oldest; unless older ones were left to the next process,
        which finds out by their ids which of them are there."""
        if self._left:
            return
        journal.done(count)
        with self._changed:
            self._failing = False
            journal.rest()

    def _failed(self, batch: list[tuple[Waiter, tuple[T, ...]]], exc: Exception) -> None:
        again = [entry for entry in batch if entry[0] is None or entry[0] is KEPT]
        telemetry = sum(waiter is None for waiter, _ in again)
        with self._changed:
            self._failing = True
            if self._closed:  # what stands in the journal is there for the next process
                self._left = self._left or len(again) > telemetry
                again, lost = [], telemetry
            else:
                lost = max(0, telemetry - TELEMETRY_KEPT) if telemetry == len(again) else 0
            self.dropped += lost
            self._waiting[:0] = again[lost:]
            if self._waiting and self._due_s is None:
                self._due_s = time.monotonic() + TELEMETRY_DELAY_S
        # Last: whoever hears of it finds that nothing more is kept.
        _tell([waiter for waiter, _ in batch], 0, exc)


def _wanted(waiter: Waiter) -> bool:
    """Whether somebody still waits for what was queued; telemetry nobody waits for is wanted always."""
    if isinstance(waiter, Future):
        return waiter.set_running_or_notify_cancel()
    return waiter is None or waiter is KEPT or not waiter.cancelled()


def _tell(waiters: Sequence[Waiter], head: int, failed: Exception | None) -> None:
    """Tell all who wait: the threads one by one, each event loop with one call."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[int]]] = defaultdict(list)
    for waiter in waiters:
        if isinstance(waiter, Future):
            _end(waiter, head, failed)
        elif waiter is not None and waiter is not KEPT:
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
