"""The ledger on a real PostgreSQL: the one contract, workers beside each other, and connections that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from tests.scenario.postgres import Postgres
from windlass.ledger import ids, partitions, schema
from windlass.ledger import postgres as postgres_views
from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Decision, Feedback
from windlass.testing import check_ledger

pytestmark = pytest.mark.scenario
Open = Callable[[str], SqlLedger]


@pytest.fixture
def worker(database_url: str) -> Iterator[Open]:
    """Workers by name on one fresh database."""
    opened: list[tuple[Database, SqlLedger]] = []

    def make(name: str) -> SqlLedger:
        db = Database(database_url)
        db.migrate()
        opened.append((db, SqlLedger(db, name)))
        return opened[-1][1]

    yield make
    for db, ledger in opened:
        ledger.close()
        db.close()


async def test_the_ledger_on_postgresql_keeps_the_contract(postgres: Postgres) -> None:
    opened: list[tuple[Database, str]] = []

    def make() -> SqlLedger:
        url = postgres.create()
        db = Database(url)
        db.migrate()
        opened.append((db, url))
        return SqlLedger(db)

    await check_ledger(make)
    for db, url in opened:
        db.close()
        postgres.drop(url)


async def test_a_reader_never_misses_what_an_older_transaction_commits_later(worker: Open, database_url: str) -> None:
    """Transaction 1 takes its place, transaction 2 commits behind it, and only then 1 commits: nothing may be lost."""
    ledger = worker("one")
    slow = sa.create_engine(sa.make_url(database_url))
    with slow.connect() as connection:
        place = connection.scalar(sa.text("SELECT value + (pg_current_xact_id()::text::bigint << 20) FROM heads "
                                          "WHERE name = 'ledger'"))  # fmt: skip
        await ledger.append(call("call_late"))
        seen = [entry.record.id for entry in ledger.read(ALL)]
        connection.execute(
            sa.insert(schema.calls),
            {"seq": place + 1, "id": "call_early", "tenant": "a", "workspace": "default", "at": 1.0, "endpoint": "chat",
             "model": "m", "stream": False, "parent": "", "user": "", "request_bytes": 0, "extra": "{}"},
        )  # fmt: skip
        connection.commit()
    slow.dispose()
    assert seen == [], "what lies behind a running transaction is not shown yet"
    assert [entry.record.id for entry in ledger.read(ALL)] == ["call_early", "call_late"]


async def test_what_one_worker_commits_rings_at_the_others(worker: Open) -> None:
    one, other = worker("one"), worker("other")
    heard = threading.Event()
    other.on_commit(heard.set)
    await one.append(call("call_1"))
    assert await asyncio.to_thread(heard.wait, 5.0)
    assert other.head() == one.head() > 0


def _timed(number: int, at: float) -> tuple[Call, Decision]:
    name = ids.new("call", at)
    made = decision(f"decision_{name.removeprefix('call_')}-model", name)
    return call(name), made


async def test_look_ups_search_one_day(worker: Open, database_url: str) -> None:
    ledger = worker("one")
    now = 1_800_000_000.0
    wanted = _timed(0, now)
    for day in range(10):
        await ledger.append(*_timed(day, now + day * 86_400))
    await ledger.append(*wanted)
    engine = sa.create_engine(sa.make_url(database_url))
    with engine.connect() as connection:
        days = connection.scalar(sa.text("SELECT count(*) FROM pg_class WHERE relname ~ '^decisions_[0-9]+$'"))
        assert days >= 10
        table = schema.decisions
        query = sa.select(table.c.id).where(
            *partitions.narrowed(table, [wanted[0].id], days_after=0), table.c.call == "x"
        )
        compiled = query.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.scalars(sa.text(f"EXPLAIN {str(compiled).replace(':', chr(92) + ':')}")))
        assert plan.count("decisions_2") == 1 or "Append" not in plan, plan
    engine.dispose()
    trace = ledger.trace(ALL, wanted[0].id)
    assert trace is not None
    assert [made.id for made in trace.decisions] == [wanted[1].id]


async def test_a_batch_large_enough_to_copy_keeps_what_was_there(worker: Open) -> None:
    ledger = worker("one")
    await ledger.append(rating("feedback_7", "x", value=0.25))
    await ledger.append(*(rating(f"feedback_{n}", "x") for n in range(1_000)))
    found = {entry.record.id: entry.record for entry in ledger.read(ALL, limit=2_000)}
    assert len(found) == 1_000
    assert isinstance(kept := found["feedback_7"], Feedback)
    assert kept.value == 0.25, "the first one counts"


async def test_workers_that_bring_the_same_ids_at_once_neither_lock_up_nor_double(worker: Open) -> None:
    workers = [worker(f"worker-{n}") for n in range(3)]
    for turn in range(10):
        names = [f"feedback_{turn}_{n}" for n in range(60)]
        await asyncio.gather(
            *(
                ledger.append(*(rating(name, "x") for name in (names if place % 2 else reversed(names))))
                for place, ledger in enumerate(workers)
            )
        )
    assert len(workers[0].read(ALL, limit=5_000)) == 600


async def test_a_killed_connection_costs_nothing(worker: Open, postgres: Postgres) -> None:
    ledger = worker("one")
    await ledger.append(call("call_0"), outcome("call_0"))
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.05):
            for pid in postgres.backends():
                os.kill(pid, signal.SIGTERM)

    killer = threading.Thread(target=kill)
    killer.start()
    acknowledged: list[str] = []
    try:
        ends = time.monotonic() + 3.0
        while time.monotonic() < ends:
            name = f"call_{len(acknowledged) + 1}"
            await ledger.append(call(name))
            acknowledged.append(name)
    finally:
        stop.set()
        killer.join()
    found = [entry.record.id for entry in ledger.read(ALL, limit=100_000) if isinstance(entry.record, Call)]
    assert found == ["call_0", *acknowledged], "each once, in order"
    assert len(acknowledged) > 5


async def test_places_go_on_after_a_database_came_from_another_server(worker: Open, database_url: str) -> None:
    """A dump carries places that the new server's transaction ids have not reached."""
    ledger = worker("one")
    await ledger.append(call("call_1"))
    engine = sa.create_engine(sa.make_url(database_url))
    with engine.begin() as connection:
        connection.execute(sa.update(schema.calls).values(seq=1 << 55))
    engine.dispose()
    late = worker("two")
    await late.append(call("call_2"))
    assert [entry.record.id for entry in late.read(ALL)] == ["call_1", "call_2"]
    assert late.head() > 1 << 55


async def test_so_many_days_that_the_servers_locks_get_tight_are_told_with_the_remedy(database_url: str) -> None:
    db = Database(database_url)
    db.migrate()

    def told() -> list[str]:
        return [finding for finding in postgres_views.findings(db) if "locks" in finding]

    assert told() == []
    for first in range(20_000, 20_200, 20):
        with db.write() as connection:
            partitions.ensure(connection, range(first, first + 20))
    (finding,) = told()
    with db.read() as connection:
        connection.exec_driver_sql("SELECT * FROM calls ORDER BY seq LIMIT 1")
        mine = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text ~ '_20...'"
        held = connection.scalar(sa.text(mine))
    db.close()
    named = int(finding.split(" takes ")[1].split()[0])
    assert held == pytest.approx(named, rel=0.1), finding
    assert "set max_locks_per_transaction = " in finding
