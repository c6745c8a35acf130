"""One suite over every ledger that needs no server; PostgreSQL's run of it is among the scenarios."""

from __future__ import annotations

import itertools
from pathlib import Path

from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.testing import MemoryLedger, check_ledger


async def test_the_ledger_in_memory_keeps_the_contract() -> None:
    await check_ledger(MemoryLedger)


async def test_the_ledger_on_sqlite_keeps_the_contract(tmp_path: Path) -> None:
    numbers, opened = itertools.count(), []

    def make() -> SqlLedger:
        db = Database(f"sqlite:///{tmp_path / f'ledger{next(numbers)}.db'}")
        db.migrate()
        opened.append(db)
        return SqlLedger(db)

    await check_ledger(make)
    for db in opened:
        db.close()
