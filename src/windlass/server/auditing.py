"""`windlass audit`: check the trail, list it, show the key. Works on the database itself, with or without a server."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape

from windlass.errors import InputError
from windlass.ledger import checkpoint, signing
from windlass.ledger.audit import SYSTEM, Audit, AuditRow
from windlass.ledger.db import Database
from windlass.ledger.verify import Verdict
from windlass.ledger.verify import verify as check
from windlass.records import Scope
from windlass.server import terminal
from windlass.settings import Settings

FOLDER = "audit"


def verify(settings: Settings, files: Sequence[Path], key: Path | None, *, as_json: bool) -> int:
    """Check everything and say so; exit code 1 where something does not fit. Writes nothing."""
    named = files or [settings.home / FOLDER / checkpoint.FILE]
    for file in files:
        if not file.exists():
            raise InputError(f"{file} does not exist; name a file with checkpoints")
    with _database(settings) as db:
        verdict = check(db, named, key)
    if as_json:
        terminal.print_json({"ok": verdict.ok, **msgspec.to_builtins(verdict)})
    else:
        _tell(verdict)
    return 0 if verdict.ok else 1


def show(settings: Settings, limit: int, across: str | None, *, as_json: bool) -> int:
    """The newest rows: those of the folder's owner and of the process, or (`across`: the reason) of every tenant."""
    if not 1 <= limit <= 1000:
        raise InputError(f"--limit is {limit}; give a number from 1 to 1000")
    with _database(settings) as db:
        audit = Audit(db, settings.home / FOLDER)
        if across is None:
            found = [*audit.rows(Scope(), limit=limit), *audit.rows(SYSTEM, limit=limit)]
        else:
            found = [*audit.rows(audit.across(person(), across), limit=limit)]
    found = sorted(found, key=lambda row: -row.place)[:limit]
    if as_json:
        terminal.print_json({"rows": [_plain(row) for row in found]})
    else:
        for row in found:
            owner = f"{row.tenant}/{row.workspace}" if row.tenant else "-"
            told = f"{row.place:>8}  {terminal.when(row.at)}  {owner}  {row.actor}  {row.action}  {row.detail}"
            terminal.console().print(escape(terminal.clean(told)))
    return 0


def key(settings: Settings, file: Path | None, *, as_json: bool) -> int:
    """The fingerprint of the public key, to be written down where no attacker of this machine can change it."""
    path = file or settings.home / FOLDER / signing.PUBLIC
    if not path.exists():
        raise InputError(f"{path} does not exist; the key is made with the first checkpoint, when `windlass up` starts")
    told = checkpoint.fingerprint(checkpoint.public_key(path).public_bytes_raw())
    if as_json:
        terminal.print_json({"fingerprint": told, "file": str(path)})
    else:
        terminal.console().print(told)
    return 0


def person() -> str:
    """Whoever types the command, as an actor of the trail."""
    try:
        return f"local:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"local:{os.getuid()}"


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """The database as it is: a missing one is not made."""
    where = settings.database
    if isinstance(where, Path) and not where.exists():
        raise InputError(f"there is no ledger at {where}; run `windlass up` first, or set WINDLASS_HOME")
    db = Database(where, durability=settings.storage.durability)
    try:
        yield db
    finally:
        db.close()


def _plain(row: AuditRow) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(row)
    return {**fields, "detail": msgspec.json.decode(row.detail)}


def _tell(verdict: Verdict) -> None:
    out = terminal.console()
    signed = f", signed by {', '.join(verdict.keys)}" if verdict.keys else ""
    out.print(f"audit trail: {verdict.rows} rows, {verdict.unsigned} of them after the last checkpoint")
    out.print(f"checkpoints: {verdict.checkpoints}{signed}")
    out.print(
        f"ledger: {verdict.sealed_rows} rows under {verdict.seals} seals, up to place {verdict.unsealed_after}; "
        "what came later is not sealed yet"
    )
    for note in verdict.notes:
        out.print(escape(terminal.clean(f"note: {note}")))
    for finding in verdict.findings:
        out.print(escape(terminal.clean(f"BROKEN: {finding.where}: {finding.why}")))
    out.print("all of it fits" if verdict.ok else f"{len(verdict.findings)} findings; the first is where to look")
