"""`windlass db backup` and `db restore` of the real program, on both databases."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.scenario import corpus, program
from tests.scenario.postgres import Postgres, binary
from windlass.ledger.check import AT, A, call, rating
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, Body
from windlass.ledger.sql import SqlLedger
from windlass.memory.retrieval import search
from windlass.memory.store import Memory
from windlass.records import Erasure, Scope, user_digest

pytestmark = pytest.mark.scenario
QUIET = {"WINDLASS_MEMORY__EMBEDDER": "off"}
SECRET = "heliotrope-manuscript"


def test_a_backup_of_a_running_server_is_restored_elsewhere(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "a.tar.gz"
    with program.server(home, **QUIET) as url:
        asked = {"model": "auto", "messages": [{"role": "user", "content": "Why a pawl?"}]}
        assert program.post(f"{url}/v1/chat/completions", asked)[0] == 200
        made = program.windlass(home, "db", "backup", str(file), "--json", **QUIET)
        assert made.returncode == 0, made.stderr
        refused = program.windlass(home, "db", "restore", str(file), **QUIET)
        assert refused.returncode == 1
        assert "a server runs" in refused.stderr
    assert {one["table"]: one["rows"] for one in json.loads(made.stdout)["tables"]}["calls"] == 1
    restored = program.windlass(tmp_path / "new", "db", "restore", str(file), **QUIET)
    assert restored.returncode == 0, restored.stderr
    with program.server(tmp_path / "new", **QUIET):
        checked = program.windlass(tmp_path / "new", "doctor", "--replay", "--json", **QUIET)
        assert json.loads(checked.stdout)["replay"]["equal"]
    assert program.rows(tmp_path / "new", "SELECT count(*) FROM calls") == [(1,)]


def test_a_run_that_was_open_in_the_backup_goes_on_after_it(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "a.tar.gz"
    talk = corpus.write(tmp_path / "talks", 1, 40, 1)[0]
    assert program.windlass(home, "ingest", str(talk), "--no-wait").returncode == 0
    assert program.windlass(home, "db", "backup", str(file)).returncode == 0
    assert program.windlass(tmp_path / "new", "db", "restore", str(file)).returncode == 0
    moved = program.windlass(tmp_path / "new", "db", "move", "--to", f"sqlite:///{tmp_path}/other/ledger.db")
    assert "not finished" in moved.stderr


async def test_postgresql_is_dumped_and_restored(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    corpus.write(tmp_path / "talks", 2, 40, 1)
    here = {"WINDLASS_STORAGE__DATABASE_URL": database_url, **QUIET}
    assert program.windlass(tmp_path / "home", "ingest", str(tmp_path / "talks"), **here).returncode == 0
    await _forget(database_url)
    file, fresh = tmp_path / "a.tar.gz", postgres.create()
    made = program.windlass(tmp_path / "home", "db", "backup", str(file), "--json", **here)
    assert made.returncode == 0, made.stderr
    with tarfile.open(file) as archive:
        content = b"".join(stream.read() for member in archive if (stream := archive.extractfile(member)))
    assert content.startswith(b"{")
    there = {**here, "WINDLASS_STORAGE__DATABASE_URL": fresh}
    try:
        restored = program.windlass(tmp_path / "new", "db", "restore", str(file), "--json", **there)
        assert restored.returncode == 0, restored.stderr + restored.stdout
        assert json.loads(restored.stdout) == json.loads(made.stdout)
        old, new = Database(database_url), Database(fresh)
        ledgers = SqlLedger(old), SqlLedger(new)
        assert list(ledgers[0].read(ALL)) == list(ledgers[1].read(ALL))
        assert await ledgers[1].append(call("call_after")) > ledgers[0].head()
        found = [search(Memory(db, None), Scope(), "content", "windlass pawl chain") for db in (old, new)]
        assert found[0] == found[1]
        for ledger, db in zip(ledgers, (old, new), strict=True):
            ledger.close()
            db.close()
        again = program.windlass(tmp_path / "new", "db", "restore", str(file), **there)
        assert again.returncode == 1
        assert "not empty" in again.stderr
        wrong = program.windlass(tmp_path / "third", "db", "restore", str(file), **QUIET)
        assert wrong.returncode == 2
        assert "db move" in wrong.stderr
        _holds_nothing(file, tmp_path)
    finally:
        postgres.drop(fresh)


async def _forget(url: str) -> None:
    """Write what a user says, and forget them."""
    db = Database(url)
    ledger = SqlLedger(db)
    body = Body(
        id="body_1",
        at=AT,
        tenant=A.tenant,
        workspace=A.workspace,
        call="call_1",
        role="request",
        data=SECRET.encode(),
        expires_at=4e9,
    )
    await ledger.append(call("call_1", user="zoe"), rating("feedback_1", "call_1", comment=SECRET), body)
    erasure = Erasure(id="erasure_1", at=AT, tenant=A.tenant, workspace=A.workspace, user=user_digest(A, "zoe"))
    await ledger.append(erasure)
    assert ledger.erase(erasure) > 0
    ledger.close()
    db.close()


def _holds_nothing(file: Path, folder: Path) -> None:
    """The dump as SQL, which is not compressed, names neither the user nor their words."""

    with tarfile.open(file) as archive:
        archive.extract("database.dump", folder, filter="data")
    told = subprocess.run([binary("pg_restore"), "-f", "-", folder / "database.dump"], capture_output=True, check=True)
    assert b"COPY public.calls" in told.stdout
    assert b"heliotrop" not in told.stdout
    assert SECRET.encode().hex().encode() not in told.stdout
    assert b"zoe" not in told.stdout


def test_missing_client_programs_are_said(database_url: str, tmp_path: Path) -> None:
    here = {"WINDLASS_STORAGE__DATABASE_URL": database_url, **QUIET}
    assert program.windlass(tmp_path / "home", "doctor", **here).returncode in (0, 1)
    made = program.windlass(tmp_path / "home", "db", "backup", str(tmp_path / "a.tar.gz"), PATH="/nonexistent", **here)
    assert made.returncode == 1
    assert "postgresql-client" in made.stderr
    assert not (tmp_path / "a.tar.gz").exists()
