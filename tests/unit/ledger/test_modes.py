"""What others on the machine may read of the files that are made: nothing, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from windlass.ledger.audit import Audit
from windlass.ledger.db import Database, workflow_engine
from windlass.ledger.signing import PUBLIC


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o177])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_and_folder_are_their_owners_alone(tmp_path: Path, umask: int) -> None:
    home = tmp_path / "home"
    db = Database(home / "ledger.db")
    db.migrate()
    Audit(db, home / "audit").start("windlass")
    runs = workflow_engine(home / "runs.db", "normal")
    with runs.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (n)"))
    for folder in (home, home / "audit"):
        assert folder.stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in home.rglob("*") if path.is_file()}
    assert {"ledger.db", "ledger.db-wal", "runs.db", "runs.db-wal", "key.pem", "checkpoints.jsonl"} <= files.keys()
    assert {name: mode for name, mode in files.items() if mode & 0o177 and name != PUBLIC} == {}
    runs.dispose()
    db.close()


def test_what_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    (home / "ledger.db").touch()
    (home / "ledger.db").chmod(0o640)
    db = Database(home / "ledger.db")
    db.migrate()
    db.close()
    assert home.stat().st_mode & 0o777 == 0o755
    assert (home / "ledger.db").stat().st_mode & 0o777 == 0o640


def test_a_database_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite://", "sqlite:///:memory:"):
        db = Database(url)
        with db.write() as connection:
            connection.execute(sa.text("CREATE TABLE kept (n)"))
        db.close()
    assert list(tmp_path.iterdir()) == []
