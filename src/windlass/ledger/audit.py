"""The audit trail: who did what, across which tenants and why; append-only, hash-chained, signed from outside.

Each row's digest covers the row and the digest before it, so a changed row breaks all that follow. Signed checkpoints
in a file beside the database (`checkpoint.py`) find a chain that was cut off or made anew, seals (`seal.py`) carry the
ledger's own rows into it. `windlass audit verify` checks all three (`verify.py`); docs/explanation/audit.md tells
what that finds and what it cannot.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
import structlog

from windlass.errors import InputError, LedgerError, RecordInvalid
from windlass.ledger import schema
from windlass.ledger import seal as seals
from windlass.ledger.checkpoint import Checkpoint, Checkpoints, fingerprint
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, AllScopes, AnyScope
from windlass.records import Scope

log = structlog.get_logger(__name__)
SYSTEM: Final = Scope("", "")
"""Whose rows those of the process itself are; no tenant has that name."""
WINDLASS: Final = "windlass"
SEAL, CHECKPOINT, ACROSS, START = "seal", "checkpoint", "read across tenants", "start"
BEFORE: Final = "ledger_before"
"""In the detail of a trail's first row: the last place of a ledger that was in use already."""
EVERY_ROWS = 100
EVERY_S = 3_600.0
MAX_DETAIL_CHARS = 100_000
_AUDIT = schema.audit
_HEAD = schema.heads.c.name == "audit"
# An update that changes nothing takes the row's lock, so that one writer at a time goes on with the chain.
_LOCK = sa.update(schema.heads).where(_HEAD).values(value=schema.heads.c.value).returning(schema.heads.c.value)
_MOVE = sa.update(schema.heads).where(_HEAD).values(value=sa.bindparam("place"))


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row. place: 1, 2, 3 and so on without gaps; detail: JSON as text; digests: SHA-256 as hex."""

    place: int
    tenant: str
    workspace: str
    at: float
    actor: str
    action: str
    detail: str
    previous: str
    digest: str = ""


class Audit:
    """The trail in a migrated `Database`, its checkpoints and their key in `folder`. Thread-safe, for many processes.

    Everything here blocks for a commit: call it in a thread from a coroutine.
    """

    def __init__(
        self,
        db: Database,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        every_rows: int = EVERY_ROWS,
        every_s: float = EVERY_S,
    ):
        self.checkpoints = Checkpoints(folder)
        self._db = db
        self._clock = clock
        self._every_rows = every_rows
        self._every_s = every_s
        self._signing = threading.Lock()
        self._sealing = threading.Lock()
        self._signed: int | None = None
        self._signed_at = clock()
        self._stopping = threading.Event()

    def append(self, scope: Scope, actor: str, action: str, detail: Mapping[str, Any] | None = None) -> int:
        """Commit one row and return its place. RecordInvalid for a `detail` that is no JSON, or too long.

        Each `every_rows` rows a checkpoint follows; where it cannot be written the row stands all the same.
        """
        row = self._add(scope, actor, action, detail or {})
        try:
            if row.place - self._signed_place() >= self._every_rows:
                self.checkpoint()
        except LedgerError as exc:
            log.error("checkpoint_waits", reason=str(exc))
        return row.place

    def across(self, actor: str, reason: str) -> AllScopes:
        """The right to read across tenants, for an operator, once it stands in the trail who took it and why.

        InputError without an actor or a reason.
        """
        if not actor.strip() or not reason.strip():
            raise InputError("reading across tenants is recorded: say who reads (actor) and why (reason)")
        self.append(SYSTEM, actor, ACROSS, {"reason": reason[:1_000]})
        return ALL

    def rows(self, scope: AnyScope, *, limit: int = 50, before: int = 0) -> Sequence[AuditRow]:
        """The newest rows first; `before` is a place for the next page."""
        query = sa.select(_AUDIT).order_by(_AUDIT.c.place.desc()).limit(limit)
        if before:
            query = query.where(_AUDIT.c.place < before)
        if isinstance(scope, Scope):
            query = query.where(_AUDIT.c.tenant == scope.tenant, _AUDIT.c.workspace == scope.workspace)
        with self._db.read() as connection:
            return [AuditRow(**row) for row in connection.execute(query).mappings()]

    def start(self, actor: str, detail: Mapping[str, Any] | None = None) -> None:
        """A server starts: a row and a checkpoint. Sealing what a killed process left is the first `tick`'s."""
        before = {} if self._head() else {BEFORE: seals.newest(self._db)}
        self._add(SYSTEM, actor, START, {**(detail or {}), **{name: place for name, place in before.items() if place}})
        self.checkpoint()

    def stop(self, actor: str) -> None:
        """A server stops: seal what is not sealed yet, then a row and a checkpoint."""
        self._stopping.set()
        with self._sealing:
            self._seal(whole=False)
        self._add(SYSTEM, actor, "stop", {})
        self.checkpoint()

    def tick(self) -> None:
        """Call this every minute: full blocks are sealed and signed at once, the rest every `every_s` seconds."""
        due = self._clock() - self._signed_at >= self._every_s
        sealed = self.seal(whole=not due)
        if self._stopping.is_set():
            return  # `stop` signs, and the database may be closed after it
        if sealed or (due and self._head() > self._signed_place()):
            self.checkpoint()
        elif due:
            self._signed_at = self._clock()

    def checkpoint(self) -> Checkpoint:
        """Sign where the trail is, in a row of its own that vouches for the lines before it."""
        with self._signing, self.checkpoints.signer() as signer, self.checkpoints.writing() as (file, tail):
            key = fingerprint(signer.public)
            said = {"key": key, "line": tail.number, "digest": tail.digest}
            row = self._add(SYSTEM, WINDLASS, CHECKPOINT, said, durable=True)
            self._signed, self._signed_at = row.place, self._clock()
            line = Checkpoint(
                number=tail.number + 1,
                place=row.place,
                digest=row.digest,
                at=row.at,
                sealed=self._sealed(),
                key=key,
                previous=tail.digest,
            )
            return self.checkpoints.write(file, line, signer)

    def seal(self, *, whole: bool = False) -> int:
        """Seal the ledger rows that have settled; returns how many seals that took. whole: full blocks only."""
        count = 0
        with self._sealing:
            while not self._stopping.is_set() and self._seal(whole=whole):
                count += 1
        return count

    def _seal(self, *, whole: bool) -> bool:
        after = self._sealed()
        made = seals.take(self._db, after, whole=whole)
        if made is None:
            return False
        with self._db.write() as connection:
            last = self._turn(connection)
            if _sealed(connection) != after:
                return False  # another worker was first
            self._put(connection, last, SYSTEM, WINDLASS, SEAL, msgspec.to_builtins(made))
        return True

    def _add(
        self, scope: Scope, actor: str, action: str, detail: Mapping[str, Any], *, durable: bool = False
    ) -> AuditRow:
        with self._db.write() as connection:
            if durable and self._db.dialect != "sqlite":
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            row = self._put(connection, self._turn(connection), scope, actor, action, detail)
        if durable and self._db.dialect == "sqlite":
            self._sync()
        return row

    def _turn(self, connection: sa.Connection) -> int:
        """Wait for the trail's lock, which the transaction then holds; the place of the last row."""
        connection.execute(self._db.insert_new(schema.heads, "name"), {"name": "audit", "value": 0})
        return int(connection.scalar(_LOCK) or 0)

    def _put(
        self, connection: sa.Connection, last: int, scope: Scope, actor: str, action: str, detail: Mapping[str, Any]
    ) -> AuditRow:
        previous = connection.scalar(sa.select(_AUDIT.c.digest).where(_AUDIT.c.place == last)) or ""
        row = AuditRow(
            place=last + 1,
            tenant=_plain(scope.tenant),
            workspace=_plain(scope.workspace),
            at=self._clock(),
            actor=_plain(actor),
            action=_plain(action),
            detail=_told(detail),
            previous=previous,
        )
        row = msgspec.structs.replace(row, digest=digest_of(row))
        connection.execute(sa.insert(_AUDIT), msgspec.structs.asdict(row))
        connection.execute(_MOVE, {"place": row.place})
        return row

    def _sync(self) -> None:
        """Have all that is committed on the disk, so that no checkpoint outlives its row in a power cut.

        A commit with `synchronous = FULL` syncs the whole write-ahead log, not its own rows alone.
        """
        with self._db.bare() as connection:
            before = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            connection.exec_driver_sql("PRAGMA synchronous = FULL")
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.execute(_LOCK)
                connection.exec_driver_sql("COMMIT")
            finally:
                connection.exec_driver_sql(f"PRAGMA synchronous = {int(before or 0)}")

    def _head(self) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(sa.select(schema.heads.c.value).where(_HEAD)) or 0)

    def _sealed(self) -> int:
        with self._db.read() as connection:
            return _sealed(connection)

    def _signed_place(self) -> int:
        """The place under the last checkpoint."""
        if self._signed is None:
            self._signed = self.checkpoints.last().place
        return self._signed


def digest_of(row: AuditRow) -> str:
    """SHA-256 over everything in the row but its digest, as a msgpack array."""
    fields = (row.place, row.tenant, row.workspace, row.at, row.actor, row.action, row.detail, row.previous)
    return hashlib.sha256(msgspec.msgpack.encode(fields)).hexdigest()


def _sealed(connection: sa.Connection) -> int:
    """The ledger's place up to which its rows are sealed."""
    newest = sa.select(_AUDIT.c.place, _AUDIT.c.detail).where(_AUDIT.c.action == SEAL, _AUDIT.c.tenant == "")
    found = connection.execute(newest.order_by(_AUDIT.c.place.desc()).limit(1)).first()
    if found is None:
        return 0
    try:
        return msgspec.json.decode(found.detail, type=seals.Seal).until
    except msgspec.MsgspecError as exc:
        raise RecordInvalid(f"audit row {found.place} is no seal: {exc}; run `windlass audit verify`") from exc


def _told(detail: Mapping[str, Any]) -> str:
    """`detail` as JSON in ASCII, its keys in order."""
    try:
        text = json.dumps(detail, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RecordInvalid(f"the detail of an audit row must be plain, finite data: {exc}") from exc
    if len(text) > MAX_DETAIL_CHARS:
        raise RecordInvalid(f"the detail of an audit row has {len(text)} characters; keep it to {MAX_DETAIL_CHARS}")
    return text


def _plain(text: str) -> str:
    """`text` with what no database can hold replaced."""
    return text.encode(errors="replace").decode().replace("\x00", "?")[:500]
