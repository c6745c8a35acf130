"""Moving between two SQLite files: digests, resuming, refusing. PostgreSQL's side is in tests/scenario/test_move.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import windlass.runtime  # noqa: F401 (all rooms, and so all tables)
from windlass.errors import LedgerError
from windlass.ledger import move, schema
from windlass.ledger.check import A, B, call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.sql import SqlLedger


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """A source and an empty target."""
    made = Database(tmp_path / "ledger.db"), Database(tmp_path / "other" / "ledger.db")
    for db in made:
        db.migrate()
    yield made
    for db in made:
        db.close()


async def _fill(db: Database, calls: int) -> None:
    ledger = SqlLedger(db)
    for number in range(calls):
        scope = (A, B)[number % 2]
        name = f"call_{number}"
        said = rating(f"feedback_{number}", name, scope, value=1 / 3, comment="é 🙂 \\N")
        await ledger.append(call(name, scope), decision(f"decision_{number}", name, scope), outcome(name, scope), said)
    ledger.close()


def _sums(db: Database) -> list[move.Sum]:
    with db.read() as connection:
        return move.totals(connection)


async def test_everything_moves_in_batches_and_is_told(
    databases: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = databases
    monkeypatch.setattr(move, "BATCH", 7)
    await _fill(source, 20)
    told: list[tuple[str, int, int]] = []
    sums = move.move(source, target, lambda *said: told.append(said))
    move.finish(source, target)
    assert [(done, rows) for table, done, rows in told if table == "calls"] == [(7, 20), (14, 20), (20, 20), (20, 20)]
    assert _sums(target) == _sums(source) == sums
    ledgers = SqlLedger(source), SqlLedger(target)
    assert list(ledgers[0].read(ALL)) == list(ledgers[1].read(ALL))
    assert await ledgers[1].append(call("call_next")) == ledgers[0].head() + 1
    for ledger in ledgers:
        ledger.close()


async def test_tables_that_are_there_are_not_copied_again(databases: tuple[Database, Database]) -> None:
    source, target = databases
    await _fill(source, 10)
    stop = {"table": "feedback"}

    def break_off(table: str, done: int, rows: int) -> None:
        if table == stop["table"]:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        move.move(source, target, break_off)
    with target.write() as connection:
        connection.exec_driver_sql("CREATE TRIGGER kept BEFORE DELETE ON calls BEGIN SELECT RAISE(FAIL, 'again'); END")
    stop["table"] = ""
    assert move.move(source, target, break_off) == _sums(source)


async def test_a_target_in_use_is_refused(databases: tuple[Database, Database]) -> None:
    source, target = databases
    await _fill(source, 2)
    await _fill(target, 1)
    with pytest.raises(LedgerError, match="rows of its own in calls"):
        move.move(source, target)
    assert {one.rows for one in _sums(target) if one.table == "calls"} == {1}


async def test_the_digest_sees_every_column_of_every_row(databases: tuple[Database, Database]) -> None:
    source, _ = databases
    await _fill(source, 3)
    before = {one.table: one for one in _sums(source)}
    table = schema.outcomes
    changes = {"model": "z", "latency_ms": 12.500000000000002, "cost_nusd": 8, "tokens_estimated": True, "tenant": "c"}
    for column, value in changes.items():
        with source.write() as connection:
            connection.execute(sa.update(table).where(table.c.id == "outcome_call_1").values({column: value}))
        changed = {one.table: one for one in _sums(source)}
        assert {name for name in before if changed[name] != before[name]} == {"outcomes"}, column
        before = changed


def test_an_empty_ledger_moves_too(databases: tuple[Database, Database]) -> None:
    source, target = databases
    assert all(one.rows == 0 and one.digest == "0" * 32 for one in move.move(source, target))


def test_a_file_of_something_else_has_no_version(tmp_path: Path) -> None:
    db = Database(tmp_path / "x.db")
    assert move.version(db) == ""
    assert move.newest() > "0002"
    db.close()


async def test_a_table_that_nobody_knows_is_named_and_nothing_is_moved(databases: tuple[Database, Database]) -> None:
    source, target = databases
    await _fill(source, 3)
    with source.write() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (words TEXT)")
    with pytest.raises(LedgerError, match="does not move: notes; nothing was moved"):
        move.move(source, target)
    assert all(one.rows == 0 for one in _sums(target))
