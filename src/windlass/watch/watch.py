"""What keeps the tables of outcomes and budgets level with the ledger, off every call's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from windlass.errors import LedgerError
from windlass.gateway.options import LimitOptions
from windlass.ledger.db import Database
from windlass.watch.outcomes.store import OutcomeTables
from windlass.watch.spending.budgets import windows
from windlass.watch.spending.store import Spending

log = structlog.get_logger(__name__)
EVERY_S = 1.0
SAMPLE_EVERY_S = 30.0
AT_ONCE = 20_000
"""Outcomes that are folded in one go: about half a second."""


class Watch:
    """The tables, and the task that fills them.

    settled: the place up to which all entries are known. limits: those of the settings and of the keys, as they are.
    clock: UTC seconds.
    """

    def __init__(
        self,
        db: Database,
        *,
        settled: Callable[[], int],
        limits: Callable[[], Iterable[LimitOptions]],
        clock: Callable[[], float],
    ):
        self.outcomes = OutcomeTables(db)
        self.spending = Spending(db)
        self._settled = settled
        self._limits = limits
        self._clock = clock

    def catch_up(self, most: int | None = None) -> bool:
        """Fold the outcomes that are settled, about `most` of them at most, and write what limits refused.

        Returns whether more are waiting.
        """
        more = self.outcomes.catch_up(self._settled(), most)
        self.spending.flush()
        return more

    def sample(self) -> None:
        """Note how far each budget is used up."""
        now = self._clock()
        self.spending.sample(windows(self._limits(), now), now)

    async def run(self) -> None:
        """Catch up again and again, until cancelled. A database that is away is tried again."""
        sampled_at = 0.0
        while True:
            try:
                # In parts, between which whoever stops the server gets a turn: millions of rows may be waiting.
                more = await asyncio.to_thread(self.catch_up, AT_ONCE)
                if self._clock() - sampled_at >= SAMPLE_EVERY_S:
                    sampled_at = self._clock()
                    await asyncio.to_thread(self.sample)
                if more:
                    continue
            except LedgerError as exc:
                log.error("watching_waits", reason=str(exc))
            await asyncio.sleep(EVERY_S)
