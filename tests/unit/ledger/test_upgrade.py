"""A database of the release before, upgraded: nothing is lost, and the policies rebuild from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from tests.unit.ledger import earlier

from windlass.errors import LedgerError
from windlass.ledger import db as db_module
from windlass.ledger.db import Database
from windlass.ledger.move import newest, version


def test_the_fixture_is_of_the_first_migration(tmp_path: Path) -> None:
    db = Database(earlier.unpack(tmp_path / "ledger.db"))
    assert version(db) == "0001" < newest()
    db.close()


def test_the_files_are_named_by_their_migrations() -> None:
    """A start tells the newest by the names: Alembic, which reads them all, costs it 0.1 s."""
    scripts = ScriptDirectory(str(Path(db_module.__file__).parent / "migrations"))
    assert scripts.get_current_head() == newest()


def test_a_database_that_is_level_is_not_upgraded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgraded: list[str] = []
    monkeypatch.setattr(command, "upgrade", lambda _config, to: upgraded.append(to))
    db = Database(earlier.unpack(tmp_path / "ledger.db"))
    db.migrate()
    assert upgraded == ["head"]
    monkeypatch.undo()
    db.migrate()
    monkeypatch.setattr(command, "upgrade", lambda _config, to: upgraded.append(to))
    db.migrate()
    assert upgraded == ["head"]
    db.close()


def test_an_upgrade_keeps_every_record(tmp_path: Path) -> None:
    file = earlier.unpack(tmp_path / "ledger.db")
    before = dict(earlier.tables(file))
    db = Database(file)
    for _ in range(2):
        db.migrate()
        earlier.check_reads_back(db, before)
    db.close()


async def test_the_policies_rebuild_from_an_upgraded_ledger(tmp_path: Path) -> None:
    earlier.unpack(tmp_path / "ledger.db")
    await earlier.check_replays(tmp_path)


def test_a_database_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    db = Database(earlier.unpack(tmp_path / "ledger.db"))
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match="update windlass"):
        db.migrate()
    assert version(db) == "9999"
    db.close()
