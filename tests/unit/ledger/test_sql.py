"""What only the ledger on a database promises: its files, its locks, its neighbours."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import windlass.content.store
import windlass.memory.schema
import windlass.server.dashboard.store
from windlass.errors import LedgerError, RecordInvalid
from windlass.ledger import schema
from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.db import Database, metadata, workflow_engine
from windlass.ledger.ledger import ALL
from windlass.ledger.migrations import versions
from windlass.ledger.sql import SqlLedger
from windlass.stats.chance import Propensity


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(db: Database) -> None:
    assert windlass.content.store.items.name in metadata.tables
    assert windlass.memory.schema.chunks.name in metadata.tables
    with db.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_migrating_twice_changes_nothing(db: Database) -> None:
    newest = max(path.name[:4] for path in Path(versions.__path__[0]).glob("0*.py"))
    db.migrate()
    with db.read() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == newest


def test_every_row_of_every_table_has_an_owner() -> None:
    # A key has a tenant and many workspaces; a budget may be about several tenants.
    ownerless = {"heads", "snapshots", "workers", "keys", "spend", "leases", "budget_points"}
    for table in metadata.tables.values():
        if table.name not in ownerless:
            assert {"tenant", "workspace"} <= set(table.c.keys()), table.name


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_durability_is_the_pragma_it_promises(tmp_path: Path, durability: str) -> None:
    db = Database(f"sqlite:///{tmp_path / 'x.db'}", durability=durability)  # type: ignore[arg-type]
    with db.read() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == {"normal": 1, "full": 2}[durability]
        assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    db.close()


def test_the_workflow_engine_waits_for_locks_and_takes_them_at_once(tmp_path: Path) -> None:
    engine = workflow_engine(tmp_path / "runs.db", "normal")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA busy_timeout")) == 30_000
        assert connection.connection.driver_connection.isolation_level == "IMMEDIATE"  # type: ignore[union-attr]
    engine.dispose()


async def test_two_ledgers_on_one_file_share_one_sequence(db: Database) -> None:
    first, second = SqlLedger(db), SqlLedger(db)
    await asyncio.gather(
        *(ledger.append(call(f"call_{n}_{m}")) for n in range(20) for m, ledger in enumerate((first, second)))
    )
    places = [entry.seq for entry in first.read(ALL)]
    assert places == list(range(1, 41))
    first.close()
    second.close()


async def test_a_corrupted_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is not a database, it is a text of more than a hundred bytes" * 20)
    with pytest.raises(LedgerError, match="not a database"):
        Database(f"sqlite:///{path}").migrate()


async def test_a_probability_that_was_put_off_is_a_number_in_the_database(db: Database) -> None:
    ledger = SqlLedger(db)
    late = [Propensity([0.5, 0.6, 0.7], [0.1, 0.2, 0.1], arm).mixed(0.01, 0.97) for arm in range(3)]
    made = [
        msgspec.structs.replace(decision(f"decision_{arm}", "call_1"), propensity=chance)
        for arm, chance in enumerate(late)
    ]
    await ledger.append(*made, decision("decision_9", "call_1"))
    found = ledger.decisions(ALL)
    ledger.close()
    assert [one.propensity for one in found] == [0.75, *(float(chance) for chance in reversed(late))]
    assert sum(one.propensity for one in found[1:]) == pytest.approx(1.0, abs=1e-9)
    assert all(type(one.propensity) is float for one in found)


async def test_a_failed_commit_reaches_its_callers_and_the_next_one_works(db: Database) -> None:
    ledger = SqlLedger(db)
    with db.write() as connection:
        connection.execute(sa.text("ALTER TABLE calls RENAME TO gone"))
    with pytest.raises(LedgerError, match="no such table"):
        await ledger.append(call("call_1"))
    ledger.post(call("call_2"))
    await asyncio.sleep(0.1)
    with db.write() as connection:
        connection.execute(sa.text("ALTER TABLE gone RENAME TO calls"))
    await ledger.append(outcome("call_2"))
    assert {entry.record.id for entry in ledger.read(ALL)} == {"call_2", "outcome_call_2"}, "telemetry was tried again"
    ledger.close()


async def test_a_cancelled_append_does_not_stop_the_writer(db: Database) -> None:
    ledger = SqlLedger(db)
    waiting = [asyncio.create_task(ledger.append(call(f"call_{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await ledger.append(call("call_last"))
    kept = {entry.record.id for entry in ledger.read(ALL)}
    assert {f"call_{n}" for n in range(1, 50, 2)} | {"call_last"} <= kept
    ledger.close()


async def test_a_row_of_a_newer_version_is_a_clear_error(db: Database) -> None:
    ledger = SqlLedger(db)
    await ledger.append(rating("feedback_1", "call_1"))
    with db.write() as connection:
        connection.execute(sa.update(schema.feedback).values(kind="applause"))
    with pytest.raises(RecordInvalid, match="applause"):
        ledger.read(ALL)
    ledger.close()


async def test_what_was_appended_is_in_the_file_before_append_returns(db: Database, tmp_path: Path) -> None:
    ledger = SqlLedger(db)
    await ledger.append(call("call_1"), decision("decision_1", "call_1"))
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        assert other.execute("SELECT id FROM calls").fetchall() == [("call_1",)]
        assert other.execute("SELECT decision FROM contexts").fetchall() == [("decision_1",)]
    other.close()
    ledger.close()
