"""Group commit: many callers, one writer thread, one transaction per batch.

A durable caller waits for the commit that holds its rows; telemetry waits at most `TELEMETRY_DELAY_S`. While one
batch is being committed the next one gathers, so that throughput rises with load (DeWitt et al. 1984, "group commit").
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import Final, Generic, NamedTuple, TypeVar

from windlass.errors import ErrorCategory, LedgerError

T = TypeVar("T")
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
        self._waiting: list[tuple[Future[int] | None, tuple[T, ...]]] = []
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
        with self._changed:
            if self._closed:
                raise LedgerError("the ledger is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
            self._waiting.append((future if durable else None, items))
            if durable:
                self._due_s = 0.0
            elif self._due_s is None:
                self._due_s = time.monotonic() + TELEMETRY_DELAY_S
            self._changed.notify()
        if not durable:
            future.set_result(0)
        return future

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
            self._commit([entry for entry in batch if entry[0] is None or entry[0].set_running_or_notify_cancel()])
            took_s = time.monotonic() - began
            self._took[bisect_left(COMMIT_BOUNDS_S, took_s)] += 1
            self._took_s += took_s

    def _ready(self) -> bool:
        return self._closed or (self._due_s is not None and time.monotonic() >= self._due_s)

    def _patience_s(self) -> float | None:
        return None if self._due_s is None else max(0.0, self._due_s - time.monotonic())

    def _commit(self, batch: list[tuple[Future[int] | None, tuple[T, ...]]]) -> None:
        try:
            head = self._write([item for _, items in batch for item in items])
        except Exception as exc:  # noqa: BLE001 (whatever the database raised belongs to the waiting callers)
            self._failed(batch, exc)
            return
        for future, _ in batch:
            if future is not None:
                future.set_result(head)

    def _failed(self, batch: list[tuple[Future[int] | None, tuple[T, ...]]], exc: Exception) -> None:
        telemetry = [(None, items) for future, items in batch if future is None]
        for future, _ in batch:
            if future is not None:
                future.set_exception(exc)
        with self._changed:
            lost = max(0, len(telemetry) - TELEMETRY_KEPT) if not self._closed else len(telemetry)
            self.dropped += lost
            self._waiting[:0] = telemetry[lost:]
            if self._waiting and self._due_s is None:
                self._due_s = time.monotonic() + TELEMETRY_DELAY_S
