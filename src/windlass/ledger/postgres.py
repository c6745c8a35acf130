"""What a PostgreSQL server is asked about itself: what ails it, and what its write-ahead log keeps of deleted text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from windlass.errors import ErrorCategory, LedgerError
from windlass.ledger import partitions, schema
from windlass.ledger.db import Database

LOOK_MS = 10_000
"""How long `findings` reads in each table at most; what is larger is looked at in part by nobody but its users."""
FEW_CONNECTIONS = 5
STATEMENTS = 16
"""So many statements over all days at once shall find room among the server's locks: four workers, four each."""
HELD_S = 60
_READ_ONLY = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool"
_ROOM = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    " - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
)
_BLOCKERS = (
    "SELECT DISTINCT blocker FROM pg_stat_activity AS waiting, unnest(pg_blocking_pids(waiting.pid)) AS blocker"
    " WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock' ORDER BY blocker"
)
_LOCKED = (
    "SELECT DISTINCT pid, relation::regclass::text FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation::regclass::text = ANY(:names) AND pid <> pg_backend_pid() ORDER BY pid"
)
_HELD = (
    "SELECT pid, extract(epoch FROM now() - xact_start)::int FROM pg_stat_activity"
    " WHERE backend_xid IS NOT NULL AND xact_start < now() - make_interval(secs => :held) ORDER BY xact_start"
)
_LOCKS = (
    "SELECT max(locks) FROM"
    " (SELECT parts.inhparent, count(DISTINCT parts.inhrelid) + count(indexes.indexrelid) AS locks"
    " FROM pg_inherits AS parts LEFT JOIN pg_index AS indexes ON indexes.indrelid = parts.inhrelid"
    " WHERE parts.inhparent = ANY(CAST(:names AS regclass[])) GROUP BY parts.inhparent) AS tables"
)
_LOCK_ROOM = (
    "SELECT current_setting('max_locks_per_transaction')::int,"
    " current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int"
)
_CHECKSUMS = "SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"
_PROBE = (
    "CREATE TEMPORARY TABLE windlass_room ON COMMIT DROP AS"
    " SELECT repeat('x', 1000) AS filler FROM generate_series(1, 1000)"
)
_END = "let it end, or `SELECT pg_terminate_backend({})`"
_CHANGED = (
    "SELECT name FROM unnest(CAST(:names AS text[])) AS name"
    " WHERE NOT has_table_privilege(name, 'SELECT') OR NOT has_table_privilege(name, 'INSERT')"
    " OR NOT has_table_privilege(name, 'UPDATE')"
)


def findings(db: Database) -> list[str]:
    """What is wrong with the server, a sentence with its remedy each.

    Every table is read through and none is written; a temporary one tells whether there is room.
    """
    if db.dialect != "postgresql":
        return []
    try:
        with db.read() as connection:
            found = list(_ailments(connection))
    except LedgerError as exc:
        return [str(exc)]
    names = [name for name in _tables() if not any(re.search(rf"\b{name}\b", finding) for finding in found)]
    return found + [finding for name in names for finding in _unreadable(db, name)] + _unwritable(db)


def end_log(db: Database) -> list[str]:
    """End the write-ahead log that holds deleted text, as far as the role may; what still keeps it, a sentence each.

    A checkpoint removes the segments before the one in use, or renames them for later use (`wal_recycle`), in which
    case their bytes stay (PostgreSQL 15 manual, 30.5 "WAL configuration"). Empty where nothing is left, as on SQLite.
    """
    if db.dialect != "postgresql":
        return []
    with db.bare() as connection:
        position = str(connection.scalar(sa.text("SELECT pg_current_wal_lsn()")))
        rights = {
            "EXECUTE ON FUNCTION pg_switch_wal()": "SELECT has_function_privilege('pg_switch_wal()', 'EXECUTE')",
            "pg_checkpoint": "SELECT pg_has_role('pg_checkpoint', 'USAGE')",
        }
        missing = [name for name, asked in rights.items() if not connection.scalar(sa.text(asked))]
        for name, statement in zip(rights, ("SELECT pg_switch_wal()", "CHECKPOINT"), strict=True):
            if name not in missing:
                connection.exec_driver_sql(statement)
        role = str(connection.scalar(sa.text("SELECT quote_ident(current_user)")))
        return [*_unvacuumed(connection, role), *_logged(connection, missing, role), *_copied(connection, position)]


def _tables() -> list[str]:
    return [table.name for table in schema.SEQUENCED] + [schema.contexts.name, schema.bodies.name]


def _ailments(connection: sa.Connection) -> Iterator[str]:
    """What the server's own views tell."""

    def ask(query: str, **values: object) -> list[Any]:
        return list(connection.execute(sa.text(query), values))

    if connection.scalar(sa.text(_READ_ONLY)):
        yield (
            "the database takes no writes: connect to the primary, or `ALTER DATABASE ... RESET "
            "default_transaction_read_only` and restart windlass"
        )
    for (name,) in ask(_CHANGED, names=_tables()):
        yield f"the role lacks rights on {name}: grant SELECT, INSERT, UPDATE and DELETE on all tables, or own them"
    for pid, name in ask(_LOCKED, names=_tables()):
        yield f"session {pid} holds {name} locked against everybody: {_END.format(pid)}"
    for (pid,) in ask(_BLOCKERS):
        yield f"session {pid} keeps others waiting for a lock: {_END.format(pid)}"
    for pid, held_s in ask(_HELD, held=HELD_S):
        yield (
            f"session {pid} has had a transaction open for {held_s} s, and nothing new is learned or shown until it "
            f"ends: {_END.format(pid)}"
        )
    room = int(connection.scalar(sa.text(_ROOM)) or 0)
    if room < FEW_CONNECTIONS:
        yield f"the server has room for {room} more connections: close others, or raise max_connections"
    locks = int(connection.scalar(sa.text(_LOCKS), {"names": list(partitions.PREFIX)}) or 0)
    each, sessions = ask(_LOCK_ROOM)[0]
    if STATEMENTS * locks > each * sessions:
        yield (
            f"a statement over all days takes {locks} locks, and the server has {each * sessions} for everybody: set "
            f"max_locks_per_transaction = {-(-2 * STATEMENTS * locks // sessions)} (now {each}) and restart it"
        )
    if connection.scalar(sa.text(_CHECKSUMS)):
        yield "the server counts pages whose checksum is wrong: see its log, check its disk, restore a backup"


def _unreadable(db: Database, name: str) -> list[str]:
    """Read a table through, pages and not indexes alone; what the server says where it cannot."""
    try:
        with db.read() as connection:
            connection.exec_driver_sql("SET LOCAL enable_indexonlyscan = off")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {LOOK_MS}")
            connection.exec_driver_sql(f"SELECT count(*) FROM {name}")
    except LedgerError as exc:
        return [] if exc.category is ErrorCategory.DATABASE_TIMEOUT else [str(exc)]
    return []


def _unwritable(db: Database) -> list[str]:
    """What the server says where it has no room for a megabyte."""
    try:
        with db.write() as connection:
            connection.exec_driver_sql(_PROBE)
    except LedgerError as exc:
        return [str(exc)] if exc.category in (ErrorCategory.DISK_FULL, ErrorCategory.DISK_FAILED) else []
    return []


def _unvacuumed(connection: sa.Connection, role: str) -> Iterator[str]:
    owner = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"
    if not connection.scalar(sa.text(owner)):
        yield (
            f"the planner's statistics keep samples of user names: {role} may not rewrite them; let the database's "
            "owner run `VACUUM (FULL) pg_statistic`"
        )


def _logged(connection: sa.Connection, missing: list[str], role: str) -> Iterator[str]:
    """What the write-ahead log of this server keeps."""
    shown = {name: str(connection.scalar(sa.text(f"SHOW {name}"))) for name in _SETTINGS}
    if missing:
        yield (
            "the server's write-ahead log keeps the text until its segment is full and the next checkpoint after that "
            f"is done (checkpoint_timeout is {shown['checkpoint_timeout']}): let an administrator run `SELECT "
            "pg_switch_wal()` and `CHECKPOINT` now; for the next time: "
            + " ".join(f"GRANT {name} TO {role};" for name in missing)
        )
    if shown["wal_recycle"] != "off":
        yield (
            "the server keeps old segments of its write-ahead log for later use, and the text in them until they are "
            "written over (wal_recycle is on): set wal_recycle = off"
        )
    if shown["wal_keep_size"] != "0":
        yield f"the server keeps {shown['wal_keep_size']} of write-ahead log for replicas, with the text in it"
    if shown["log_statement"] in ("mod", "all") or shown["log_min_duration_statement"] != "-1":
        yield "the server's text log holds statements with their values: delete it, or let it expire"


_SETTINGS = ("checkpoint_timeout", "wal_recycle", "wal_keep_size", "log_statement", "log_min_duration_statement")


def _copied(connection: sa.Connection, position: str) -> Iterator[str]:
    """Who else has the log up to `position`."""
    if connection.scalar(sa.text("SHOW archive_mode")) != "off":
        yield (
            f"the archive of the write-ahead log keeps the text: delete what was archived up to now ({position}), and "
            "base backups older than that, or let them expire"
        )
    behind = "SELECT slot_name FROM pg_replication_slots WHERE restart_lsn < CAST(:position AS pg_lsn)"
    for (slot,) in connection.execute(sa.text(behind), {"position": position}):
        yield f"replication slot {slot} keeps the write-ahead log from before {position}: let it be read, or drop it"
    replicas = int(connection.scalar(sa.text("SELECT count(*) FROM pg_stat_replication")) or 0)
    if replicas:
        yield f"{replicas} replicas keep a write-ahead log of their own: set wal_recycle = off there and run CHECKPOINT"
