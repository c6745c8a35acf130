"""Values of megabytes leave no connection behind that would hold on to them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from windlass.errors import LedgerError
from windlass.ledger import retention
from windlass.ledger.db import Database
from windlass.ledger.ledger import Snapshot


@pytest.fixture
def closed(db: Database) -> list[Any]:
    """The driver's connections that were closed so far."""
    found: list[Any] = []
    sa.event.listen(db.engine, "close_detached", found.append)
    return found


def kept(db: Database) -> list[tuple[int, bytes]]:
    with db.read() as connection:
        return [tuple(row) for row in connection.execute(sa.text("SELECT cursor, state FROM snapshots ORDER BY 1"))]


def snapshot(cursor: int, state: bytes) -> Snapshot:
    return Snapshot(projection="learner", version=1, cursor=cursor, state=state, at=1_700_000_000.0, note="")


def test_a_snapshot_goes_by_a_connection_that_is_closed_then(db: Database, closed: list[Any]) -> None:
    states = [bytes([number]) * 2_000_000 for number in range(3)]
    for number, state in enumerate(states):
        retention.save(db, snapshot(number, state))
        assert len(closed) == number + 1
    retention.rewrite(db, snapshot(1, b"less"))
    assert len(closed) == 4
    assert kept(db) == [(0, states[0]), (1, b"less"), (2, states[2])]


def test_what_fails_half_way_is_undone_and_lets_the_connection_go_too(db: Database, closed: list[Any]) -> None:
    retention.save(db, snapshot(1, b"state"))
    with pytest.raises(LedgerError), db.write_large() as connection:
        connection.execute(sa.text("DELETE FROM snapshots"))
        connection.execute(sa.text("INSERT INTO no_such_table VALUES (1)"))
    assert len(closed) == 2
    assert kept(db) == [(1, b"state")]
    with db.write() as connection:
        connection.execute(sa.text("DELETE FROM snapshots"))
    assert len(closed) == 2, "what is small goes by connections that stay"
    assert kept(db) == []


def test_a_database_in_memory_lives_on() -> None:
    db = Database("sqlite://")
    try:
        with db.write_large() as connection:
            connection.execute(sa.text("CREATE TABLE t (a)"))
        with db.write_large() as connection:
            connection.execute(sa.text("INSERT INTO t VALUES (7)"))
        with db.read() as connection:
            assert connection.scalar(sa.text("SELECT a FROM t")) == 7
    finally:
        db.close()
