"""`/metrics`: the whole deployment through any of its workers, without the name of a tenant, a user or a key.

Sums come from the ledger, and so are the same whoever is asked. What lives in the memory of one worker has its name as
a label; workers that share a database tell each other these figures through it, every `TELL_EVERY_S`.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from windlass.errors import AccessError, ErrorCategory, LedgerError
from windlass.gateway.access.admission import Caller, require
from windlass.gateway.access.limits import USD, window
from windlass.gateway.resilience.breaker import BreakerState
from windlass.ledger.ledger import Snapshot
from windlass.records import DEFAULT_TENANT
from windlass.runtime import Runtime
from windlass.server.readiness import CHECKS, Readiness
from windlass.server.traffic import Traffic
from windlass.watch.metrics.figures import (
    MOST_BREAKERS_TOLD,
    STATES,
    BreakerFigure,
    LimitFigure,
    WorkerFigures,
    process,
)

if TYPE_CHECKING:
    from windlass.watch.metrics.exposition import BudgetFigure
    from windlass.watch.metrics.store import Reckoning
    from windlass.watch.metrics.sums import LedgerSums

log = structlog.get_logger(__name__)
SCOPE: Final = "metrics"
"""Among the endpoints of a key: it may scrape."""
TELL_EVERY_S: Final = 2.0
HEARD_S: Final = 10.0
"""Figures that are older are not shown: their worker has left, or hangs."""
COUNTING_S: Final = 2.0
"""A scrape counts the ledger for so long at most; the next one goes on."""
_TOLD: Final = 1  # the version of what workers tell each other


class Metrics:
    """What one process shows, of itself and of all."""

    def __init__(self, runtime: Runtime, traffic: Traffic, readiness: Readiness):
        self._runtime = runtime
        self._traffic = traffic
        self._readiness = readiness
        self._reckoning: Reckoning | None = None
        self._first = threading.Lock()
        self._started = runtime.clock()
        self._shared = runtime.db.dialect != "sqlite"

    async def text(self, accept: str = "") -> tuple[str, bytes]:
        """(content type, everything in the format that a scraper accepts)."""
        failing = await self._readiness.reasons()
        own = await self.figures()
        return await asyncio.to_thread(self._rendered, own, failing, accept)

    async def figures(self) -> WorkerFigures:
        """This worker as it is now."""
        # Breakers move on the event loop; the rest can be read beside it.
        breakers = self._runtime.gateway.resilience.breakers.state()
        return await asyncio.to_thread(self._figures, breakers)

    async def tell(self) -> None:
        """Leave this worker's figures where the others find them, until cancelled; alone there is nobody to tell."""
        while self._shared:
            try:
                own = await self.figures()
                await asyncio.to_thread(self._runtime.ledger.save_snapshot, _told(own))
            except LedgerError as exc:
                log.error("metrics_wait", reason=str(exc))
            await asyncio.sleep(TELL_EVERY_S)

    def _figures(self, breakers: Sequence[BreakerState]) -> WorkerFigures:
        traffic, runtime = self._traffic, self._runtime
        shown = sorted(BreakerFigure(one.provider, one.model, STATES.index(one.state)) for one in breakers)
        shown.sort(key=lambda one: -one.state)
        return WorkerFigures(
            worker=runtime.worker,
            at=runtime.clock(),
            started=self._started,
            in_flight=traffic.in_flight,
            streams=dict(traffic.streams),
            responses=dict(traffic.responses),
            refused=dict(traffic.refused),
            overhead=traffic.cumulative(),
            overhead_calls=sum(traffic.overhead),
            overhead_s=traffic.overhead_s,
            breakers=tuple(shown[:MOST_BREAKERS_TOLD]),
            limits=tuple(sorted(_limits(runtime))),
            pace=runtime.ledger.pace,
            process=process(),
        )

    def _rendered(self, own: WorkerFigures, failing: dict[str, str], accept: str) -> tuple[str, bytes]:
        from windlass.watch.metrics.exposition import Exposition, Scraped, rendered

        runtime, told = self._runtime, [own]
        budgets: list[BudgetFigure] = []
        lags: dict[str, float] = {}
        there = "database" not in failing
        try:
            if there:
                told += self._others()
                budgets = list(_budgets(runtime))
                lags = runtime.lags() or {runtime.worker: self._readiness.lag_s()}
        except LedgerError as exc:  # what needs no database is shown all the same
            log.error("metrics_without_ledger", reason=str(exc))
        scraped = Scraped(
            workers=told,
            budgets=budgets,
            lags=lags,
            write_s=self._readiness.write_s,
            failing=failing,
            checks=CHECKS,
            disk_free_bytes=_disk_free(runtime),
            version=version("windlass"),
            database=runtime.db.dialect,
        )
        found: list[tuple[str, bytes]] = []

        def tell(sums: LedgerSums) -> None:
            found.append(rendered(Exposition(scraped, sums), accept))

        try:
            if there:
                self._counted().read(COUNTING_S, tell)
        except LedgerError as exc:
            log.error("metrics_without_ledger", reason=str(exc))
        return found[0] if found else rendered(Exposition(scraped, None), accept)

    def _counted(self) -> Reckoning:
        """What counts the ledger, from the first scrape on."""
        from windlass.watch.metrics.store import Reckoning

        with self._first:
            runtime = self._runtime
            self._reckoning = self._reckoning or Reckoning(runtime.db, runtime.ledger, runtime.clock)
            return self._reckoning

    def _others(self) -> Iterator[WorkerFigures]:
        """The other living workers, as they told last."""
        runtime = self._runtime
        for worker in runtime.workers() if self._shared else ():
            kept = None if worker.name == runtime.worker else runtime.ledger.snapshot(_place(worker.name), _TOLD)
            if kept is not None and runtime.clock() - kept.at < HEARD_S:
                try:
                    yield msgspec.json.decode(kept.state, type=WorkerFigures)
                except msgspec.MsgspecError as exc:  # a worker of another release
                    log.error("figures_unread", worker=worker.name, reason=str(exc))


def allow(caller: Caller) -> None:
    """AccessError unless a caller may see sums over all tenants.

    They name nobody, yet one tenant's operator learns nothing of the others from them: they are the business of the
    deployment's owner, who is the tenant `default`. That no row is read across tenants for it is why a scrape, which
    comes every few seconds, leaves no row in the audit trail; whoever is refused does.
    """
    require(caller, "operator")
    if caller.key and caller.scope.tenant != DEFAULT_TENANT:
        has = f"key {caller.key!r} is of tenant {caller.scope.tenant!r}; /metrics takes one of {DEFAULT_TENANT!r}"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
    if caller.endpoints and SCOPE not in caller.endpoints:
        has = f"key {caller.key!r} is for {', '.join(caller.endpoints)}, not for {SCOPE}"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)


def _told(own: WorkerFigures) -> Snapshot:
    """Figures as they are kept: one row of each worker, which the next ones replace."""
    return Snapshot(projection=_place(own.worker), version=_TOLD, cursor=0, at=own.at, state=msgspec.json.encode(own))


_place = partial("worker {}".format)


def _limits(runtime: Runtime) -> Iterator[LimitFigure]:
    """Of each limit and measure but budgets, which are read from the database, the fullest count."""
    now, fullest = runtime.clock(), dict[tuple[str, str], float]()
    for count in runtime.gateway.limits.counts():
        name, measure = count.place.limit, count.place.measure
        if measure != "nusd" and count.ends > now:
            share = (count.used + count.held) / count.most if count.most else 1.0
            fullest[name, measure] = max(share, fullest.get((name, measure), 0.0))
    return (LimitFigure(name, measure, share) for (name, measure), share in fullest.items())


def _budgets(runtime: Runtime) -> Iterator[BudgetFigure]:
    """The budgets of the settings in their windows of now."""
    from windlass.watch.metrics.exposition import BudgetFigure
    from windlass.watch.metrics.store import spending

    now = runtime.clock()
    limits = [limit for limit in runtime.settings.limits if limit.usd is not None]
    windows = {limit.name: window(limit.window, now) for limit in limits}
    spent = spending(runtime.db, {name: since for name, (since, _) in windows.items()})
    for limit in limits:
        most, groups = spent.get(limit.name, (0, 0))
        ends = windows[limit.name][1]
        yield BudgetFigure(
            limit.name,
            limit.window,
            round((limit.usd or 0.0) * USD),
            most,
            groups,
            ends if math.isfinite(ends) else None,
        )


def _disk_free(runtime: Runtime) -> int | None:
    try:
        return shutil.disk_usage(runtime.settings.home).free
    except OSError:
        return None
