"""The database of the release before on PostgreSQL, upgraded: plain tables become daily partitions, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from tests.unit.ledger import earlier
from windlass.ledger import migrations
from windlass.ledger.check import call
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.move import version
from windlass.ledger.sql import SqlLedger

pytestmark = pytest.mark.scenario
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def before(tmp_path: Path) -> Rows:
    return dict(earlier.tables(earlier.unpack(tmp_path / "earlier.db")))


@pytest.fixture
def db(database_url: str, before: Rows) -> Iterator[Database]:
    """PostgreSQL at migration 0001 with the rows of the fixture."""
    made = Database(database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    with made.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        there = sa.MetaData()
        there.reflect(connection)
        for table in there.sorted_tables:
            flags = {column.name for column in table.c if isinstance(column.type, sa.Boolean)}
            rows = [
                {name: bool(value) if name in flags else value for name, value in row.items()}
                for row in before.get(table.name, [])
            ]
            if table.name == "heads":
                connection.execute(sa.delete(table))
            if rows:
                connection.execute(sa.insert(table), rows)
    assert version(made) == "0001"
    yield made
    made.close()


def test_an_upgrade_keeps_every_record(db: Database, before: Rows) -> None:
    for _ in range(2):
        db.migrate()
        earlier.check_reads_back(db, before)


async def test_the_policies_rebuild_from_an_upgraded_ledger(db: Database, database_url: str, tmp_path: Path) -> None:
    db.migrate()
    await earlier.check_replays(tmp_path, database_url)


async def test_what_comes_after_the_upgrade_stands_behind_what_was_there(db: Database) -> None:
    db.migrate()
    ledger = SqlLedger(db)
    try:
        last = ledger.read(ALL)[-1].seq
        assert await ledger.append(call("call_late")) > last
        assert len(ledger.read(ALL, after=last)) == 1
        known = ledger.read(ALL)[0].record
        await ledger.append(known)
        assert [entry.record.id for entry in ledger.read(ALL)].count(known.id) == 1
    finally:
        ledger.close()
