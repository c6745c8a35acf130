"""One archive of all that is stored, and back: SQLite by VACUUM INTO, PostgreSQL by pg_dump.

Both work in a folder beside their result, which goes at their end; that of a killed one goes with the next. A restore
puts two files in place: a marker stands beside them meanwhile, under which nothing starts and a restore begins anew.

The runs are copied before the ledger: a step's event is in the ledger before the step is checkpointed, so an archive
never knows a step as done without its event. Both ways write live rows alone: a backup made after a user was forgotten
holds nothing of them. The manifest holds the SHA-256 of every file and count and digest of every table.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from windlass.errors import InputError, LedgerError
from windlass.ledger import checkpoint, move, signing
from windlass.ledger.db import Database, make_folder
from windlass.ledger.integrity import RESTORING
from windlass.ledger.move import Sum

LEDGER, RUNS, DUMP, MANIFEST = "ledger.db", "runs.db", "database.dump", "manifest.json"
# Not the private key: whoever read the backup could sign with it.
AUDIT = (checkpoint.FILE, signing.PUBLIC)
SECRET = "keys.secret"
"""What virtual keys are hashed under. It is in the archive, or no key would open anything after a restore; alone it
opens nothing either: a key has 256 random bits, and none is in the archive."""
FORMAT = 1
WORKING, OWNER = ".windlass-backup-", "owner"
STALE_S = 86_400.0
"""A working folder that nobody could lock is left alone for so long."""
_BLOCK = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds. files: SHA-256 by name; tables: counted and digested as they are in the archive."""

    format: int
    made_at: float
    dialect: str
    migration: str
    files: dict[str, str]
    tables: list[Sum]


def write(db: Database, runs: Path, audit: Path, file: Path, *, now: float, secret: Path | None = None) -> Manifest:
    """Make the archive `file`, while others read and write. runs, audit: where the runs' file and the checkpoints are.
    secret: the file of the key secret, where there is one.

    InputError where `file` is there already, LedgerError where it cannot be written.
    """
    if file.exists():
        raise InputError(f"{file} is there already; give another name")
    with _beside(file.parent) as folder:
        tables = _sqlite_copies(db, runs, folder) if db.dialect == "sqlite" else _dumped(db, folder)
        for name in AUDIT:
            if (audit / name).exists():
                shutil.copyfile(audit / name, folder / name)
        if secret is not None and secret.exists():
            shutil.copyfile(secret, folder / SECRET)
        manifest = Manifest(
            format=FORMAT,
            made_at=now,
            dialect=db.dialect,
            migration=move.version(db),
            files={path.name: _sha256(path) for path in sorted(folder.iterdir())},
            tables=tables,
        )
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        whole = folder / "whole"
        with tarfile.open(whole, "w:gz", compresslevel=3) as archive:
            for name in (MANIFEST, *manifest.files):
                archive.add(folder / name, name)
        whole.chmod(0o600)
        with whole.open("rb") as written:
            os.fsync(written.fileno())
        whole.replace(file)
    return manifest


def read(
    file: Path, where: str | Path, runs: Path, audit: Path, unfinished: Path, *, secret: Path | None = None
) -> Manifest:
    """Put an archive back where nothing is yet, and check every table. See `write` for `runs`, `audit` and `secret`.

    unfinished: the file that tells the next start that runs are open. One that was cut goes on when it is done again;
    until then `integrity.half_restored` says so. Raises InputError for what is no whole archive, or of the other kind
    of database, LedgerError where something is there already or a table does not come out equal.
    """
    marker = runs.with_name(RESTORING)
    with _beside(runs.parent) as folder:
        manifest = _unpacked(file, folder)
        db = Database(where)
        try:
            if db.dialect != manifest.dialect:
                raise InputError(
                    f"{file} is a backup of {manifest.dialect}, the database in force is {db.dialect}; restore it into "
                    "its own kind and use `windlass db move` then"
                )
            _same(folder / SECRET, secret)
            _place(db, folder, runs, marker)
            _check(db, manifest)
        finally:
            db.close()
        make_folder(audit)
        for name in AUDIT:
            if name in manifest.files and not (audit / name).exists():
                shutil.move(folder / name, audit / name)
        if secret is not None and SECRET in manifest.files and not secret.exists():
            shutil.move(folder / SECRET, secret)
        unfinished.touch(mode=0o600)
        _sync(audit)
        _sync(runs.parent)
        marker.unlink()
    return manifest


@contextmanager
def _beside(parent: Path) -> Iterator[Path]:
    """A folder for the parts, on the same disk, readable by its owner only and gone at the end."""
    make_folder(parent)
    try:
        for left in parent.glob(f"{WORKING}*"):
            if _left_behind(left):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=WORKING, dir=parent) as folder, _held(Path(folder)):
            parts = Path(folder) / "parts"
            parts.mkdir(0o700)
            yield parts
    except OSError as exc:
        raise LedgerError(f"{parent} cannot be written: {exc}; make room there, or give another place") from exc


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a file in `folder` that appears locked, until the end; the kernel lets go of it on any death."""
    with (folder / "new").open("wb") as lock:
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "new").rename(folder / OWNER)
        yield


def _left_behind(folder: Path) -> bool:
    """Whether nobody works in `folder` any more."""
    try:
        with (folder / OWNER).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        # Of a process that has only begun, or of one that found no locks.
        with suppress(OSError):
            return time.time() - folder.stat().st_mtime > STALE_S
        return False
    except OSError:
        return False
    return True


def _sqlite_copies(db: Database, runs: Path, folder: Path) -> list[Sum]:
    if runs.exists():
        engine = Database(runs)
        try:
            _vacuum_into(engine, folder / RUNS)
        finally:
            engine.close()
    _vacuum_into(db, folder / LEDGER)
    copy = Database(folder / LEDGER)
    try:
        with copy.read() as connection:
            return move.totals(connection)
    finally:
        copy.close()


def _vacuum_into(db: Database, file: Path) -> None:
    with db.bare() as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(file),))


def _dumped(db: Database, folder: Path) -> list[Sum]:
    """pg_dump of the very snapshot that the digests are taken of."""
    with db.read() as connection:
        snapshot = connection.scalar(sa.text("SELECT pg_export_snapshot()"))
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
        _tool("pg_dump", db, folder, *options, f"--file={folder / DUMP}")
        return move.totals(connection)


def _tool(name: str, db: Database, folder: Path, *options: str) -> None:
    """Run a client program of PostgreSQL on `db`; the password goes by a file, where no list of processes shows it."""
    program, url = shutil.which(name), db.url
    if program is None:
        raise LedgerError(f"{name} is not on the PATH; install PostgreSQL's client programs (postgresql-client)")
    secret = folder / "pgpass"
    secret.touch(0o600)
    escaped = str(url.password or "").replace("\\", "\\\\").replace(":", "\\:")
    secret.write_text(f"*:*:*:*:{escaped}\n")
    parts: dict[str, str | int | None] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "dbname": url.database,
        "passfile": str(secret),
    }
    extra = {key: value for key, value in url.query.items() if isinstance(value, str)}
    conninfo = make_conninfo("", **extra, **parts)
    done = subprocess.run([program, *options, f"--dbname={conninfo}"], capture_output=True, text=True, check=False)
    secret.unlink()
    if done.returncode:
        raise LedgerError(f"{name} failed: {done.stderr.strip()[-500:]}; its version must be the server's or newer")


def _unpacked(file: Path, folder: Path) -> Manifest:
    """The archive's files in `folder`, each as the manifest says. Nothing else is taken out of it."""
    known = (MANIFEST, LEDGER, RUNS, DUMP, SECRET, *AUDIT)
    try:
        with tarfile.open(file, "r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() and member.name in known else None
                if stream is None:
                    raise InputError(f"{file} holds {member.name!r}, which no backup of ours does; give another file")
                with open(folder / member.name, "wb", opener=_private) as out:
                    shutil.copyfileobj(stream, out, _BLOCK)
                    out.flush()
                    os.fsync(out.fileno())
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, EOFError, zlib.error, tarfile.TarError, msgspec.DecodeError) as exc:
        raise InputError(f"{file} is no whole backup: {exc}; give another file") from exc
    if manifest.format != FORMAT:
        raise InputError(f"{file} has format {manifest.format}, this release reads {FORMAT}; update windlass")
    found = {path.name: _sha256(path) for path in folder.iterdir() if path.name != MANIFEST}
    if found != manifest.files:
        wrong = sorted(
            name for name in found.keys() | manifest.files.keys() if found.get(name) != manifest.files.get(name)
        )
        raise InputError(f"{file} was altered or cut: {', '.join(wrong)} differ from the manifest; give another backup")
    return manifest


def _same(part: Path, there: Path | None) -> None:
    """LedgerError where another key secret is in place: under it no key of the archive would open anything."""
    if there is not None and part.exists() and there.exists() and part.read_bytes() != there.read_bytes():
        raise LedgerError(f"{there} is not the key secret of this backup; put it aside, then restore again")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    """Have on the disk which files the folder holds."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _place(db: Database, folder: Path, runs: Path, marker: Path) -> None:
    """Put the parts where they belong, the marker before them. What stands under a marker was put there by a restore
    that was cut, and is replaced; a database of PostgreSQL comes in one transaction and so is there whole."""
    again = marker.exists()
    if db.dialect == "sqlite":
        places = {folder / LEDGER: Path(db.url.database or ""), folder / RUNS: runs}
        there = [] if again else [path for path in places.values() if path.exists()]
        if there:
            raise LedgerError(f"{there[0]} is there already; restore into an empty folder (WINDLASS_HOME)")
        _mark(marker)
        for part, path in places.items():
            _replace(path, part)
        return
    if move.has_table(db, "alembic_version"):
        if again:
            return
        raise LedgerError("the database is not empty; create a fresh one and set storage.database_url to it")
    _mark(marker)
    options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
    _tool("pg_restore", db, folder, *options, str(folder / DUMP))


def _replace(path: Path, part: Path) -> None:
    """Move the file `part` to `path`, in place of a database with its journals. A part that the archive lacks leaves
    none there."""
    beside = (path.with_name(f"{path.name}-{log}") for log in ("wal", "shm", "journal"))
    for left in (path, *beside, *path.parent.glob(f"{path.name}.journal-*")):
        left.unlink(missing_ok=True)
    if part.exists():
        shutil.move(part, path)


def _mark(marker: Path) -> None:
    marker.touch(mode=0o600)
    _sync(marker.parent)


def _check(db: Database, manifest: Manifest) -> None:
    """Every table as it was. An older schema is upgraded by the next start; its files were compared byte for byte."""
    if manifest.migration != move.newest():
        return
    with db.read() as connection:
        came = {one.table: one for one in move.totals(connection)}
    wrong = [one.table for one in manifest.tables if came.get(one.table) != one]
    if wrong:
        raise LedgerError(f"tables {', '.join(wrong)} did not come back as they were; restore into a fresh place again")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
