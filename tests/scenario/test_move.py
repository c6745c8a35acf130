"""`windlass db move`, there and back: nothing lost, killed half-way, refused where it must be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import windlass.runtime  # noqa: F401 (all rooms, and so all tables)
from tests.scenario import corpus, program
from windlass.errors import LedgerError
from windlass.ledger import ids, move, schema
from windlass.ledger.check import A, B, call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, Body, Entry, Snapshot
from windlass.ledger.sql import SqlLedger
from windlass.memory.chunk import Passage
from windlass.memory.retrieval import search
from windlass.memory.store import Memory, reindex

pytestmark = pytest.mark.scenario
CALLS = 700
DAY_S = 86_400.0


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "ledger.db")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def postgresql(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    made.migrate()
    yield made
    made.close()


async def _fill(db: Database, calls: int = CALLS) -> None:
    """Records of two tenants over 40 days, with the values that dialects disagree about."""
    ledger = SqlLedger(db)
    floats = (1 / 3, 5e-324, 1e299, -0.0, 1.0, 2**53 + 0.0)
    try:
        for number in range(calls):
            scope = (A, B)[number % 2]
            name = ids.new("call", 1_780_000_000 + number * 40 * DAY_S / calls) if number % 3 else f"call_odd_{number}"
            made = name.replace("call_", "decision_")
            value = floats[number % len(floats)]
            request = Body(
                id=f"{name}-request",
                at=1.5,
                tenant=scope.tenant,
                workspace=scope.workspace,
                call=name,
                role="request",
                data=bytes(range(256)),
                expires_at=4e9,
            )
            await ledger.append(
                call(name, scope, stream=bool(number % 2), user="Zoë “Q” \\N\t\n", extra={"deep": [1, None, "é"]}),
                decision(made, name, scope, live=bool(number % 5), context={"x": value, "e": (value, 0.0)}),
                outcome(name, scope, latency_ms=abs(value), error="" if number % 4 else "timeout_total"),
                rating(f"feedback_{number}", name, scope, comment="\\. \\N '\"; DROP TABLE calls; -- 東京 🙂"),
                request,
            )
        ledger.save_snapshot(Snapshot(projection="p", version=1, cursor=ledger.head(), at=0.1, state=b"\x00\xff"))
    finally:
        ledger.close()
    memory = Memory(db, None)
    for scope in (A, B):
        texts = ("A pawl drops into the teeth", f"The brake holds the chain of {scope.tenant}", "caf\u00e9 \\N")
        passages = [Passage(number, number, number, 0.1 * number, text) for number, text in enumerate(texts)]
        memory.put_text(scope, "talks", "first", passages)


def _sums(db: Database) -> list[move.Sum]:
    with db.read() as connection:
        return move.totals(connection)


def _all(ledger: SqlLedger) -> list[Entry]:
    """Every entry. Places that came from PostgreSQL have gaps, so a read may give fewer than it could."""
    found: list[Entry] = []
    while more := ledger.read(ALL, after=found[-1].seq if found else 0):
        found += more
    return found


def _whole(source: Database, target: Database) -> None:
    move.move(source, target)
    reindex(target)
    move.finish(source, target)


async def test_there_and_back_is_the_same(sqlite: Database, postgresql: Database, tmp_path: Path) -> None:
    await _fill(sqlite)
    before = _sums(sqlite)
    assert {one.table for one in before if one.rows} >= {"calls", "decisions", "bodies", "contexts", "chunks"}
    _whole(sqlite, postgresql)
    assert _sums(sqlite) == _sums(postgresql) == before
    ledgers = SqlLedger(sqlite), SqlLedger(postgresql)
    try:
        assert _all(ledgers[0]) == _all(ledgers[1])
        assert ledgers[0].head() == ledgers[1].head()
        found = [search(Memory(db, None), A, "talks", "the pawl of the cafe") for db in (sqlite, postgresql)]
        assert found[0] == found[1]
        assert not any(B.tenant in hit.text for hit in found[1].hits)
        last = ledgers[1].head()
        assert await ledgers[1].append(call("call_after")) > last
        Memory(postgresql, None).put_text(A, "talks", "second", [Passage(0, 0, 0, 0.0, "moved and written to")])
    finally:
        for ledger in ledgers:
            ledger.close()
    back = Database(tmp_path / "back" / "ledger.db")
    back.migrate()
    _whole(postgresql, back)
    assert _sums(back) == _sums(postgresql)
    ledger = SqlLedger(back)
    try:
        highest = _all(ledger)[-1].seq
        assert highest == ledger.head()
        assert await ledger.append(call("call_home")) == highest + 1
        assert search(Memory(back, None), A, "talks", "written").hits[0].item == "second"
    finally:
        ledger.close()
        back.close()


async def test_digests_see_one_changed_bit_and_no_order(sqlite: Database, postgresql: Database) -> None:
    await _fill(sqlite, 20)
    before = {one.table: one for one in _sums(sqlite)}
    with sqlite.write() as connection:
        rows = connection.execute(sa.select(schema.outcomes)).mappings().all()
        connection.execute(sa.delete(schema.outcomes))
        connection.execute(sa.insert(schema.outcomes), [dict(row) for row in reversed(rows)])
    assert {one.table: one for one in _sums(sqlite)} == before
    with sqlite.write() as connection:
        connection.execute(sa.update(schema.outcomes).where(schema.outcomes.c.cost_nusd == 7).values(cost_nusd=6))
    changed = {one.table: one for one in _sums(sqlite)}
    assert [name for name, one in changed.items() if one != before[name]] == ["outcomes"]


async def test_a_move_that_broke_off_goes_on(sqlite: Database, postgresql: Database) -> None:
    await _fill(sqlite, 60)

    def break_off(table: str, done: int, rows: int) -> None:
        if table == "outcomes":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move.move(sqlite, postgresql, break_off)
    assert _sums(postgresql) != _sums(sqlite)
    other = Database(Path(sqlite.url.database or "").with_name("other.db"))
    other.migrate()
    with pytest.raises(LedgerError, match="another move"):
        move.move(other, postgresql)
    other.close()
    _whole(sqlite, postgresql)
    assert _sums(postgresql) == _sums(sqlite)
    with pytest.raises(LedgerError, match="rows of its own"):
        move.move(sqlite, postgresql)


async def test_what_changes_on_the_way_is_noticed(sqlite: Database, postgresql: Database) -> None:
    await _fill(sqlite, 10)
    with postgresql.write() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.value := 0.5; RETURN NEW; END $$"
        )
        connection.exec_driver_sql("CREATE TRIGGER t BEFORE INSERT ON feedback FOR EACH ROW EXECUTE FUNCTION spoil()")
    with pytest.raises(LedgerError, match=r"table feedback: 10 rows .* source is untouched"):
        move.move(sqlite, postgresql)


def test_an_older_source_is_not_moved(sqlite: Database, postgresql: Database) -> None:
    with sqlite.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(LedgerError, match="windlass doctor"):
        move.move(sqlite, postgresql)


def _but_the_trail(home: Path) -> list[move.Sum]:
    db = Database(home / "ledger.db")
    try:
        with db.read() as connection:
            return [one for one in move.totals(connection) if one.table != "audit"]
    finally:
        db.close()


def test_the_command_moves_also_after_sigkill(database_url: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = [str(path) for path in corpus.write(tmp_path / "talks", 30, 60, 1)]
    quiet = {"WINDLASS_MEMORY__EMBEDDER": "off"}
    assert program.windlass(home, "ingest", *files, **quiet).returncode == 0
    before = _but_the_trail(home)
    killed = program.start(home, "db", "move", "--to", database_url, **quiet)
    target, deadline = Database(database_url), time.monotonic() + 30
    while not move.has_table(target, "items") and time.monotonic() < deadline:
        time.sleep(0.005)
    program.kill(killed)
    refused = program.windlass(home, "db", "move", "--to", f"sqlite:///{home / 'ledger.db'}", **quiet)
    assert refused.returncode == 2
    moved = program.windlass(home, "db", "move", "--to", database_url, "--json", **quiet)
    assert moved.returncode == 0, moved.stderr + moved.stdout
    report = json.loads(moved.stdout)
    assert {one["table"]: one["rows"] for one in report["tables"]}["items"] == 30
    assert report["storage.database_url"] == database_url
    assert _but_the_trail(home) == before, "the source has no more than a row in its audit trail"
    assert ("move",) in program.rows(home, "SELECT action FROM audit")
    asked = program.windlass(home, "doctor", "--replay", "--json", WINDLASS_STORAGE__DATABASE_URL=database_url, **quiet)
    assert json.loads(asked.stdout)["replay"]["equal"]
    again = program.windlass(home, "db", "move", "--to", database_url, **quiet)
    assert again.returncode == 1
    assert "give an empty database" in again.stderr
    target.close()


def test_nothing_moves_while_a_server_runs_or_a_run_is_open(database_url: str, tmp_path: Path) -> None:
    with program.server(tmp_path):
        moved = program.windlass(tmp_path, "db", "move", "--to", database_url)
        assert moved.returncode == 1
        assert "a server runs" in moved.stderr
    talk = corpus.write(tmp_path / "talks", 1, 40, 1)[0]
    assert program.windlass(tmp_path, "ingest", str(talk), "--no-wait").returncode == 0
    moved = program.windlass(tmp_path, "db", "move", "--to", database_url)
    assert moved.returncode == 1
    assert "not finished" in moved.stderr


def test_nothing_to_move_is_said_and_nothing_made(database_url: str, tmp_path: Path) -> None:
    moved = program.windlass(tmp_path, "db", "move", "--to", database_url)
    assert moved.returncode == 2
    assert "there is no ledger" in moved.stderr
    assert not (tmp_path / "ledger.db").exists()
