"""What an operator does about a cause that lies in a PostgreSQL server: the end of the sentence that names it."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.errors.category import ErrorCategory as C

SERVER_REMEDY: Mapping[C, str] = {
    C.DATABASE_CORRUPT: "stop windlass and restore a backup, or mend the named table with the server's own tools",
    C.DATABASE_LOCKED: "another session holds a lock: find it in pg_stat_activity and let it end, then try again",
    C.DATABASE_TIMEOUT: "the server took too long: look for what keeps it busy in pg_stat_activity, then try again",
    C.DATABASE_UNREACHABLE: "start the server, or correct storage.database_url; windlass connects again by itself",
    C.DISK_FAILED: "the server cannot use its own files: see its log, and restore a backup if one is lost",
    C.DISK_FULL: "the server's disk is full: make room there, and start the server again if it stopped",
    C.DISK_READ_ONLY: "the server takes no writes: connect to the primary, or reset default_transaction_read_only",
    C.MIGRATION_MISSING: "a table is missing: start `windlass up` once as the role that owns the database",
    C.OUT_OF_MEMORY: "the server is out of memory: lower its work_mem or max_connections, or give it more",
    C.PERMISSION_DENIED: "correct user and password in storage.database_url, or grant the role what the words name",
    C.POOL_EXHAUSTED: "the server gives no more connections: close others, raise max_connections, or lower storage."
    "connections",
}
