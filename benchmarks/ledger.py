"""The ledger: append, replay and pages, against a bare `executemany` of the same rows, on SQLite and PostgreSQL.

An event is one record: a call, its decision (with a context of 12 numbers, which is one more row) and its outcome. The
peer inserts the same rows into the same tables with nothing in between: no validation, no thread, no SQLAlchemy.
`replay_events_per_s` is CPU time of reading and folding into the rollups and a fresh learner, with the policy `fixed`,
which is a rule, is taught nothing and so needs no context read; `replay_linear_thompson_events_per_s` is the same with
the default policy of the point `model`, whose contexts and lessons come on top. Both go over 20,000 calls with what
followed them, 62,000 events, for a rebuild is long: over a tenth of that, as with `--quick`, the first query and the
last flush, which come once, are seen in the figure. `page_5m_ms` is over 5 million decisions, with `--quick` over
20,000. PostgreSQL is measured where a server is installed: `decisions_per_s_bare_copy_pg` is what COPY of the same rows
into the same tables takes, with nothing in between.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from tests.scenario.postgres import Postgres, binary

from benchmarks import scale
from benchmarks.common import Figures, Options, run
from benchmarks.scale import flat
from windlass.ledger import partitions, rows
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.policies.loop import Loop
from windlass.policies.replay import Learner
from windlass.records import Decision, LedgerRecord
from windlass.settings import load
from windlass.watch.projections import READ
from windlass.watch.store import Rollups

BATCH, LARGE = 64, 3_000
ROUNDS = 5
DECISIONS, DECISIONS_QUICK = 5_000_000, 20_000
REPLAYED, REPLAYED_QUICK = 20_000, 2_000
PAGES = ("overview", "decisions")


@contextmanager
def sqlite() -> Iterator[Path]:
    """A migrated, empty database file."""
    folder = Path(tempfile.mkdtemp(prefix="windlass-bench-"))
    try:
        db = Database(folder / "ledger.db")
        db.migrate()
        db.close()
        yield folder / "ledger.db"
    finally:
        shutil.rmtree(folder)


async def append(where: Path | str, records: Sequence[LedgerRecord], batch: int) -> tuple[float, list[float]]:
    """(events a second of wall time, seconds of each append)."""
    db = Database(where)
    ledger = SqlLedger(db)
    took: list[float] = []
    started = time.perf_counter()
    for place in range(0, len(records), batch):
        before = time.perf_counter()
        await ledger.append(*records[place : place + batch])
        took.append(time.perf_counter() - before)
    seconds = time.perf_counter() - started
    ledger.close()
    db.close()
    return len(records) / seconds, took


def bare(path: Path, records: Sequence[LedgerRecord], batch: int) -> float:
    """Events a second of `executemany` alone: the rows are made beforehand, the tables and pragmas are the same."""
    batches = []
    for place in range(0, len(records), batch):
        grouped: dict[str, list[tuple[Any, ...]]] = {}
        for number, record in enumerate(records[place : place + batch], start=place + 1):
            row = rows.to_row(record)
            grouped.setdefault(rows.TABLES[type(record)].name, []).append((number, *row[1:]))
            if isinstance(record, Decision):
                grouped.setdefault("contexts", []).append(tuple(rows.context_row(record)))
        batches.append([(f"INSERT INTO {name} VALUES ({','.join('?' * len(v[0]))})", v) for name, v in grouped.items()])
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    started = time.perf_counter()
    for statements in batches:
        connection.execute("BEGIN IMMEDIATE")
        for statement, values in statements:
            connection.executemany(statement, values)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return len(records) / seconds


def bare_copy(url: str, decided: Sequence[Decision], batch: int) -> float:
    """Decisions a second of COPY alone: the rows are made beforehand, the tables and their days are the same."""
    made = [([place, *rows.to_row(one)[1:]], rows.context_row(one)) for place, one in enumerate(decided, start=1)]
    db = Database(url)
    with db.write() as connection:
        partitions.ensure(connection, partitions.days(one.id for one in decided))
    with db.bare() as connection:
        driver: Any = connection.connection.driver_connection
        started = time.perf_counter()
        for first in range(0, len(made), batch):
            with driver.transaction(), driver.cursor() as cursor:
                for table, values in zip(
                    ("decisions", "contexts"), zip(*made[first : first + batch], strict=True), strict=True
                ):
                    with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                        for row in values:
                            copy.write_row(row)
        seconds = time.perf_counter() - started
    db.close()
    return len(made) / seconds


def replay(where: Path | str, policy: str) -> float:
    """Events a second of CPU time from the tables into rollups and a fresh learner; policy: of the point `model`."""
    db = Database(where)
    ledger = SqlLedger(db)
    settings = load({"points.model.policy": policy}, environ={})
    learner, rollups = Learner(Loop(settings.points, settings.reward)), Rollups(db)
    started, events = time.process_time(), 0
    while entries := learner.following(ledger, READ):
        rollups.fold(*entries)
        learner.fold(*entries)
        events += len(entries)
    rollups.flush()
    seconds = time.process_time() - started
    rollups.clear()
    ledger.close()
    db.close()
    return events / seconds


def measure(options: Options) -> Figures:
    """Everything, SQLite first."""
    figures = Figures()
    count = 1_500 if options.quick else 6_000
    one, batched, ratios, tail = [], [], [], []
    for turn in range(ROUNDS):
        records = flat(count, options.seed + turn)
        with sqlite() as path:
            one.append(asyncio.run(append(path, records[: count // 4], 1))[0])
        with sqlite() as path, sqlite() as other:
            rate, took = asyncio.run(append(path, records, BATCH))
            batched.append(rate)
            tail += took
            ratios.append(rate / bare(other, records, BATCH))
            size = path.stat().st_size
    figures.mean("append_events_per_s_b1", one, options.seed)
    figures.mean("append_events_per_s_b64", batched, options.seed)
    figures.mean("ratio_bare_sqlite_b64", ratios, options.seed)
    replayed = REPLAYED_QUICK if options.quick else REPLAYED
    figures.mean("replay_events_per_s", _replays("fixed", replayed, options.seed), options.seed)
    learned = _replays("linear_thompson", replayed, options.seed)
    figures.mean("replay_linear_thompson_events_per_s", learned, options.seed)
    figures.metrics["bytes_per_event"] = size / len(records)
    figures.metrics["append_p99_ms"] = float(np.quantile(tail, 0.99) * 1000)
    figures.target("ratio_bare_sqlite_b64", ">= 0.6")
    figures.target("replay_events_per_s", ">= 100000")
    decisions = DECISIONS_QUICK if options.quick else DECISIONS
    _pages(figures, "page_5m_ms", decisions, options.seed)
    try:
        binary("postgres")
    except FileNotFoundError as exc:
        print(f"ledger: PostgreSQL is not measured: {exc}", file=sys.stderr)
        return figures
    _postgres(figures, options, 3 * count)
    return figures


def _replays(policy: str, count: int, seed: int) -> list[float]:
    """Events a second of replays of so many calls, each of other records in a database of its own."""
    rates = []
    for turn in range(ROUNDS):
        with sqlite() as path:
            asyncio.run(append(path, flat(count, seed + turn, f"{policy}@1"), LARGE))
            rates.append(replay(path, policy))
    return rates


def _postgres(figures: Figures, options: Options, count: int) -> None:
    server = Postgres()
    server.start()
    try:
        records = flat(count, options.seed, "fixed@1")
        decided = [record for record in records if isinstance(record, Decision)]
        one, took = asyncio.run(append(_fresh(server), records[: count // 10], 1))
        figures.metrics["append_events_per_s_b1_pg"] = one
        figures.metrics["append_p99_ms_pg"] = float(np.quantile(took, 0.99) * 1000)
        url = _fresh(server)
        figures.metrics["append_events_per_s_b64_pg"] = asyncio.run(append(url, records, BATCH))[0]
        figures.metrics["replay_events_per_s_pg"] = replay(url, "fixed")
        figures.metrics["bytes_per_event_pg"] = _size(url) / len(records)
        rates, copied = [], []
        for _ in range(3):
            rates.append(asyncio.run(append(_fresh(server), decided, LARGE))[0])
            copied.append(bare_copy(_fresh(server), decided, LARGE))
        figures.mean("decisions_per_s_pg", rates, options.seed)
        figures.target("decisions_per_s_pg", ">= 15000")
        figures.mean("decisions_per_s_bare_copy_pg", copied, options.seed)
        figures.mean(
            "ratio_bare_copy_pg", [ours / bare for ours, bare in zip(rates, copied, strict=True)], options.seed
        )
        figures.mean("scaling_2_writers_pg", [_scaling(server, count, options.seed) for _ in range(3)], options.seed)
        figures.target("scaling_2_writers_pg", ">= 1.5")
        decisions = DECISIONS_QUICK if options.quick else DECISIONS
        _pages(figures, "page_5m_ms_pg", decisions, options.seed, _fresh(server))
    finally:
        server.stop()


def _pages(figures: Figures, name: str, decisions: int, seed: int, url: str = "") -> None:
    """The slower of the pages Overview and Decisions, asked over HTTP of a server over so many decisions."""
    home = Path(tempfile.mkdtemp(prefix="windlass-bench-"))
    try:
        chosen = scale.settings(home, url)
        scale.fill(chosen.database, decisions, seed, time.time())
        scale.fold(chosen)
        more = {"WINDLASS_STORAGE__DATABASE_URL": url} if url else {}
        took = scale.answers(home, {page: scale.PATHS[page] for page in PAGES}, **more)
        figures.metrics[name] = max(map(scale.middle, took.values()))
        figures.target(name, "<= 500")
    finally:
        shutil.rmtree(home)


def _fresh(server: Postgres) -> str:
    url = server.create()
    db = Database(url)
    db.migrate()
    db.close()
    return url


def _size(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        size = int(connection.scalar(sa.text("SELECT pg_database_size(current_database())")) or 0)
    engine.dispose()
    return size


def _scaling(server: Postgres, count: int, seed: int) -> float:
    """Decisions a second of two processes on one database, over those of one."""
    return _together(_fresh(server), count, seed, 2) / _together(_fresh(server), count, seed, 1)


def _together(url: str, count: int, seed: int, writers: int) -> float:
    context = get_context("spawn")
    ready, go = context.Barrier(writers + 1), context.Barrier(writers + 1)
    processes = [context.Process(target=_writer, args=(url, count, seed + n, ready, go, n)) for n in range(writers)]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    go.wait()
    for process in processes:
        process.join()
    return writers * count / (time.perf_counter() - started)


def _writer(url: str, count: int, seed: int, ready: Any, go: Any, number: int) -> None:
    """One process that appends decisions in large batches as fast as it can."""
    decided = [record for record in flat(count, seed) if isinstance(record, Decision)]
    db = Database(url)
    ledger = SqlLedger(db, f"writer-{number}")

    async def work() -> None:
        for place in range(0, len(decided), LARGE):
            await ledger.append(*decided[place : place + LARGE])

    ready.wait()
    go.wait()
    asyncio.run(work())
    ledger.close()
    db.close()


if __name__ == "__main__":
    sys.exit(run("ledger", measure))
