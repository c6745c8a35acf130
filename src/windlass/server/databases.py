"""The flows of `windlass db`: move everything to another database, back it up, restore it."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import time
from typing import Any, NoReturn

import msgspec
from rich.markup import escape
from rich.table import Table

import windlass.runtime  # noqa: F401 (all rooms, and with them all tables, which `move` copies)
from windlass.errors import FolderBusy, InputError, LedgerError, WorkflowError
from windlass.gateway.access.keys import SECRET_FILE
from windlass.ledger import backup, move, workers
from windlass.ledger.audit import SYSTEM, Audit
from windlass.ledger.backup import LEDGER, Manifest
from windlass.ledger.db import Database
from windlass.ledger.folder import owned
from windlass.ledger.integrity import half_restored
from windlass.ledger.move import Sum
from windlass.ledger.writer import take_in
from windlass.memory.store import reindex
from windlass.server import peer, terminal
from windlass.server.auditing import person
from windlass.settings import Settings

RUNS, UNFINISHED, AUDIT = "runs.db", "runs.unfinished", "audit"


def move_to(settings: Settings, to: str, *, as_json: bool) -> int:
    """Copy the ledger, memory and content to the database at `to`, check both, and say which setting to change."""
    with _alone(settings), ExitStack() as open_:
        source = open_.enter_context(_existing(settings))
        _finished(settings, source)
        target = open_.enter_context(_opened(to))
        if source.url == target.url:
            raise InputError(f"{to} is the database in use; give another one")
        target.migrate()
        _idle(target)
        move.compare(source, target)
        # Written before the rows leave, so that it stands on both sides.
        _recorded(settings, source, "move", {"to": target.url.render_as_string(hide_password=True)})
        bars = terminal.Steps(quiet=as_json)
        try:
            sums = move.move(source, target, bars.at)
        finally:
            bars.close()
        chunks = reindex(target)
        move.finish(source, target)
        told = {"from": source.url.render_as_string(hide_password=True), "rows": sum(one.rows for one in sums)}
        _recorded(settings, target, "moved", told)
    setting = _setting(settings, target)
    if as_json:
        tables = [msgspec.to_builtins(one) for one in sums]
        terminal.print_json({"tables": tables, "chunks_indexed": chunks, "storage.database_url": setting})
    else:
        _tell(sums)
        out = terminal.console()
        out.print(f"every table arrived as it was; {chunks} passages indexed; the source is untouched. To use it, set:")
        out.print(escape(f'  WINDLASS_STORAGE__DATABASE_URL="{setting}"'))
    return 0


def back_up(settings: Settings, file: Path, *, as_json: bool) -> int:
    """Write one archive of all that is stored, while a server runs or not."""
    with _tidied(), _existing(settings) as db:
        home, secret = settings.home, _secret(settings)
        manifest = backup.write(db, home / RUNS, home / AUDIT, file, now=time(), secret=secret)
        _recorded(settings, db, "backup", _about(file))
    return _told(manifest, f"{file}: {file.stat().st_size / 1e6:.1f} MB, readable by you only", as_json)


def restore(settings: Settings, file: Path, *, as_json: bool) -> int:
    """Put an archive back into an empty folder, or an empty database."""
    home = settings.home
    with _tidied(), _alone(settings):
        unfinished, secret = home / UNFINISHED, _secret(settings)
        manifest = backup.read(file, settings.database, home / RUNS, home / AUDIT, unfinished, secret=secret)
        with _opened(settings.database) as db:
            _recorded(settings, db, "restore", {**_about(file), "made_at": manifest.made_at})
    return _told(manifest, f"restored into {settings.home}; every table is as it was", as_json)


def _secret(settings: Settings) -> Path | None:
    """The file of the key secret; None where the settings name a variable for it, which is kept elsewhere."""
    return None if settings.gateway.key_secret_env else settings.home / SECRET_FILE


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Nobody works on the folder until the end. FolderBusy otherwise."""
    running = peer.find(settings.home)
    if running is not None:
        raise FolderBusy(f"a server runs on {settings.home}: {running.url}; stop it, then do this again")
    with owned(settings.home):
        yield


@contextmanager
def _tidied() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as an exit does, so that it removes its working copy."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    caught = [one for one in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(one) is signal.SIG_DFL]
    for one in caught:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in caught:
            signal.signal(one, signal.SIG_DFL)


def _recorded(settings: Settings, db: Database, action: str, detail: Mapping[str, Any]) -> None:
    """A row in the audit trail of `db`. A database that takes none, be it full, read-only or older than the trail, can
    still be saved: it is said, and that is all."""
    try:
        if move.version(db) != move.newest():
            raise LedgerError("it is at the migration of another release")
        Audit(db, settings.home / AUDIT).append(SYSTEM, person(), action, detail)
    except LedgerError as exc:
        terminal.note(f"the audit trail has no row of this {action}: {exc}")


def _about(file: Path) -> dict[str, Any]:
    """What tells an archive from any other."""
    with file.open("rb") as stream:
        return {"file": file.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


@contextmanager
def _opened(url: str | Path) -> Iterator[Database]:
    db = Database(url)
    try:
        yield db
    finally:
        db.close()


@contextmanager
def _existing(settings: Settings) -> Iterator[Database]:
    """The database in force. InputError where there is none, and none is made."""
    where = settings.database
    if cut := half_restored(settings.home):
        raise LedgerError(cut)
    if isinstance(where, Path) and not where.exists():
        raise InputError(f"there is no ledger at {where}; run `windlass up` first, or set WINDLASS_HOME")
    with _opened(where) as db:
        if not move.version(db):
            raise InputError("the database is empty; run `windlass up` first, or correct storage.database_url")
        if move.version(db) == move.newest():
            take_in(db)
        yield db


def _idle(db: Database) -> None:
    """LedgerError where a worker is at work on a shared database."""
    if db.dialect != "sqlite" and move.has_table(db, "workers"):
        names = ", ".join(one.name for one in workers.alive(db, time()))
        if names:
            raise LedgerError(f"workers {names} are at work on the database; stop them, wait 5 s, and do this again")


def _finished(settings: Settings, source: Database) -> None:
    """Runs do not move: they must have come to their end."""
    from windlass.workflows.durable import unfinished  # 2 s from cold: only here

    _idle(source)
    open_runs = unfinished(settings.home / RUNS if source.dialect == "sqlite" else settings.storage.database_url)
    if open_runs:
        raise WorkflowError(
            f"{open_runs} runs are not finished, and runs do not move; start `windlass up`, wait "
            "until its items and vectors are in, stop it, and move then"
        )


def _setting(settings: Settings, target: Database) -> str:
    """What `storage.database_url` must be from now on: empty for the file that is the default."""
    if target.dialect == "sqlite" and Path(target.url.database or "").resolve() == (settings.home / LEDGER).resolve():
        return ""
    return target.url.render_as_string(hide_password=True)


def _told(manifest: Manifest, sentence: str, as_json: bool) -> int:
    if as_json:
        terminal.print_json(msgspec.to_builtins(manifest))
    else:
        _tell(manifest.tables)
        terminal.console().print(escape(sentence))
    return 0


def _tell(sums: Sequence[Sum]) -> None:
    """Count and digest of each table that holds something."""
    table = Table("table", "rows", "digest", box=None)
    for one in sums:
        if one.rows:
            table.add_row(one.table, str(one.rows), one.digest)
    terminal.console().print(table)
