"""What a process was lent of a limit: asked for once, given back, distrusted after a silence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from windlass.errors import LedgerError, LimitReached
from windlass.gateway.access.leases import ASK_AGAIN_S, FRESH_S, Leases
from windlass.gateway.access.limits import Claim, Limits, Place
from windlass.gateway.access.store import Loan
from windlass.gateway.options import LimitOptions
from windlass.testing import Clock

MOST = 1_000
CALL = Claim("t", "", "", "", "m", 100, 1)


class Rows:
    """A table that lends half of what is left, and remembers all that it was told."""

    def __init__(self, others: int = 0):
        self.others = others
        self.granted: dict[Place, int] = {}
        self.wanted: set[Place] = set()
        self.takes = self.puts = self.touches = 0
        self.away = False
        self.slow: threading.Event | None = None

    def take(self, asks: Sequence[Loan]) -> dict[Place, tuple[int, bool]]:
        self._reach()
        self.takes += 1
        return {ask.place: self._take(ask) for ask in asks}

    def _take(self, ask: Loan) -> tuple[int, bool]:
        left = ask.most - self.others - ask.opened
        more = min(left, max(ask.need, left // 2)) if ask.need <= left else 0
        if more:
            self.granted[ask.place] = ask.opened + more
        return more, self.others > 0

    def touch(self) -> set[Place]:
        self._reach()
        self.touches += 1
        return set(self.wanted)

    def put(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        self._reach()
        self.puts += 1
        self.granted |= {place: granted for place, (granted, _) in opened.items()}

    def prune(self) -> None:
        self._reach()

    def leave(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        self.put(opened)

    def _reach(self) -> None:
        if self.slow is not None:
            self.slow.wait(5)
        if self.away:
            raise LedgerError("the database is away")


class World:
    def __init__(self, others: int = 0, window: str = "total"):
        self.rows, self.monotonic = Rows(others), Clock(0.0)
        self.leases = Leases(self.rows, Clock(), self.monotonic)
        limit = LimitOptions(name="shared", usd=MOST / 1e9, window=window)  # type: ignore[arg-type]
        self.limits = Limits([limit], lender=self.leases)

    async def call(self) -> None:
        hold = await self.limits.reserve(CALL, 1_800_000_000.0)
        hold.settle(100, 1, "o")
        done = asyncio.get_running_loop().create_future()
        done.set_result(1)
        hold.committed(done)

    @property
    def lent(self) -> int | None:
        return self.limits.counts()[0].lent

    @property
    def told(self) -> int:
        (granted,) = self.rows.granted.values()
        return granted


async def test_a_part_is_asked_for_once_and_used_in_memory() -> None:
    world = World()
    for _ in range(5):
        await world.call()
    assert (world.rows.takes, world.lent) == (1, 500)
    await world.call()
    assert world.rows.takes == 2


async def test_a_thousand_at_once_never_hold_more_than_was_lent() -> None:
    world = World()
    held = await asyncio.gather(
        *(world.limits.reserve(CALL, 1_800_000_000.0) for _ in range(MOST)), return_exceptions=True
    )
    assert sum(not isinstance(one, BaseException) for one in held) == MOST // 100
    assert all(isinstance(one, LimitReached) for one in held if isinstance(one, BaseException))
    assert world.lent == MOST


async def test_a_refusal_leaves_the_database_alone_for_a_moment() -> None:
    world = World(others=950)
    for _ in range(3):
        with pytest.raises(LimitReached) as refused:
            await world.call()
        assert refused.value.retry_after_s == 1, "others may give some back"
    assert world.rows.takes == 1
    world.monotonic.forward(ASK_AGAIN_S)
    world.rows.others = 0
    await world.call()


async def test_what_can_never_fit_asks_nobody() -> None:
    world = World()
    with pytest.raises(LimitReached) as refused:
        await world.limits.reserve(msgspec.structs.replace(CALL, nusd=MOST + 1), 1_800_000_000.0)
    assert refused.value.retry_after_s is None
    assert world.rows.takes == world.rows.touches == 0


async def test_what_others_want_is_given_back_and_what_is_committed_counts_elsewhere() -> None:
    world = World()
    await world.call()
    hold = await world.limits.reserve(CALL, 1_800_000_000.0)
    await world.leases.tick()
    assert (world.lent, world.told) == (500, 400), "the rest is committed"
    world.rows.wanted = set(world.rows.granted)
    await world.leases.tick()
    assert (world.lent, world.told) == (200, 100), "what a call under way holds stays"
    hold.settle(0, 0)
    world.leases.leave()
    assert world.told == 0


async def test_an_idle_process_writes_nothing_but_that_it_lives() -> None:
    world = World()
    await world.call()
    await world.leases.tick()
    puts = world.rows.puts
    for _ in range(5):
        world.monotonic.forward(0.5)
        await world.leases.tick()
    assert world.rows.puts == puts


async def test_after_a_silence_nothing_that_was_lent_is_trusted() -> None:
    world = World()
    await world.call()
    world.monotonic.forward(FRESH_S)
    assert not world.leases.fresh()
    world.rows.others = MOST  # it was taken for dead: what it spent, and all the rest lent to others
    with pytest.raises(LimitReached):
        await world.call()
    assert world.lent == 100, "what it used"
    assert world.leases.fresh()


async def test_while_the_database_is_away_only_what_was_lent_is_used_and_not_for_long() -> None:
    world = World()
    await world.call()
    world.rows.away = True
    await world.call()
    world.monotonic.forward(FRESH_S)
    with pytest.raises(LedgerError):
        await world.call()
    world.rows.away = False
    await world.call()


async def test_who_leaves_while_the_database_lends_loses_nothing_of_it() -> None:
    world = World()
    await world.leases.tick()
    world.rows.slow = threading.Event()
    asking = asyncio.create_task(world.call())
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    world.rows.slow.set()
    await world.leases.idle()
    assert (world.lent, world.told) == (500, 500)
    assert world.limits.counts()[0].held == 0


async def test_windows_that_are_over_are_forgotten() -> None:
    world = World(window="minute")
    await world.call()
    clock = world.leases._clock
    assert isinstance(clock, Clock)
    clock.forward(1_000.0)
    world.monotonic.forward(100.0)
    await world.leases.tick()
    assert world.leases._counts == {}


async def test_a_lowered_limit_is_divided_anew() -> None:
    """What was lent under the higher one is no longer to be used, and is given back as soon as the table is told."""
    table = Rows()
    leases = Leases(table)
    limits = Limits([LimitOptions(name="all", usd=MOST / 1e9, window="total")], lender=leases)
    await leases.tick()
    hold = await limits.reserve(CALL, 0.0)
    (count,) = limits.counts()
    assert count.lent is not None
    assert count.lent >= 300
    limits.replace([LimitOptions(name="all", usd=150 / 1e9, window="total")])
    with pytest.raises(LimitReached):
        await limits.reserve(CALL, 0.0)
    await leases.recall()
    assert (count.lent, count.held, table.granted[count.place]) == (100, 100, 100)
    hold.settle(40, 1)
    await leases.recall()
    assert table.granted[count.place] == 40
    table.away = True
    with pytest.raises(LedgerError):
        await leases.recall()
