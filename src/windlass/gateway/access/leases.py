"""Limits that several processes share: each counts against a part that it was lent, and asks for more when it is short.

What is lent and not yet used, together with what is committed as spent, never exceeds a limit, whoever dies when. The
part of a call that fits is checked in memory alone; a transaction is needed only where the part is too small, and twice
a second to say that this process lives. It gives back what it does not use once another one goes short.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from windlass.errors import LedgerError
from windlass.gateway.access.limits import Place, Short, Used
from windlass.gateway.access.store import LEASE_ALIVE_S, Loan

T = TypeVar("T")
log = structlog.get_logger(__name__)
TICK_S: Final = 0.5
FRESH_S: Final = LEASE_ALIVE_S / 2
"""Others may take a part back from a process that was silent for `LEASE_ALIVE_S`; it stops using it well before."""
PRUNE_EVERY_S: Final = 60.0
ASK_AGAIN_S: Final = 0.25
"""After a refusal the database is left alone for so long."""


class Table(Protocol):
    """Where the parts are kept: `LeaseTable`, or what stands in for it."""

    def take(self, asks: Sequence[Loan]) -> Mapping[Place, tuple[int, bool]]:
        """(how much more, whether others hold some of it), by place."""
        ...

    def touch(self) -> Collection[Place]:
        """Say that this process lives; where somebody went short of late."""
        ...

    def put(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        """Say what is lent and not committed, and when the window ends."""
        ...

    def prune(self) -> None:
        """Clear away what is over."""
        ...

    def leave(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        """The last word of this process."""
        ...


class Leases:
    """What this process was lent of each limit. clock: UTC seconds; monotonic: seconds that nobody sets."""

    def __init__(
        self, table: Table, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ):
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._counts: dict[Place, Used] = {}
        self._told: dict[Place, int] = {}
        self._not_before_s: dict[Place, float] = {}
        self._confirmed_s = -math.inf
        self._pruned_s = monotonic()
        self._lock = asyncio.Lock()

    def fresh(self) -> bool:
        """Whether what was lent still stands: the others have heard of this process."""
        return self._monotonic() - self._confirmed_s < FRESH_S

    async def lend(self, short: Sequence[Short]) -> bool:
        """Ask for as much as is missing; whether there was enough. LedgerError where the database is away."""
        return await _whole(self._lend(short))

    async def _lend(self, short: Sequence[Short]) -> bool:
        async with self._lock:
            if not self.fresh():
                await self._confirm()
            missing = {one.used.place: (one.used, one.amount - one.used.left) for one in short}
            asks = [
                Loan(place, used.most, used.ends, _open(used), need)
                for place, (used, need) in missing.items()
                if need > 0
            ]
            now_s = self._monotonic()
            if any(self._not_before_s.get(ask.place, now_s) > now_s for ask in asks):
                return False
            if not asks:
                return True
            lent = await asyncio.to_thread(self._table.take, asks)
            for ask in asks:
                used, (more, elsewhere) = missing[ask.place][0], lent[ask.place]
                self._counts[ask.place] = used
                self._told[ask.place] = ask.opened + more
                used.lent = (used.lent or 0) + more
                used.elsewhere = elsewhere
                if more < ask.need:
                    self._not_before_s[ask.place] = self._monotonic() + ASK_AGAIN_S
            return all(lent[ask.place][0] >= ask.need for ask in asks)

    async def tick(self) -> None:
        """Say that this process lives, and give back what others want and it does not use."""
        await _whole(self._tick())

    async def recall(self) -> None:
        """Give back all that is not used or held, so that limits that were lowered are divided anew. LedgerError where
        the database is away; then the next tick says it."""
        await _whole(self._recall())

    async def _recall(self) -> None:
        async with self._lock:
            for used in self._counts.values():
                used.lent = used.used + used.held
            await self._confirm()

    async def idle(self) -> None:
        """Wait for what is under way in the database."""
        async with self._lock:
            pass

    async def _tick(self) -> None:
        async with self._lock:
            await self._confirm()

    async def _confirm(self) -> None:
        now_s, lost = self._monotonic(), not self.fresh()
        wanted = await asyncio.to_thread(self._table.touch)
        for place, used in self._counts.items():
            # Silent for long, it may have been taken for dead: then only calls under way still count.
            if lost or place in wanted:
                used.lent = used.used + used.held
        changed = {
            place: (_open(used), used.ends)
            for place, used in self._counts.items()
            if lost or _open(used) != self._told.get(place)
        }
        if changed:
            await asyncio.to_thread(self._table.put, changed)
            self._told |= {place: opened for place, (opened, _) in changed.items()}
        self._confirmed_s = now_s
        if now_s - self._pruned_s >= PRUNE_EVERY_S:
            self._pruned_s = now_s
            await self._prune(now_s)

    async def _prune(self, now_s: float) -> None:
        """Forget the windows that are over, and their rows."""
        await asyncio.to_thread(self._table.prune)
        over = [place for place, used in self._counts.items() if used.ends < self._clock() - PRUNE_EVERY_S]
        for place in over:
            del self._counts[place]
            self._told.pop(place, None)
        self._not_before_s = {place: at_s for place, at_s in self._not_before_s.items() if at_s > now_s}

    async def run(self) -> None:
        """Tick until cancelled. A database that is away is tried again; meanwhile nothing more is let in."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except LedgerError as exc:
                log.error("limits_wait", reason=str(exc))

    def leave(self) -> None:
        """Give back what is not used; blocks until it is committed."""
        for used in self._counts.values():
            used.lent = used.used + used.held
        self._table.leave({place: (_open(used), used.ends) for place, used in self._counts.items()})


def _open(used: Used) -> int:
    """What counts against the limit beyond what is committed."""
    return (used.lent or 0) - used.kept


async def _whole(work: Coroutine[None, None, T]) -> T:
    """`work` to its end, also where whoever waits leaves: a thread cannot be stopped, and what the database lends
    meanwhile counts."""
    working = asyncio.ensure_future(work)
    working.add_done_callback(_seen)
    return await asyncio.shield(working)


def _seen(working: asyncio.Future[T]) -> None:
    """Whoever asked may have left; then nobody else looks at what came of it."""
    if not working.cancelled():
        working.exception()
