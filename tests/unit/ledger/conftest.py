"""A database in a file, and the ledger in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A new one, `ledger.db`, with its tables."""
    made = Database(tmp_path / "ledger.db")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def ledger(db: Database) -> Iterator[SqlLedger]:
    """The ledger of `db`."""
    made = SqlLedger(db)
    yield made
    made.close()
