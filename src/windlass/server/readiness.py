"""`/readyz`: whether this worker should be sent work; not where calls would fail, or be decided by what was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from windlass.errors import LedgerError, classify
from windlass.runtime import Runtime

CHECKS: Final = ("database", "migrations", "ledger", "learner", "draining")
LAG_S: Final = 10.0
"""A learner that is so far behind decides by what was."""
PATIENCE_S: Final = 3.0
FRESH_S: Final = 1.0
"""An answer stands for so long, so that nobody keeps the database busy by asking."""


class Readiness:
    """The checks of one process. stopping: whether the server was told to stop."""

    def __init__(self, runtime: Runtime, stopping: Callable[[], bool] = lambda: False):
        self._runtime = runtime
        self._stopping = stopping
        self._newest = ""
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._looked_s = -FRESH_S
        self.write_s: float | None = None

    async def reasons(self) -> dict[str, str]:
        """Why this worker is not ready, by the check that failed; empty where it is. Holds no names and no addresses:
        whoever reaches the port may ask."""
        if self._looking is None or (self._looking.done() and time.monotonic() - self._looked_s >= FRESH_S):
            self._looked_s = time.monotonic()
            self._looking = asyncio.create_task(asyncio.to_thread(self._look))
        draining = {"draining": "the server was told to stop"} if self._stopping() else {}
        try:
            return draining | await asyncio.wait_for(asyncio.shield(self._looking), PATIENCE_S)
        except TimeoutError:
            return draining | {"database": f"no answer within {PATIENCE_S:g} s"}

    def lag_s(self) -> float:
        """The age of the first record that the learner of this process has not seen, in seconds; 0 for none."""
        return self._runtime.lag_s(self._runtime.learner.cursor)

    def _look(self) -> dict[str, str]:
        # A server answers its first call before anyone asks this.
        from windlass.ledger import move
        from windlass.watch.metrics.store import write_s

        self.write_s, found = None, {}
        try:
            self._newest = self._newest or move.newest()
            at = move.version(self._runtime.db)
            lag_s = self.lag_s()
        except LedgerError as exc:
            return {"database": classify(exc).value}
        if at != self._newest:
            found["migrations"] = f"the database is at {at or 'none'}, this release at {self._newest}"
        if lag_s > LAG_S:
            found["learner"] = f"{lag_s:.0f} s behind the ledger"
        try:
            self.write_s = write_s(self._runtime.db)
        except LedgerError as exc:
            found["ledger"] = classify(exc).value
        return found
