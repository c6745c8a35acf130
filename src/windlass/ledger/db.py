"""The one way to the database: engine, transactions, migrations. Every table of ours hangs on `metadata`.

SQLite runs in WAL mode: `durability = "normal"` survives kill -9; `"full"` also syncs at each commit, so that it
survives power loss (https://www.sqlite.org/pragma.html#pragma_synchronous). What calls leave behind may stand in a
journal for a moment (journal.py): `settles` have it put into the tables before a transaction looks at them.
PostgreSQL, through psycopg 3, keeps what its own `synchronous_commit` promises, which by default survives both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa

from windlass.errors import ErrorCategory, LedgerError, SettingsError, classify
from windlass.errors.remedy import SERVER_REMEDY

Durability = Literal["normal", "full"]
BUSY_TIMEOUT_MS = 5_000
WORKFLOW_BUSY_TIMEOUT_MS = 30_000
CONNECTIONS = 10
POOL_TIMEOUT_S = 10
STATEMENT_TIMEOUT_MS = 60_000
"""Of a process that answers calls: no statement of it, and no pause within a transaction, lasts longer."""
MIGRATION_LOCK_TIMEOUT_MS = 60_000
OLDEST_SERVER = 15
"""PostgreSQL's first release with all that we use (docs/explanation/postgresql.md)."""
MOVING = "moving from "
"""How the mark of a move that has not ended begins, among the heads."""
_MIGRATING = 0x57494E44
"""Of pg_advisory_xact_lock ("WIND"): one process migrates at a time."""

DatabaseError = sa.exc.SQLAlchemyError

metadata = sa.MetaData()


def make_folder(path: Path) -> None:
    """The folder for state, readable by its owner only where it is new. LedgerError where it cannot be made."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)  # whatever the umask took away
    except OSError as exc:
        raise LedgerError(f"{path} cannot be used as a folder: {exc}; set WINDLASS_HOME to another place") from exc


def sqlite_pragmas(engine: sa.Engine, durability: Durability, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> None:
    """Make every new SQLite connection of `engine` a WAL connection that waits for locks instead of failing.

    A file that is not there yet is made readable by its owner only; SQLite gives its logs the file's own mode.
    """

    @sa.event.listens_for(engine, "do_connect")
    def _connecting(_dialect: Any, _record: Any, _args: Any, _named: Any) -> None:
        path = engine.url.database or ""
        if path and path != ":memory:" and not path.startswith("file:"):
            _make_private(path)

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={durability.upper()}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.close()


def _make_private(path: str) -> None:
    """An empty file of mode 0600, whatever the umask. What keeps it from being made SQLite says in its own words."""
    try:
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError:
        return
    try:
        os.fchmod(made, 0o600)
    finally:
        os.close(made)


class Database:
    """One engine and its two kinds of transaction.

    url: the path of an SQLite file, or an SQLAlchemy URL: `sqlite:///path/ledger.db`, `postgresql+psycopg://...`.
    connections: how many this process opens at most on PostgreSQL.
    statement_ms: PostgreSQL ends a statement, or a transaction that pauses, after so long; 0: never. Waiting for a
    lock ends after `BUSY_TIMEOUT_MS` in any case, as on SQLite.
    Raises SettingsError for a URL that names no database we can reach, LedgerError where it cannot be opened.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        durability: Durability = "normal",
        connections: int = CONNECTIONS,
        statement_ms: int = 0,
    ):
        try:
            self.url = sa.URL.create("sqlite", database=str(url)) if isinstance(url, Path) else _spelled(url)
            named = self.url.get_backend_name()
            pool = _file_pool(self.url) if named == "sqlite" else _pool(self.url, connections, statement_ms)
            self.engine = sa.create_engine(self.url, **pool)
        except (sa.exc.ArgumentError, ModuleNotFoundError) as exc:
            raise SettingsError(f"storage.database_url is {url!r}: {exc}; leave it empty for SQLite") from exc
        if self.url.get_backend_name() == "sqlite" and self.url.database:
            make_folder(Path(self.url.database).parent)
        self.dialect = self.engine.dialect.name
        if self.dialect == "sqlite":
            sqlite_pragmas(self.engine, durability)
            _begin_by_hand(self.engine)
        else:
            sa.event.listen(self.engine, "checkin", _server_decides)
        self.durability = durability
        self.settles: list[Callable[[], None]] = []
        self._own = threading.local()
        self._writing: Any = None
        self._one_writes = threading.Lock()
        # What is sent past SQLAlchemy for speed fails with the driver's own errors.
        self._driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        self._reading: dict[str, Any] = {"windlass_read": True}
        if self.dialect == "postgresql":
            self._reading |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that takes the write lock at once, so that it can never be refused half-way."""
        self._settle()
        with self._guarded(), self.engine.begin() as connection:
            self._own.writes = True
            try:
                yield connection
            finally:
                self._own.writes = False

    @contextmanager
    def write_large(self) -> Iterator[sa.Connection]:
        """`write` for values of megabytes. Into a file it goes by a connection that is closed then: SQLite's keep what
        their statements were told last, so that each that ever saved a snapshot held 14 MB on."""
        with self.write() as connection:
            if self.dialect == "sqlite" and _is_file(self.url):
                connection.detach()
            yield connection

    @contextmanager
    def write_file(self) -> Iterator[Any]:
        """`write` on SQLite, with the driver's own connection: SQLAlchemy's part took as long as inserting 20 rows.

        The connection is kept: another one would find its pages changed by this one, and read 50 of them again for each
        commit, a tenth of what a call costs.
        """
        with self._guarded(), self._one_writes:
            self._writing = self._writing or self.engine.raw_connection()
            driver: Any = self._writing.driver_connection
            try:
                driver.execute("BEGIN IMMEDIATE")
                yield driver
                driver.execute("COMMIT")
            except BaseException:
                # Back in the pool it is rolled back, if it began; the next one starts afresh.
                self._let_go()
                raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent view for reading; takes no write lock."""
        self._settle()
        with self._guarded(), self.engine.connect() as plain:
            connection = plain.execution_options(**self._reading)
            with connection.begin():
                yield connection

    @contextmanager
    def bare(self) -> Iterator[sa.Connection]:
        """A connection without a transaction, for what cannot run in one: VACUUM, a checkpoint."""
        self._settle()
        options: dict[str, Any] = {"windlass_bare": True}
        if self.dialect == "postgresql":
            options["isolation_level"] = "AUTOCOMMIT"
        with self._guarded(), self.engine.connect() as plain:
            connection = plain.execution_options(**options)
            if self.dialect == "postgresql":
                connection.exec_driver_sql("SET statement_timeout = 0")
            try:
                yield connection
            finally:
                if self.dialect == "postgresql" and not plain.invalidated:
                    connection.exec_driver_sql("RESET statement_timeout")

    def _insert(self, table: sa.Table) -> Any:
        """An INSERT in this database's own dialect; the other one is not loaded, which took 2 MB and 0.05 s."""
        if self.dialect == "sqlite":
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        return insert(table)

    def insert_new(self, table: sa.Table, *keys: str) -> Any:
        """An INSERT that leaves rows alone whose `keys` are there already."""
        return self._insert(table).on_conflict_do_nothing(index_elements=list(keys))

    def replace(self, table: sa.Table, *keys: str) -> Any:
        """An INSERT that overwrites the row whose `keys` are there already."""
        statement = self._insert(table)
        others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        return statement.on_conflict_do_update(index_elements=list(keys), set_=others)

    def add(self, table: sa.Table, *keys: str, latest: tuple[str, ...] = ()) -> Any:
        """An INSERT that adds to the numbers of the row whose `keys` are there already; `latest` are overwritten."""
        statement = self._insert(table)
        new = statement.excluded
        others = {
            column.name: new[column.name] if column.name in latest else column + new[column.name]
            for column in table.c
            if column.name not in keys
        }
        return statement.on_conflict_do_update(index_elements=list(keys), set_=others)

    def migrate(self) -> None:
        """Bring the schema to the newest version. Safe to call from several processes at once."""
        with self.write() as connection:
            if self.dialect == "postgresql":
                self._check_server(connection)
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {MIGRATION_LOCK_TIMEOUT_MS}")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            if _version(connection) != newest_migration():
                self._upgrade(connection)

    def _upgrade(self, connection: sa.Connection) -> None:
        # 0.1 s and 10 MB that a server whose schema is the newest does without.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as exc:
            where = self.url.render_as_string(hide_password=True)
            raise LedgerError(f"database {where} is not ours, or of a newer release ({exc}); update windlass") from exc

    def half_moved(self) -> bool:
        """Whether a move into this database began and did not end."""
        with self.read() as connection:
            marks = sa.text("SELECT count(*) FROM heads WHERE name LIKE :mark")
            return bool(connection.scalar(marks, {"mark": f"{MOVING}%"}))

    def close(self) -> None:
        """Close every pooled connection; what is being written comes to its end first."""
        with self._one_writes:
            self._let_go()
        self.engine.dispose()

    def _let_go(self) -> None:
        """Give back the connection that `write_file` keeps."""
        kept, self._writing = self._writing, None
        if kept is not None:
            kept.close()

    def _settle(self) -> None:
        """Each of `settles`, but not where this thread holds the write lock, for which that would wait."""
        if self.settles and not getattr(self._own, "writes", False):
            for settle in tuple(self.settles):
                settle()

    def _check_server(self, connection: sa.Connection) -> None:
        """SettingsError where the server is older than what we use, or cannot keep every text."""
        info: Any = connection.connection.driver_connection
        version, encoding = info.info.server_version // 10_000, info.info.parameter_status("server_encoding")
        where = self.url.render_as_string(hide_password=True)
        if version < OLDEST_SERVER:
            raise SettingsError(f"database {where}: PostgreSQL {version} is too old; use {OLDEST_SERVER} or newer")
        if encoding != "UTF8":
            raise SettingsError(
                f"database {where} is encoded in {encoding}, which cannot keep every text; "
                "create one with ENCODING 'UTF8' TEMPLATE template0"
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as exc:
            raise self._failed(exc, exc.orig) from exc
        except self._driver_error as exc:
            raise self._failed(exc, exc) from exc
        except sa.exc.TimeoutError as exc:
            where = self.url.render_as_string(hide_password=True)
            message = f"database {where}: no connection was free in {POOL_TIMEOUT_S} s; raise storage.connections"
            raise LedgerError(message, category=ErrorCategory.DATABASE_TIMEOUT) from exc

    def _failed(self, exc: Exception, said: BaseException | None) -> LedgerError:
        where = self.url.render_as_string(hide_password=True)
        words = str(said).strip().replace("\n", "; ")
        category = classify(exc)
        if category is ErrorCategory.DISK_READ_ONLY and self.dialect == "postgresql":
            # A session keeps the defaults it began with, and a host name may stand for another server by now.
            self.engine.dispose()
        remedy = SERVER_REMEDY.get(category) if self.dialect == "postgresql" else None
        message = f"database {where}: {words};{f' {remedy};' if remedy else ''} run `windlass doctor` for what is wrong"
        return LedgerError(message, category=category)


def _spelled(url: str) -> sa.URL:
    """`url` with our driver: `postgresql://` and `postgres://` mean psycopg 3."""
    made = sa.make_url(url)
    return made.set(drivername="postgresql+psycopg") if made.drivername in ("postgresql", "postgres") else made


def _file_pool(url: sa.URL) -> dict[str, Any]:
    """The connection that was given back last comes first: in turn, each would fill its own 2 MB of pages."""
    return {"pool_use_lifo": True} if _is_file(url) else {}


def _is_file(url: sa.URL) -> bool:
    """Whether an SQLite database lives in a file, so that any connection to it finds the same."""
    name = url.database or ":memory:"
    return name != ":memory:" and not name.startswith("file:")


def _pool(url: sa.URL, connections: int, statement_ms: int) -> dict[str, Any]:
    """Of a server: never more than `connections`, a dead one is noticed before it is used, no wait is without end.

    Options that the URL names itself stand instead of ours.
    """
    limits = {
        "lock_timeout": BUSY_TIMEOUT_MS,
        "statement_timeout": statement_ms,
        "idle_in_transaction_session_timeout": statement_ms,
    }
    # A server whose machine has gone says nothing more: the kernel asks after it, and gives up.
    patience = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
    chosen = {
        "application_name": "windlass",
        "connect_timeout": 5,
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
        **patience,
    }
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": POOL_TIMEOUT_S,
        "pool_pre_ping": True,
        "connect_args": {name: value for name, value in chosen.items() if name not in url.query},
    }


def workflow_engine(path: Path, durability: Durability) -> sa.Engine:
    """An SQLite engine for the workflow tables, which another library fills: WAL, and every writing transaction
    takes its lock at once."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    sqlite_pragmas(engine, durability, WORKFLOW_BUSY_TIMEOUT_MS)
    sa.event.listen(engine, "connect", _immediate)
    return engine


def _server_decides(connection: Any, _record: Any) -> None:
    """After a reading transaction SQLAlchemy makes all later ones READ WRITE, also where the server allows none."""
    if connection is not None and not connection.closed:
        connection.read_only = None


def _immediate(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"


def _begin_by_hand(engine: sa.Engine) -> None:
    """pysqlite begins late and never IMMEDIATE; take that over (SQLAlchemy, "Serializable isolation" for pysqlite)."""

    @sa.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("windlass_bare", False):
            connection.exec_driver_sql("BEGIN" if options.get("windlass_read", False) else "BEGIN IMMEDIATE")


_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def newest_migration() -> str:
    """The migration that this release brings a database to; the files are named by them."""
    return max(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _version(connection: sa.Connection) -> str:
    """The migration at which a database stands, '' where it has none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")) or "")
