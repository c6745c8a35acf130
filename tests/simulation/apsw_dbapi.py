"""apsw behind the DBAPI that SQLAlchemy's SQLite dialect speaks, so that a file system written in Python is beneath it.

`sqlite3` of Python carries an SQLite library of its own, which knows nothing of a file system registered with apsw.
Statements, bindings and transactions go through unchanged; like `sqlite3` with `isolation_level = None`, nothing is
begun implicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

apilevel, threadsafety, paramstyle = "2.0", 1, "qmark"
sqlite_version: str = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))
PARSE_DECLTYPES = PARSE_COLNAMES = 0
Binary = bytes


class Warning(Exception):
    """Never raised; the DBAPI wants the name."""


class Error(Exception):
    """The base of all of them."""


class InterfaceError(Error): ...


class DatabaseError(Error): ...


class DataError(DatabaseError): ...


class OperationalError(DatabaseError): ...


class IntegrityError(DatabaseError): ...


class InternalError(DatabaseError): ...


class ProgrammingError(DatabaseError): ...


class NotSupportedError(DatabaseError): ...


_KINDS: dict[type[Exception], type[Error]] = {
    apsw.ConstraintError: IntegrityError,
    apsw.CorruptError: DatabaseError,
    apsw.NotADBError: DatabaseError,
    apsw.MisuseError: ProgrammingError,
    apsw.ConnectionClosedError: ProgrammingError,
}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as exc:
        raise _KINDS.get(type(exc), OperationalError)(str(exc)) from exc


class Connection:
    """One connection of apsw. committed: called after each COMMIT; rewrite: every statement passes through it."""

    def __init__(
        self, inner: apsw.Connection, committed: Callable[[apsw.Connection], None], rewrite: Callable[[str], str]
    ):
        self.inner = inner
        self.rewrite = rewrite
        self.isolation_level: str | None = None
        self.committed = committed

    def cursor(self) -> Cursor:
        return Cursor(self)

    def execute(self, sql: str, bindings: Sequence[Any] = ()) -> Cursor:
        return self.cursor().execute(sql, bindings)

    def executemany(self, sql: str, many: Iterable[Sequence[Any]]) -> Cursor:
        return self.cursor().executemany(sql, many)

    def commit(self) -> None:
        if self.inner.in_transaction:
            with _translated():
                self.inner.execute("COMMIT")
            self.committed(self.inner)

    def rollback(self) -> None:
        if self.inner.in_transaction:
            with _translated():
                self.inner.execute("ROLLBACK")

    def close(self) -> None:
        with _translated():
            self.inner.close()

    def create_function(self, name: str, arguments: int, function: Any, deterministic: bool = False) -> None:
        self.inner.create_scalar_function(name, function, arguments, deterministic=deterministic)


class Cursor:
    """Reads each result to its end at once, so that no read transaction outlives its statement."""

    arraysize = 1

    def __init__(self, connection: Connection):
        self.connection = connection
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, sql: str, bindings: Sequence[Any] = ()) -> Cursor:
        inner = self.connection.inner
        before, begun = inner.total_changes(), inner.in_transaction
        with _translated():
            cursor = inner.cursor()
            cursor.exec_trace = self._described
            self.description = None
            self._rows = list(cursor.execute(self.connection.rewrite(sql), tuple(bindings)))
        self.rowcount = inner.total_changes() - before
        self.lastrowid = inner.last_insert_rowid()
        # The ledger's quick way ends its transactions by a statement of its own.
        if begun and not inner.in_transaction and sql.strip().upper() == "COMMIT":
            self.connection.committed(inner)
        return self

    def executemany(self, sql: str, many: Iterable[Sequence[Any]]) -> Cursor:
        inner = self.connection.inner
        before = inner.total_changes()
        with _translated():
            inner.cursor().executemany(sql, [tuple(one) for one in many])
        self.description, self._rows, self.rowcount = None, [], inner.total_changes() - before
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        found, self._rows = self._rows[:size], self._rows[size:]
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        found, self._rows = self._rows, []
        return found

    def close(self) -> None:
        self._rows = []

    def setinputsizes(self, *_sizes: Any) -> None:
        """Nothing to prepare."""

    def setoutputsize(self, *_sizes: Any) -> None:
        """Nothing to prepare."""

    def _described(self, cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        found = cursor.get_description()
        self.description = tuple((*column, None, None, None, None, None)[:7] for column in found) or None
        return True


class Driver:
    """The module-like thing that `sa.create_engine(url, module=...)` takes: this module over one file system.

    committed: called with the connection after each COMMIT; opened: with each new one. rewrite: may change a statement,
    to plant a fault.
    """

    def __init__(
        self,
        vfs: str,
        committed: Callable[[apsw.Connection], None] = lambda _connection: None,
        opened: Callable[[apsw.Connection], None] = lambda _connection: None,
        rewrite: Callable[[str], str] = lambda sql: sql,
    ):
        self._vfs = vfs
        self._committed = committed
        self._opened = opened
        self._rewrite = rewrite

    def __getattr__(self, name: str) -> Any:
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"no {name} in this driver") from None

    def connect(self, path: str, **_options: Any) -> Connection:
        with _translated():
            inner = apsw.Connection(path, vfs=self._vfs)
        self._opened(inner)
        return Connection(inner, self._committed, self._rewrite)
