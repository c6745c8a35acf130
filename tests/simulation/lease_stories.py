"""Limits that several processes share: whatever the schedule, together they never use up more than there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from types import ModuleType

from tests.simulation.schedules import Schedule, Story
from tests.simulation.stand_ins import clock
from windlass.errors import LimitReached
from windlass.gateway.access.limits import Claim, Limits, Place
from windlass.gateway.access.store import Loan
from windlass.gateway.options import LimitOptions

MOST, CALL = 240, 20


class _Database:
    """What all processes see: what is lent beyond what is committed, and what is committed."""

    def __init__(self) -> None:
        self.lent: dict[str, int] = {}
        self.committed = 0
        self.wanted: set[Place] = set()


class _Table:
    """The rows of one process. Each statement is one step; what stands between them is not."""

    def __init__(self, schedule: Schedule, database: _Database, name: str):
        self._schedule, self._database, self._name = schedule, database, name

    def take(self, asks: Sequence[Loan]) -> dict[Place, tuple[int, bool]]:
        self._schedule.step()
        (ask,) = asks
        others = sum(lent for name, lent in self._database.lent.items() if name != self._name)
        left = ask.most - others - self._database.committed - ask.opened
        if left < ask.need:
            self._database.wanted.add(ask.place)
            return {ask.place: (0, others > 0)}
        more = min(left, max(ask.need, left // 4))
        self._database.lent[self._name] = ask.opened + more
        self._schedule.step()
        return {ask.place: (more, others > 0)}

    def touch(self) -> set[Place]:
        self._schedule.step()
        return set(self._database.wanted)

    def put(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        self._schedule.step()
        for granted, _ in opened.values():
            self._database.lent[self._name] = granted
        self._schedule.step()

    def prune(self) -> None:
        """Nothing is ever over."""

    def leave(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        self.put(opened)


def leasing(leases: ModuleType) -> Story:
    """Two processes call until nothing is left; some callers leave while they wait."""

    async def story(schedule: Schedule) -> None:
        rng, database = random.Random(schedule.seed), _Database()
        limit = LimitOptions(name="shared", usd=MOST / 1e9, window="total")
        every: list[Limits] = []

        def taken() -> int:
            counts = [count for limits in every for count in limits.counts()]
            return sum(count.used + count.held for count in counts)

        async def call(limits: Limits) -> None:
            hold = await limits.reserve(Claim("t", "", "", "", "m", CALL, 0), 0.0)
            assert taken() <= MOST, f"{taken()} of {MOST} are taken"
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.3)))
            cost = rng.choice((0, CALL // 2, CALL))
            hold.settle(cost, 0)
            await asyncio.sleep(0.001)
            database.committed += cost
            await asyncio.sleep(0.001)
            done = asyncio.get_running_loop().create_future()
            done.set_result(1)
            hold.committed(done)

        async def client(limits: Limits) -> None:
            for _ in range(4):
                asking = asyncio.create_task(call(limits))
                if rng.random() < 0.2:
                    # Only while it waits to be let in: what comes after is the gateway's, see budget_stories.
                    await asyncio.sleep(0)
                    if not any(count.held for count in limits.counts()):
                        asking.cancel()
                try:
                    await asking
                except (LimitReached, asyncio.CancelledError):
                    await asyncio.sleep(rng.choice((0.0, 0.3, 0.6)))

        running = []
        for name in ("one", "other"):
            made = leases.Leases(_Table(schedule, database, name), clock.time, clock.monotonic)
            every.append(Limits([limit], lender=made))
            running.append((made, asyncio.create_task(made.run())))
        await asyncio.gather(*(client(limits) for limits in every for _ in range(3)))
        for made, ticking in running:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            await made.idle()
        _known(every, database)

    return story


def _known(every: Sequence[Limits], database: _Database) -> None:
    """No process has more than the others know of."""
    for limits, name in zip(every, ("one", "other"), strict=True):
        for count in limits.counts():
            told = database.lent.get(name, 0)
            assert (count.lent or 0) - count.kept <= told, f"{name} has {count.lent}, the others know of {told}"
