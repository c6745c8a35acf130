"""Backup and restore on SQLite: whole while others write, checked, empty of the forgotten, refused when altered."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from windlass.errors import InputError, LedgerError
from windlass.ledger import backup, move
from windlass.ledger.check import AT, A, call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.integrity import half_restored
from windlass.ledger.ledger import ALL, Body
from windlass.ledger.sql import SqlLedger
from windlass.memory.chunk import Passage
from windlass.memory.store import Memory
from windlass.records import Erasure, user_digest

SECRET = "heliotrope-manuscript"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "home" / "ledger.db")
    made.migrate()
    yield made
    made.close()


def _write(db: Database, file: Path) -> backup.Manifest:
    home = Path(db.url.database or "").parent
    return backup.write(db, home / "runs.db", home / "audit", file, now=AT)


def _read(file: Path, home: Path) -> backup.Manifest:
    return backup.read(file, home / "ledger.db", home / "runs.db", home / "audit", home / "runs.unfinished")


async def _fill(db: Database, calls: int = 5) -> None:
    ledger = SqlLedger(db)
    try:
        for number in range(calls):
            name = f"call_{number}"
            words = Body(
                id=f"{name}-request",
                at=AT,
                tenant=A.tenant,
                workspace=A.workspace,
                call=name,
                role="request",
                data=SECRET.encode() * 100,
                user="zoe",
                expires_at=4e9,
            )
            said = rating(f"feedback_{number}", name, comment=f"my {SECRET}")
            await ledger.append(
                call(name, user="zoe"), decision(f"decision_{number}", name), outcome(name), said, words
            )
    finally:
        ledger.close()


def _content(file: Path) -> bytes:
    """Every byte in an archive."""
    with tarfile.open(file) as archive:
        return b"".join(stream.read() for member in archive if (stream := archive.extractfile(member)))


async def test_what_is_restored_is_what_was_backed_up(db: Database, tmp_path: Path) -> None:
    await _fill(db)
    home = tmp_path / "home"
    (home / "audit").mkdir()
    (home / "audit" / "checkpoints.jsonl").write_text("{}\n")
    (home / "audit" / "key.pem").write_text("PRIVATE-KEY")
    with sqlite3.connect(home / "runs.db") as runs:
        runs.execute("CREATE TABLE kept (n)")
        runs.execute("INSERT INTO kept VALUES (42)")
    runs.close()
    made = _write(db, tmp_path / "a.tar.gz")
    assert set(made.files) == {"ledger.db", "runs.db", "checkpoints.jsonl"}
    assert (tmp_path / "a.tar.gz").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE-KEY" not in _content(tmp_path / "a.tar.gz")
    assert _read(tmp_path / "a.tar.gz", tmp_path / "new") == made
    again = Database(tmp_path / "new" / "ledger.db")
    with db.read() as one, again.read() as other:
        assert move.totals(one) == move.totals(other) == made.tables
    ledgers = SqlLedger(db), SqlLedger(again)
    assert list(ledgers[0].read(ALL)) == list(ledgers[1].read(ALL))
    assert await ledgers[1].append(call("call_after")) == ledgers[0].head() + 1
    for ledger in ledgers:
        ledger.close()
    again.close()
    with sqlite3.connect(tmp_path / "new" / "runs.db") as runs:
        assert runs.execute("SELECT n FROM kept").fetchall() == [(42,)]
    runs.close()
    assert (tmp_path / "new" / "audit" / "checkpoints.jsonl").read_text() == "{}\n"
    assert not [path for path in tmp_path.rglob(".windlass-backup-*")]


async def test_a_backup_while_others_write_is_of_one_moment(db: Database, tmp_path: Path) -> None:
    ledger = SqlLedger(db)
    over = asyncio.Event()

    async def append() -> int:
        number = 0
        while not over.is_set():
            await ledger.append(call(f"call_{number}"), outcome(f"call_{number}"))
            number += 1
        return number

    writing = asyncio.create_task(append())
    await asyncio.sleep(0.05)
    for name in ("a", "b"):
        await asyncio.to_thread(_write, db, tmp_path / f"{name}.tar.gz")
    over.set()
    written = await writing
    ledger.close()
    counts = []
    for name in ("a", "b"):
        rows = {one.table: one.rows for one in _read(tmp_path / f"{name}.tar.gz", tmp_path / name).tables}
        assert rows["calls"] == rows["outcomes"]
        counts.append(rows["calls"])
    assert 0 < counts[0] < counts[1] <= written


async def test_a_backup_made_after_forgetting_holds_nothing_of_the_user(db: Database, tmp_path: Path) -> None:
    await _fill(db, 50)
    memory = Memory(db, None)
    memory.put_text(A, "talks", "first", [Passage(0, 0, 0, 0.0, f"words about {SECRET}")])
    _write(db, tmp_path / "before.tar.gz")
    assert SECRET.encode() in _content(tmp_path / "before.tar.gz")
    ledger = SqlLedger(db)
    erasure = Erasure(id="erasure_1", at=AT, tenant=A.tenant, workspace=A.workspace, user=user_digest(A, "zoe"))
    await ledger.append(erasure)
    ledger.erase(erasure)
    ledger.close()
    memory.remove(A, "talks", "first")
    _write(db, tmp_path / "after.tar.gz")
    content = _content(tmp_path / "after.tar.gz")
    assert b"heliotrop" not in content
    assert b"zoe" not in content


async def test_nothing_is_overwritten(db: Database, tmp_path: Path) -> None:
    await _fill(db, 1)
    _write(db, tmp_path / "a.tar.gz")
    with pytest.raises(InputError, match="there already"):
        _write(db, tmp_path / "a.tar.gz")
    with pytest.raises(LedgerError, match="empty folder"):
        _read(tmp_path / "a.tar.gz", tmp_path / "home")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "runs.db").write_bytes(b"mine")
    with pytest.raises(LedgerError, match=r"runs\.db is there"):
        _read(tmp_path / "a.tar.gz", tmp_path / "half")
    assert not (tmp_path / "half" / "ledger.db").exists()


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "foreign", "path", "link", "altered", "format"])
async def test_what_is_no_whole_backup_is_refused(db: Database, tmp_path: Path, kind: str) -> None:
    await _fill(db, 1)
    good, bad = tmp_path / "good.tar.gz", tmp_path / "bad.tar.gz"
    _write(db, good)
    match kind:
        case "empty":
            bad.write_bytes(b"")
        case "text":
            bad.write_bytes(b"no archive")
        case "cut":
            bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
        case "foreign":
            _packed(bad, {"notes.txt": b"hello"})
        case "path":
            _packed(bad, {"../ledger.db": b"hello"})
        case "link":
            with tarfile.open(bad, "w:gz") as archive:
                link = tarfile.TarInfo("ledger.db")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
                archive.addfile(link)
        case _:
            parts = _parts(good)
            if kind == "altered":
                parts["ledger.db"] = parts["ledger.db"].replace(b"call_0", b"call_9")
            else:
                parts["manifest.json"] = parts["manifest.json"].replace(b'"format": 1', b'"format": 2')
            _packed(bad, parts)
    with pytest.raises(InputError, match=r"bad\.tar\.gz"):
        _read(bad, tmp_path / "new")
    assert not (tmp_path / "new" / "ledger.db").exists()
    assert not (tmp_path / "ledger.db").exists()


async def test_the_files_that_are_restored_are_their_owners_alone(db: Database, tmp_path: Path) -> None:
    await _fill(db, 1)
    (tmp_path / "home" / "runs.db").write_bytes(b"")
    _write(db, tmp_path / "a.tar.gz")
    before = os.umask(0)
    try:
        _read(tmp_path / "a.tar.gz", tmp_path / "new")
    finally:
        os.umask(before)
    assert {path.name for path in (tmp_path / "new").iterdir()} >= {"ledger.db", "runs.db", "runs.unfinished"}
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("cut", ["ledger.db", "runs.db", "checkpoints.jsonl", "runs.unfinished"])
async def test_a_restore_that_was_cut_anywhere_is_said_and_goes_on(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """The process dies right after a file was put in its place."""
    await _fill(db)
    home, new, file = tmp_path / "home", tmp_path / "new", tmp_path / "a.tar.gz"
    (home / "audit").mkdir()
    (home / "audit" / "checkpoints.jsonl").write_text("{}\n")
    with sqlite3.connect(home / "runs.db") as runs:
        runs.execute("CREATE TABLE kept (n)")
    runs.close()
    made = _write(db, file)
    done: dict[str, Callable[..., object]] = {"move": shutil.move, "touch": Path.touch}

    def moved(source: Path, target: Path) -> None:
        done["move"](source, target)
        if target.name == cut:
            raise SystemExit(137)

    def touched(path: Path, **named: int) -> None:
        done["touch"](path, **named)
        if path.name == cut:
            raise SystemExit(137)

    with monkeypatch.context() as dying:
        dying.setattr(backup.shutil, "move", moved)
        dying.setattr(Path, "touch", touched)
        with pytest.raises(SystemExit):
            _read(file, new)
    assert "db restore" in half_restored(new), "nothing starts on it"
    assert _read(file, new) == made
    assert not half_restored(new)
    again = Database(new / "ledger.db")
    with again.read() as connection:
        assert move.totals(connection) == made.tables
    again.close()
    assert {"runs.db", "runs.unfinished"} <= {path.name for path in new.iterdir()}
    assert (new / "audit" / "checkpoints.jsonl").read_text() == "{}\n"
    with pytest.raises(LedgerError, match="empty folder"):
        _read(file, new)


async def test_a_refused_restore_leaves_no_mark(db: Database, tmp_path: Path) -> None:
    await _fill(db, 1)
    _write(db, tmp_path / "a.tar.gz")
    with pytest.raises(LedgerError):
        _read(tmp_path / "a.tar.gz", tmp_path / "home")
    with pytest.raises(InputError):
        _read(tmp_path / "none.tar.gz", tmp_path / "home")
    assert not half_restored(tmp_path / "home")
    assert not (tmp_path / "home" / "runs.unfinished").exists()


def test_what_a_killed_backup_left_goes_with_the_next(db: Database, tmp_path: Path) -> None:
    asyncio.run(_fill(db, 1))
    left = "import os, sys; from pathlib import Path; from windlass.ledger import backup\n"
    left += "with backup._beside(Path(sys.argv[1])) as folder: (folder / 'ledger.db').touch(); os.kill(os.getpid(), 9)"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", left, str(tmp_path)], check=False)
    assert len(list(tmp_path.glob(".windlass-backup-*"))) == 1, "the second swept what the first had left"
    with backup._beside(tmp_path) as mine:
        assert list(tmp_path.glob(".windlass-backup-*")) == [mine.parent]
        _write(db, tmp_path / "a.tar.gz")
        assert mine.exists(), "one that is at work is left alone"
    old, new = tmp_path / ".windlass-backup-old", tmp_path / ".windlass-backup-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (1.0, 1.0))
    _write(db, tmp_path / "b.tar.gz")
    assert not old.exists()
    assert new.exists(), "this may be one that is just beginning"


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no whole backup"):
        _read(tmp_path / "none.tar.gz", tmp_path / "new")


def _parts(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {member.name: stream.read() for member in archive if (stream := archive.extractfile(member))}


def _packed(file: Path, parts: dict[str, bytes]) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_the_key_secret_goes_with_the_keys(db: Database, tmp_path: Path) -> None:
    """Without it no key of a restored database would open anything."""
    home, back = tmp_path / "home", tmp_path / "back"
    secret = home / backup.SECRET
    secret.write_bytes(b"s" * 32)
    parts = home / "runs.db", home / "audit"
    backup.write(db, *parts, tmp_path / "with.tar.gz", now=AT, secret=secret)
    assert backup.SECRET not in backup.write(db, *parts, tmp_path / "without.tar.gz", now=AT).files
    there = back / "ledger.db", back / "runs.db", back / "audit", back / "runs.unfinished"
    back.mkdir()
    (back / backup.SECRET).write_bytes(b"t" * 32)
    with pytest.raises(LedgerError, match="not the key secret of this backup; put it aside"):
        backup.read(tmp_path / "with.tar.gz", *there, secret=back / backup.SECRET)
    assert [path.name for path in back.iterdir()] == [backup.SECRET], "nothing is put in place"
    (back / backup.SECRET).unlink()
    backup.read(tmp_path / "with.tar.gz", *there, secret=back / backup.SECRET)
    assert (back / backup.SECRET).read_bytes() == b"s" * 32
    assert (back / backup.SECRET).stat().st_mode & 0o777 == 0o600


def test_a_secret_that_is_kept_elsewhere_is_not_put_in_place(db: Database, tmp_path: Path) -> None:
    home, back = tmp_path / "home", tmp_path / "back"
    (home / backup.SECRET).write_bytes(b"s" * 32)
    file = tmp_path / "with.tar.gz"
    backup.write(db, home / "runs.db", home / "audit", file, now=AT, secret=home / backup.SECRET)
    _read(file, back)
    assert not (back / backup.SECRET).exists()
