"""Whatever is done to any row of the trail, of the sealed ledger, or to any line of the checkpoints is found."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from windlass.ledger import check, seal
from windlass.ledger.audit import Audit, AuditRow, digest_of
from windlass.ledger.checkpoint import FILE
from windlass.ledger.db import Database
from windlass.ledger.signing import PRIVATE, PUBLIC
from windlass.ledger.sql import SqlLedger
from windlass.ledger.verify import Verdict, verify
from windlass.records import Erasure, RunEvent, Scope, StepResult
from windlass.testing import Clock

CALLS = 6
SEQUENCED = tuple(seal.COLUMNS)
COLUMNS = [(table, column) for table, columns in seal.COLUMNS.items() for column in columns]
AUDIT = ("place", "tenant", "workspace", "at", "actor", "action", "detail", "previous", "digest")


@cache
def _written() -> Path:
    """A folder with a ledger of all kinds, two seals, a trail of 17 rows and six checkpoints. Made once, read only."""
    folder = Path(_KEPT.name) / "written"
    folder.mkdir()
    db, clock = Database(f"sqlite:///{folder / 'ledger.db'}"), Clock(check.AT)
    db.migrate()
    ledger = SqlLedger(db)
    audit = Audit(db, folder / "audit", clock=clock, every_rows=4)
    audit.start("test")
    for half in range(2):
        asyncio.run(ledger.append(*_records(half)))
        for number in range(4):
            audit.append(Scope("a"), "key:ops", "forget", {"number": number})
            clock.forward(1)
        assert audit.seal() == 1
    audit.stop("test")
    assert verify(db, [folder / "audit" / FILE]).ok
    ledger.close()
    with db.bare() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return folder


_KEPT = TemporaryDirectory()


def _records(half: int) -> list[Any]:
    found: list[Any] = []
    for number in range(CALLS):
        name = f"{half}_{number}"
        found += [check.call(f"call_{name}", user="u"), check.decision(f"decision_{name}", f"call_{name}")]
        found += [check.outcome(f"call_{name}"), check.rating(f"feedback_{name}", f"call_{name}", comment="c")]
        event = {"id": f"event_{name}", "at": check.AT, "tenant": "a", "run": "run_1", "workflow": "w", "step": name}
        found += [RunEvent(**event, result=StepResult(status="ok"))]
        found += [Erasure(id=f"erasure_{name}", at=check.AT, tenant="a", user="digest")]
    return found


def _after(attack: Callable[[Path], None]) -> Verdict:
    """What `verify` says of a copy after `attack`."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(_written(), copy)
        attack(copy)
        db = Database(f"sqlite:///{copy / 'ledger.db'}")
        try:
            return verify(db, [copy / "audit" / FILE])
        finally:
            db.close()


def _sql(copy: Path, statement: str, *values: Any) -> int:
    with closing(sqlite3.connect(copy / "ledger.db")) as connection, connection:
        return connection.execute(statement, values).rowcount


def _count(table: str) -> int:
    with closing(sqlite3.connect(_written() / "ledger.db")) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _key(table: str) -> str:
    return "place" if table == "audit" else "seq"


def _nth(table: str, number: int) -> int:
    """The place of one of the table's rows."""
    with closing(sqlite3.connect(_written() / "ledger.db")) as connection:
        places = [row[0] for row in connection.execute(f"SELECT {_key(table)} FROM {table} ORDER BY 1")]
    return int(places[number % len(places)])


def _changed(value: Any, how: int) -> Any:
    """Another value of the same kind, or of another."""
    match value:
        case str():
            return (value + "x", "", value[:-1], value.swapcase() + " ", 7, None)[how % 6] if value else "x"
        case int():
            return (value + 1, -value - 1, 2**62, f"{value}x")[how % 4]
        case float():
            return (value + 1e-6, -value - 1, 0.0 if value else 1.0, "x")[how % 4]
    return 0.5


anything = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
numbers = st.integers(0, 10_000)


def test_what_nobody_touched_fits() -> None:
    verdict = _after(lambda copy: None)
    assert verdict.ok
    assert (verdict.seals, verdict.sealed_rows, verdict.unsigned) == (2, 12 * CALLS, 0)
    assert verdict.rows == _count("audit")
    assert verdict.checkpoints >= 4


@anything
@given(table=st.sampled_from(("audit", *SEQUENCED)), column=numbers, row=numbers, how=numbers)
def test_an_altered_value_is_found(table: str, column: int, row: int, how: int) -> None:
    columns = AUDIT if table == "audit" else seal.COLUMNS[table]
    name = columns[column % len(columns)]
    place = _nth(table, row)

    def attack(copy: Path) -> None:
        with closing(sqlite3.connect(copy / "ledger.db")) as connection:
            before = connection.execute(f'SELECT "{name}" FROM {table} WHERE {_key(table)} = ?', (place,)).fetchone()[0]
        after = _changed(before, how)
        after = after if name != _key(table) and after is not None else 10**9
        assert _sql(copy, f'UPDATE OR REPLACE {table} SET "{name}" = ? WHERE {_key(table)} = ?', after, place) == 1

    assert not _after(attack).ok


@anything
@given(table=st.sampled_from(("audit", *SEQUENCED)), row=numbers)
def test_a_deleted_row_is_found(table: str, row: int) -> None:
    place = _nth(table, row)
    verdict = _after(lambda copy: _sql(copy, f"DELETE FROM {table} WHERE {_key(table)} = ?", place) and None)
    assert not verdict.ok
    if table != "audit":
        assert f"{table}: {CALLS} rows were sealed, {CALLS - 1} are there" in verdict.findings[0].why


@anything
@given(table=st.sampled_from(("audit", *SEQUENCED)), one=numbers, other=numbers)
def test_two_rows_that_changed_places_are_found(table: str, one: int, other: int) -> None:
    first, second = _nth(table, one), _nth(table, other)
    if first == second:
        return

    def attack(copy: Path) -> None:
        for there, here in ((-1, first), (first, second), (second, -1)):
            _sql(copy, f"UPDATE {table} SET {_key(table)} = ? WHERE {_key(table)} = ?", there, here)

    assert not _after(attack).ok


@anything
@given(table=st.sampled_from(SEQUENCED), row=numbers, where=st.sampled_from((0, -5, 1)))
@example(table="calls", row=0, where=0)
def test_a_row_that_was_slipped_in_is_found(table: str, row: int, where: int) -> None:
    """Below the first place as well as between the sealed ones."""
    place = _nth(table, row)

    def attack(copy: Path) -> None:
        with closing(sqlite3.connect(copy / "ledger.db")) as connection, connection:
            held = {found[0] for found in connection.execute(f"SELECT seq FROM {table}")}
            free = where if where < 1 else min(set(range(1, 12 * CALLS)) - held)
            columns = ", ".join(f'"{name}"' for name in _names(connection, table) if name not in ("seq", "id"))
            connection.execute(
                f"INSERT INTO {table} (seq, id, {columns}) SELECT ?, 'made_up', {columns} FROM {table} WHERE seq = ?",
                (free, place),
            )

    assert not _after(attack).ok


def _names(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    return (row[1] for row in connection.execute(f"PRAGMA table_info({table})"))


@anything
@given(kept=st.integers(0, 40))
def test_a_trail_that_was_cut_off_is_found_even_with_its_counter(kept: int) -> None:
    left = min(kept, _count("audit") - 1)

    def attack(copy: Path) -> None:
        _sql(copy, "DELETE FROM audit WHERE place > ?", left)
        _sql(copy, "UPDATE heads SET value = ? WHERE name = 'audit'", left)

    assert not _after(attack).ok


@anything
@given(row=numbers, rewritten=st.booleans())
def test_a_trail_that_was_written_anew_is_found(row: int, rewritten: bool) -> None:
    """One row is altered, and the digests of all that follow are made again, as somebody without the key can."""
    place = _nth("audit", row)

    def attack(copy: Path) -> None:
        with closing(sqlite3.connect(copy / "ledger.db")) as connection, connection:
            connection.row_factory = sqlite3.Row
            found = [dict(one) for one in connection.execute("SELECT * FROM audit ORDER BY place")]
            previous = found[place - 2]["digest"] if place > 1 else ""
            for fields in found[place - 1 :]:
                fields |= {"previous": previous} | ({"actor": "nobody"} if fields["place"] == place else {})
                previous = fields["digest"] = digest_of(AuditRow(**fields))
                connection.execute(
                    "UPDATE audit SET actor = :actor, previous = :previous, digest = :digest WHERE place = :place",
                    fields,
                )

    verdict = _after(attack)
    assert not verdict.ok
    assert "written anew" in verdict.findings[0].why


def _lines(copy: Path) -> list[bytes]:
    return (copy / "audit" / FILE).read_bytes().splitlines(keepends=True)


@anything
@given(line=numbers, at=numbers, bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_checkpoints_is_found(line: int, at: int, bit: int) -> None:
    def attack(copy: Path) -> None:
        lines = _lines(copy)
        chosen = bytearray(lines[line % len(lines)])
        chosen[at % (len(chosen) - 1)] ^= 1 << bit
        lines[line % len(lines)] = bytes(chosen)
        (copy / "audit" / FILE).write_bytes(b"".join(lines))

    assert not _after(attack).ok


@anything
@given(seed=numbers)
def test_checkpoints_that_were_dropped_or_moved_are_found(seed: int) -> None:
    """All but one case: the last line alone, which only a copy elsewhere can tell (docs/explanation/audit.md)."""

    def attack(copy: Path) -> None:
        lines, chance = _lines(copy), random.Random(seed)
        kept = [line for line in lines[:-1] if chance.random() < 0.7] + [lines[-1]]
        if kept == lines or chance.random() < 0.3:
            kept[0], kept[-1] = kept[-1], kept[0]
        if kept == lines:
            kept = lines[1:]
        (copy / "audit" / FILE).write_bytes(b"".join(kept))

    assert not _after(attack).ok


@pytest.mark.parametrize("gone", [(FILE,), (FILE, PRIVATE, PUBLIC)])
def test_checkpoints_that_are_all_gone_are_found(gone: tuple[str, ...]) -> None:
    def attack(copy: Path) -> None:
        for name in gone:
            (copy / "audit" / name).unlink()

    assert not _after(attack).ok


def test_a_new_key_with_new_checkpoints_is_found() -> None:
    def attack(copy: Path) -> None:
        shutil.rmtree(copy / "audit")
        db = Database(f"sqlite:///{copy / 'ledger.db'}")
        Audit(db, copy / "audit").checkpoint()
        db.close()

    found = _after(attack).findings
    assert any("no other line of the key" in finding.why for finding in found)
