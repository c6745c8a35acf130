"""Several workers on PostgreSQL share limits: together they never use up more, and leave little unused."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario.postgres import Postgres
from tests.scenario.program import children, post, server
from tests.scenario.test_kill_server import _upstream
from windlass.errors import LimitReached
from windlass.gateway.access.leases import TICK_S, Leases
from windlass.gateway.access.limits import Claim, Limits
from windlass.gateway.access.store import LEASE_ALIVE_S, LeaseTable
from windlass.gateway.options import LimitOptions
from windlass.ledger.check import outcome
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.records import Outcome

pytestmark = pytest.mark.scenario
CALL_NUSD = 29_000
"""What a call of `_upstream` costs: 7 and 11 tokens at 1 and 2 USD a million."""
CALLS = 400
ANSWER_TOKENS = 11


class Worker:
    """Limits and ledger of one process, without the rest of it."""

    def __init__(self, url: str, name: str, limits: list[LimitOptions]):
        self.db = Database(url, connections=4)
        self.db.migrate()
        self.ledger = SqlLedger(self.db, name)
        self.leases = Leases(LeaseTable(self.db, f"{name}-{time.time_ns()}"))
        self.limits = Limits(limits, lender=self.leases)
        self._ticking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._ticking = asyncio.create_task(self.leases.run())

    async def die(self) -> None:
        """Say no last word."""
        assert self._ticking is not None
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)
        await self.leases.idle()
        await asyncio.to_thread(self.ledger.close)
        self.db.close()

    async def call(self, rng: random.Random, nusd: int, used: int | None = None, pause_s: float = 0.002) -> None:
        """One call that may cost `nusd`, and costs some of it."""
        hold = await self.limits.reserve(Claim("t", "", "", "", "m", nusd, 1), time.time())
        await asyncio.sleep(rng.random() * pause_s)
        cost = rng.randrange(nusd + 1) if used is None else used
        ended: Outcome = outcome(f"call_{rng.getrandbits(64):x}")
        committing = asyncio.ensure_future(self.ledger.append(ended, *hold.settle(cost, 1, ended.id)))
        committing.add_done_callback(hold.committed)
        await committing


@asynccontextmanager
async def _workers(url: str, count: int, *limits: LimitOptions) -> AsyncIterator[list[Worker]]:
    made = [await asyncio.to_thread(Worker, url, f"w{number}", list(limits)) for number in range(count)]
    async with AsyncExitStack() as stack:
        for one in made:
            one.begin()
            stack.push_async_callback(one.die)
        yield made


def _rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute(query).fetchall()


def _spent(url: str) -> int:
    return int(_rows(url, "SELECT coalesce(sum(nusd), 0) FROM spend")[0][0])


async def _exhaust(worker: Worker, rng: random.Random, nusd: int) -> int:
    """Call until it is refused several times in a row; how many calls were let in."""
    refused = let_in = 0
    while refused < 12:
        try:
            await worker.call(rng, nusd)
        except LimitReached:
            refused += 1
            await asyncio.sleep(TICK_S / 2)
        else:
            refused, let_in = 0, let_in + 1
    return let_in


@pytest.mark.parametrize("count", [2, 3])
async def test_they_use_up_a_budget_and_no_more(database_url: str, count: int) -> None:
    budget = LimitOptions(name="shared", usd=0.001, window="total")
    async with _workers(database_url, count, budget) as workers:
        let_in = await asyncio.gather(
            *(_exhaust(worker, random.Random(n), 10_000) for n, worker in enumerate(workers) for _ in range(4))
        )
    assert 900_000 <= _spent(database_url) <= 1_000_000
    assert sum(let_in) > 100
    assert sum(bool(one) for one in let_in) > count, "more than one worker was let in"


async def test_an_idle_worker_gives_back_what_it_was_lent(database_url: str) -> None:
    budget = LimitOptions(name="shared", usd=0.001, window="total")
    async with _workers(database_url, 2, budget) as (idle, busy):
        await idle.call(random.Random(1), 1_000, used=0)
        lent = idle.limits.counts()[0].lent
        assert lent is not None
        assert lent > 50_000
        await _exhaust(busy, random.Random(2), 10_000)
        assert _spent(database_url) > 980_000
        assert idle.limits.counts()[0].lent == 0


async def test_a_dead_worker_holds_only_what_it_spent(database_url: str) -> None:
    limits = [
        LimitOptions(name="shared", usd=0.001, window="total"),
        LimitOptions(name="slots", concurrent=2, window="total"),
    ]
    async with _workers(database_url, 2, *limits) as (dies, lives):
        await dies.call(random.Random(1), 10_000, used=10_000)
        held = [await dies.limits.reserve(Claim("t", "", "", "", "m", 400_000, 1), time.time()) for _ in range(2)]
        await dies.die()
        with pytest.raises(LimitReached):
            await lives.call(random.Random(2), 900_000)
        await asyncio.sleep(LEASE_ALIVE_S + 0.5)
        await lives.call(random.Random(2), 990_000, used=990_000)
        assert len(held) == 2
        dies.begin()  # only so that its end finds something to end
    assert _spent(database_url) == 1_000_000


async def test_rates_and_calls_at_once_are_shared(database_url: str) -> None:
    hour = LimitOptions(name="shared", requests=60, concurrent=5, window="hour")
    under_way = most = 0

    async def one(worker: Worker, rng: random.Random) -> None:
        nonlocal under_way, most
        hold = await worker.limits.reserve(Claim("t", "", "", "", "m", 0, 0), 1_800_000_000.0)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(rng.random() * 0.05)
        under_way -= 1
        hold.settle(0, 0)

    async def many(worker: Worker, rng: random.Random) -> int:
        done = refused = 0
        while refused < 40 and done < 60:
            try:
                await one(worker, rng)
                done += 1
            except LimitReached:
                refused += 1
                await asyncio.sleep(0.1)
        return done

    async with _workers(database_url, 3, hour) as workers:
        done = await asyncio.gather(
            *(many(worker, random.Random(n)) for n, worker in enumerate(workers) for _ in range(3))
        )
    assert most <= 5
    assert 54 <= sum(done) <= 60


# --- the real program


def _settings(folder: Path, upstream: str) -> str:
    path = folder / "windlass.toml"
    path.write_text(
        f'[[providers]]\nname = "up"\nbase_url = "{upstream}"\n'
        '[[providers.models]]\nname = "m1"\nprompt_usd_per_million = 1.0\ncompletion_usd_per_million = 2.0\n'
        f'[[limits]]\nname = "shared"\nwindow = "total"\nusd = {CALLS * CALL_NUSD / 1e9}\n'
    )
    return str(path)


def _load(url: str, answers: Counter[int], enough: Callable[[], bool]) -> None:
    """Call until 25 calls in a row were refused, or `enough`."""
    refused = number = 0
    while refused < 25 and not enough():
        number += 1
        asked = {
            "model": "m1",
            "messages": [{"role": "user", "content": f"q {number}"}],
            "max_tokens": ANSWER_TOKENS,
        }
        try:
            status, body = post(f"{url}/v1/chat/completions", asked, timeout_s=20)
        except OSError:
            time.sleep(0.05)
            continue
        answers[status] += 1
        if status == 200:
            refused = 0
        else:
            assert status == 429, body
            assert json.loads(body)["error"]["code"] == "budget_exceeded"
            refused += 1
            time.sleep(0.1)


@pytest.mark.parametrize(("count", "kills"), [(2, 0), (3, 0), (3, 4)])
def test_workers_of_a_server_never_overspend_together(
    tmp_path: Path, postgres: Postgres, database_url: str, count: int, kills: int
) -> None:
    rng, answers, killed = random.Random(count), Counter[int](), 0
    with _upstream() as (upstream, served):
        more = {"WINDLASS_CONFIG": _settings(tmp_path, upstream), "WINDLASS_MEMORY__EMBEDDER": "off"}
        more["WINDLASS_STORAGE__DATABASE_URL"] = database_url
        home = tmp_path / "home"
        with server(home, "--no-dashboard", "--workers", str(count), **more) as url:
            pid = int(json.loads((home / "server.json").read_text())["pid"])
            threads = [threading.Thread(target=_load, args=(url, answers, lambda: False)) for _ in range(8)]
            for thread in threads:
                thread.start()
            while killed < kills:
                time.sleep(rng.uniform(0.1, 0.4))
                if alive := children(pid):
                    os.kill(rng.choice(alive), signal.SIGKILL)
                    killed += 1
            for thread in threads:
                thread.join()
            if kills:  # what the dead were lent falls back
                time.sleep(LEASE_ALIVE_S)
                _load(url, answers, lambda: False)
    most = CALLS * CALL_NUSD
    ((recorded,),) = _rows(database_url, "SELECT sum(cost_nusd) FROM outcomes")
    assert _spent(database_url) == int(recorded)
    assert 0.9 * most <= _spent(database_url) <= most
    assert answers[429] > 0
    assert "deadlock" not in postgres.log()
    # A call that went up and whose worker died with it is paid and not recorded: no more than were under way.
    assert sum(served.values()) <= CALLS + 8 * kills
