"""Group commit and the ledger in memory, each in a short story that says what must hold.

A story takes the modules it is about, so that a copy with a planted race can stand in for the sound one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

from tests.simulation.schedules import Schedule, Story
from tests.simulation.stand_ins import clock
from windlass.errors import LedgerError
from windlass.ledger.check import call
from windlass.ledger.commit import TELEMETRY_DELAY_S
from windlass.ledger.ledger import ALL
from windlass.records import LedgerRecord


class DiskFull(Exception):
    """What the database of a story sometimes raises."""


class Table:
    """A database table in a list: takes a batch whole, or raises. at: when each row was committed."""

    def __init__(self, schedule: Schedule, rng: random.Random, failing: float):
        self.rows: list[str] = []
        self.failed = 0
        self._schedule, self._rng, self._failing = schedule, rng, failing
        self.at: dict[str, float] = {}

    def write(self, items: Sequence[str]) -> int:
        self._schedule.step()
        if self._rng.random() < self._failing:
            self.failed += 1
            raise DiskFull("no space left")
        self.rows += items
        self.at |= dict.fromkeys(items, self._schedule.now_s)
        self._schedule.step()
        return len(self.rows)


class Paper:
    """A journal in two lists: what is cut from them must be in the table. full: sometimes it takes nothing."""

    def __init__(self, schedule: Schedule, table: Table, rng: random.Random, full: float):
        self._schedule, self._table, self._rng, self._full = schedule, table, rng, full
        self._sheets: tuple[list[tuple[int, str]], list[tuple[int, str]]] = ([], [])
        self._at = self._appended = self._committed = 0

    @property
    def waiting(self) -> bool:
        return self._committed < self._appended

    def append(self, data: bytes) -> bool:
        if self._rng.random() < self._full:
            return False
        self._appended += 1
        self._sheets[self._at].append((self._appended, data.decode()))
        self._schedule.step()
        return True

    def turn(self) -> None:
        if not self._sheets[1 - self._at]:
            self._at = 1 - self._at

    def done(self, count: int) -> None:
        self._schedule.step()
        self._committed += count
        self._cut(1 - self._at)

    def rest(self) -> None:
        self._cut(self._at)

    def _cut(self, which: int) -> None:
        sheet = self._sheets[which]
        if sheet and sheet[-1][0] <= self._committed:
            lost = [item for _, item in sheet if item not in self._table.rows]
            assert not lost, f"{lost} were cut from the journal, and are not in the table"
            sheet.clear()

    def holds(self, item: str) -> bool:
        """Whether a process that is killed now leaves `item` behind."""
        return any(item == kept for sheet in self._sheets for _, kept in sheet)


class Crowd:
    """Those who use one group commit at the same time. posted: telemetry that was taken, and when."""

    def __init__(self, schedule: Schedule, table: Table, group: Any, paper: Paper):
        self.posted: dict[str, float] = {}
        self.kept: list[str] = []
        self._paper = paper
        self._schedule, self._table, self._group = schedule, table, group

    def confirmed(self, items: tuple[str, ...], head: int) -> None:
        assert items[0] in self._table.rows, f"{items} were acknowledged, and are not there"
        place = self._table.rows.index(items[0])
        assert tuple(self._table.rows[place : place + len(items)]) == items, f"{items} are not there whole"
        assert head >= place + len(items), f"head {head} is before what it acknowledged"

    async def client(self, name: str, *, give_up: bool) -> None:
        """Append twice from a coroutine, in both ways; one that gives up is cancelled while it waits."""
        for number in range(2):
            items = (f"{name}-{number}a", f"{name}-{number}b")
            try:
                if number:
                    waiting = asyncio.wrap_future(self._group.submit(items, durable=True))
                else:
                    waiting = self._group.begin(items)
                if give_up:
                    asyncio.get_running_loop().call_soon(waiting.cancel)
                self.confirmed(items, await waiting)
            except (LedgerError, DiskFull, asyncio.CancelledError):
                continue

    def worker(self) -> None:
        """Append from a plain thread."""
        items = ("worker-a", "worker-b")
        try:
            self.confirmed(items, self._group.submit(items, durable=True).result())
        except (LedgerError, DiskFull):
            return

    def keeper(self) -> None:
        """Keep in the journal, look whether it is safe, and now and then at the table."""
        for number in range(4):
            item = f"kept-{number}"
            if self._group.keep((item,), item.encode()):
                self.kept.append(item)
                self.safe()
            if number % 2:
                self._group.flush()
                here = item not in self.kept or item in self._table.rows
                assert here or self._table.failed, f"{item} was flushed, and is not there"
            self._schedule.step()

    def safe(self) -> None:
        lost = [item for item in self.kept if item not in self._table.rows and not self._paper.holds(item)]
        assert not lost, f"{lost} were kept, and are nowhere"

    def reporter(self) -> None:
        """Post telemetry until the ledger is closed."""
        for number in range(3):
            try:
                self._group.submit((f"telemetry-{number}",), durable=False)
            except LedgerError:
                return
            self.posted[f"telemetry-{number}"] = self._schedule.now_s


def group_commit(commit: ModuleType) -> Story:
    """Coroutines and threads append, post, change their minds and meet failures, while somebody closes."""

    async def story(schedule: Schedule) -> None:
        rng = random.Random(schedule.seed)
        table = Table(schedule, rng, rng.choice((0.0, 0.0, 0.2)))
        paper = Paper(schedule, table, rng, rng.choice((0.0, 0.3)))
        group = commit.GroupCommit(table.write, paper)
        crowd = Crowd(schedule, table, group, paper)
        closing_s = rng.choice((0.0, 0.01, 0.2))

        def closer() -> None:
            clock.sleep(closing_s)
            group.close()

        for run in (crowd.worker, crowd.keeper, crowd.reporter, closer):
            schedule.spawn(run, run.__name__)
        await asyncio.gather(*(crowd.client(f"client-{n}", give_up=n == 0) for n in range(3)))
        await asyncio.to_thread(group.close)
        _all_told(table, crowd.posted, group.dropped)
        crowd.safe()
        if not table.failed:
            assert set(crowd.kept) <= set(table.rows), f"{crowd.kept} were kept, {table.rows} committed"
        told = [item for item in table.rows if item in crowd.kept]
        assert told == sorted(told), f"what was kept changed its order: {told}"

    return story


def _all_told(table: Table, posted: dict[str, float], dropped: int) -> None:
    """What holds of a closed group commit."""
    assert len(set(table.rows)) == len(table.rows), f"committed twice: {table.rows}"
    told = [item for item in table.rows if item in posted]
    assert told == sorted(told), f"telemetry changed its order: {told}"
    assert len(told) + dropped >= len(posted), f"{posted} posted, {told} committed, {dropped} counted as dropped"
    if not table.failed:
        late = [item for item in told if table.at[item] > posted[item] + TELEMETRY_DELAY_S + 1e-9]
        assert not late, f"telemetry {late} waited longer than {TELEMETRY_DELAY_S} s"


def appending(memory: ModuleType) -> Story:
    """Threads append to a MemoryLedger, some the same record: each stands there once, in the order of its writer."""

    def story(schedule: Schedule) -> None:
        ledger, shared = memory.MemoryLedger(), call("call_shared")
        written = [[call(f"call_{writer}-{n}") for n in range(2)] + [shared] for writer in range(3)]

        def write(records: Sequence[LedgerRecord]) -> None:
            for record in records:
                ledger.append_now(record)

        running = [schedule.spawn(partial(write, records), "writer") for records in written]
        schedule.block(lambda: all(thread.done for thread in running))
        entries = ledger.read(ALL)
        assert [entry.seq for entry in entries] == list(range(1, 8)), f"7 records stand at {entries}"
        found = [entry.record.id for entry in entries]
        for writer in range(3):
            assert found.index(f"call_{writer}-0") < found.index(f"call_{writer}-1"), found

    return story
