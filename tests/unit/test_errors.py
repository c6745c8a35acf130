"""One table of causes, and `classify`: total over our exceptions, over the libraries', and over what they carry."""

from __future__ import annotations

import asyncio
import errno
import inspect
import operator
import pickle
import re
import socket
import sqlite3
import ssl
import typing
from pathlib import Path

import aiohttp
import psycopg
import pytest
import sqlalchemy as sa
from aiohttp import client_reqrep, http_exceptions
from starlette.exceptions import HTTPException

from windlass import errors
from windlass.errors import HANDLING, Audience, Backoff, Handling, UpstreamError, WindlassError, classify, register
from windlass.errors import ErrorCategory as C

# The table


def test_the_list_is_closed_long_and_snake_case() -> None:
    values = [category.value for category in C]
    assert len(values) >= 50
    assert len(set(values)) == len(values)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", value) for value in values)
    assert all(category.name == category.value.upper() for category in C)
    with pytest.raises(ValueError, match="no_such_cause"):
        C("no_such_cause")


def test_the_table_has_one_row_for_each_category_and_cannot_be_changed() -> None:
    name_of_a_field = "retryable"
    assert list(HANDLING) == list(C)
    assert all(category.handling is HANDLING[category] for category in C)
    with pytest.raises(TypeError):
        operator.setitem(typing.cast(dict[C, Handling], HANDLING), C.BUG, HANDLING[C.UNKNOWN])
    with pytest.raises(AttributeError):
        setattr(HANDLING[C.BUG], name_of_a_field, True)


@pytest.mark.parametrize("category", C)
def test_each_row_agrees_with_itself(category: C) -> None:
    row = category.handling
    assert isinstance(row, Handling)
    assert row.retryable == (row.backoff is not Backoff.NONE), "what is retried waits; what is not has no wait"
    if row.counts_against_breaker:
        assert row.audience is Audience.OPERATOR, "a provider that is left alone is the operator's to know"
    if row.audience in {Audience.NOBODY, Audience.DEVELOPER}:
        assert not row.retryable, "a defect or a deliberate end does not go away by itself"


def test_the_breaker_hears_of_providers_only() -> None:
    ours = {
        "database",
        "disk",
        "file",
        "ledger",
        "policy",
        "workflow",
        "key",
        "request",
        "budget",
        "embedder",
        "client",
    }
    counted = {category for category in C if category.handling.counts_against_breaker}
    assert {C.CONNECT_TIMEOUT, C.STREAM_CUT, C.UPSTREAM_SERVER_ERROR, C.QUOTA_SPENT} <= counted
    assert not {category for category in counted if category.value.split("_")[0] in ours}
    assert not {C.RATE_LIMITED, C.CLIENT_GONE, C.CONTEXT_TOO_LONG, C.TOOL_FAILED} & counted


# What an exception says


def caused(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


def answered(status: int, cause: BaseException | None = None) -> BaseException:
    exc = aiohttp.ClientResponseError(typing.cast(client_reqrep.RequestInfo, None), (), status=status)
    exc.__cause__ = cause
    return exc


def connecting(number: int) -> BaseException:
    return aiohttp.ClientConnectorError(typing.cast(client_reqrep.ConnectionKey, None), OSError(number, "x"))


def payload(message: str) -> BaseException:
    return caused(aiohttp.ClientPayloadError(), http_exceptions.TransferEncodingError(message))


def sqlite(message: str, name: str = "", cls: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    exc = cls(message)
    if name:
        exc.sqlite_errorname = name
    return exc


SAYS: list[tuple[BaseException, C]] = [
    (OSError(errno.ENOSPC, "x"), C.DISK_FULL),
    (OSError(errno.EDQUOT, "x"), C.DISK_FULL),
    (OSError(errno.EROFS, "x"), C.DISK_READ_ONLY),
    (OSError(errno.EADDRINUSE, "x"), C.PORT_IN_USE),
    (OSError(errno.EACCES, "x"), C.PERMISSION_DENIED),
    (OSError(errno.ECONNREFUSED, "x"), C.CONNECT_REFUSED),
    (OSError(errno.EMFILE, "x"), C.FILES_TOO_MANY),
    (OSError(errno.EFBIG, "x"), C.FILE_TOO_LARGE),
    (OSError(errno.ETIMEDOUT, "x"), C.CONNECT_TIMEOUT),
    (OSError(987654, "x"), C.OS_FAILED),
    (OSError([], "x"), C.OS_FAILED),
    (OSError(), C.OS_FAILED),
    (TimeoutError(), C.TOTAL_TIMEOUT),
    (asyncio.CancelledError(), C.CANCELLED),
    (KeyboardInterrupt(), C.SHUTDOWN),
    (socket.gaierror(-2, "x"), C.DNS_FAILED),
    (ssl.SSLCertVerificationError(1, "x"), C.TLS_FAILED),
    (ssl.SSLEOFError(8, "x"), C.CONNECTION_RESET),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), C.ENCODING_INVALID),
    (connecting(errno.ECONNREFUSED), C.CONNECT_REFUSED),
    (connecting(errno.EHOSTUNREACH), C.HOST_UNREACHABLE),
    (connecting(987654), C.HOST_UNREACHABLE),
    (aiohttp.ClientOSError(errno.EPIPE, "x"), C.CONNECTION_RESET),
    (aiohttp.ServerDisconnectedError(), C.CONNECTION_RESET),
    (aiohttp.ConnectionTimeoutError(), C.CONNECT_TIMEOUT),
    (aiohttp.SocketTimeoutError(), C.STREAM_IDLE),
    (payload("Not enough data to satisfy transfer length header."), C.STREAM_CUT),
    (payload("Invalid character in chunk size"), C.CHUNK_MALFORMED),
    (payload("anything else"), C.CHUNK_MALFORMED),
    (aiohttp.ClientPayloadError(), C.STREAM_CUT),
    (answered(429), C.RATE_LIMITED),
    (answered(500), C.UPSTREAM_SERVER_ERROR),
    (answered(400, http_exceptions.BadStatusLine("x")), C.RESPONSE_MALFORMED),
    (answered(400, http_exceptions.HttpProcessingError(message="Invalid character in chunk size")), C.CHUNK_MALFORMED),
    (answered(0), C.UPSTREAM_FAILED),
    (HTTPException(404), C.NOT_FOUND),
    (HTTPException(405), C.REQUEST_INVALID),
    (HTTPException(500), C.BUG),
    (HTTPException.__new__(HTTPException), C.REQUEST_INVALID),
    (errors.RequestError("x", status=413), C.REQUEST_TOO_LARGE),
    (errors.RequestError("x", status=429), C.CLIENT_RATE_LIMITED),
    (errors.RequestError("x"), C.REQUEST_INVALID),
    (UpstreamError("x"), C.UPSTREAM_FAILED),
    (UpstreamError("x", status=401), C.UPSTREAM_KEY_REFUSED),
    (UpstreamError("x", status=404), C.UPSTREAM_MODEL_MISSING),
    (UpstreamError("x", status=418), C.UPSTREAM_REQUEST_REFUSED),
    (UpstreamError("x", status=529), C.MODEL_OVERLOADED),
    (UpstreamError("x", status=599), C.UPSTREAM_SERVER_ERROR),
    (UpstreamError("x", status=307), C.REDIRECT_REFUSED),
    (UpstreamError("x", status=429, category=C.QUOTA_SPENT), C.QUOTA_SPENT),
    (errors.AccessError("x", category=C.KEY_MISSING), C.KEY_MISSING),
    (errors.LedgerError("x", category=C.LEDGER_CLOSED), C.LEDGER_CLOSED),
    (sqlite("x", "SQLITE_BUSY_SNAPSHOT"), C.DATABASE_LOCKED),
    (sqlite("x", "SQLITE_FULL"), C.DISK_FULL),
    (sqlite("x", "SQLITE_IOERR_FSYNC"), C.DISK_FAILED),
    (sqlite("x", "SQLITE_NOTADB", sqlite3.DatabaseError), C.DATABASE_CORRUPT),
    (sqlite("no such table: calls", "SQLITE_ERROR"), C.MIGRATION_MISSING),
    (sqlite('near "selec": syntax error', "SQLITE_ERROR"), C.QUERY_INVALID),
    (sqlite("database is locked"), C.DATABASE_LOCKED),
    (sqlite("something else"), C.DATABASE_FAILED),
    (sqlite("Cannot operate on a closed database.", cls=sqlite3.ProgrammingError), C.LEDGER_CLOSED),
    (sqlite("x", cls=sqlite3.IntegrityError), C.CONSTRAINT_BROKEN),
    (sa.exc.OperationalError("select", {}, sqlite("x", "SQLITE_READONLY_DBMOVED")), C.DISK_READ_ONLY),
    (sa.exc.OperationalError("select", {}, Exception("a driver of tomorrow")), C.DATABASE_FAILED),
    (sa.exc.TimeoutError(), C.POOL_EXHAUSTED),
    (psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already"), C.POOL_EXHAUSTED),
    (psycopg.OperationalError('FATAL:  password authentication failed for user "w"'), C.PERMISSION_DENIED),
    (psycopg.OperationalError("fe_sendauth: no password supplied"), C.PERMISSION_DENIED),
    (psycopg.OperationalError("connection refused"), C.DATABASE_UNREACHABLE),
    (psycopg.errors.ReadOnlySqlTransaction("x"), C.DISK_READ_ONLY),
    (psycopg.errors.LockNotAvailable("x"), C.DATABASE_LOCKED),
    (psycopg.errors.QueryCanceled("x"), C.DATABASE_TIMEOUT),
    (psycopg.errors.IdleInTransactionSessionTimeout("x"), C.DATABASE_TIMEOUT),
    (psycopg.errors.TooManyConnections("x"), C.POOL_EXHAUSTED),
    (psycopg.errors.OutOfMemory("x"), C.OUT_OF_MEMORY),
    (psycopg.errors.DiskFull("x"), C.DISK_FULL),
    (psycopg.errors.DataCorrupted("x"), C.DATABASE_CORRUPT),
]


@pytest.mark.parametrize(
    ("exc", "category"),
    SAYS,
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_classify_reads_what_the_exception_carries(exc: BaseException, category: C) -> None:
    assert classify(exc) is category


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS: list[tuple[bytes, C]] = [
    (HEAD + b"5\r\nhel", C.STREAM_CUT),
    (HEAD + b"5\r\nhello\r\n", C.STREAM_CUT),
    (HEAD + b"zz\r\nxx", C.CHUNK_MALFORMED),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", C.STREAM_CUT),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde", C.RESPONSE_MALFORMED),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}", C.CONTENT_TYPE_WRONG),
    (b"\x00\x01 no HTTP\r\n\r\n", C.RESPONSE_MALFORMED),
    (b"", C.CONNECTION_RESET),
]


@pytest.mark.parametrize(("answer", "category"), ANSWERS)
async def test_classify_what_aiohttp_raises_on_a_broken_answer(answer: bytes, category: C) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as failure:
            async with session.get(url) as response:
                await response.json()
    assert classify(failure.value) is category
    async with aiohttp.ClientSession() as session:  # the server is closed: nobody listens there any more
        with pytest.raises(aiohttp.ClientError) as failure:
            await session.get(url)
    assert classify(failure.value) is C.CONNECT_REFUSED


STATEMENTS: list[tuple[str, C]] = [
    ("select * from nowhere", C.MIGRATION_MISSING),
    ("select absent from kept", C.MIGRATION_MISSING),
    ("selec", C.QUERY_INVALID),
    ("insert into kept values (1)", C.CONSTRAINT_BROKEN),
    ("insert into kept values (2)", C.DATABASE_LOCKED),
    ("insert into filling values (zeroblob(9000000))", C.DISK_FULL),
]


@pytest.mark.parametrize(("statement", "category"), STATEMENTS)
def test_classify_what_sqlite_raises(tmp_path: Path, statement: str, category: C) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'kept.db'}", connect_args={"timeout": 0})
    with engine.begin() as db:
        for before in ("create table kept (a primary key)", "insert into kept values (1)", "create table filling (a)"):
            db.exec_driver_sql(before)
    with engine.connect() as other, engine.connect() as db:
        if category is C.DATABASE_LOCKED:
            other.exec_driver_sql("begin exclusive")
        with pytest.raises(sa.exc.SQLAlchemyError) as failure:
            db.exec_driver_sql("pragma max_page_count = 4")
            db.exec_driver_sql(statement)
    engine.dispose()
    assert classify(failure.value) is category


def test_classify_what_a_database_that_is_none_raises(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"no database" * 1_000)
    for path, category in (("text.db", C.DATABASE_CORRUPT), ("nowhere/kept.db", C.DATABASE_UNREACHABLE)):
        engine = sa.create_engine(f"sqlite:///{tmp_path / path}")
        with pytest.raises(sa.exc.DatabaseError) as failure, engine.connect() as db:
            db.exec_driver_sql("select * from kept")
        engine.dispose()
        assert classify(failure.value) is category


CHAINS: list[tuple[BaseException, C]] = [
    (caused(RuntimeError(), OSError(errno.ENOSPC, "x")), C.DISK_FULL),
    (caused(Exception(), aiohttp.ConnectionTimeoutError()), C.CONNECT_TIMEOUT),
    (caused(UpstreamError("x"), aiohttp.ServerDisconnectedError()), C.CONNECTION_RESET),
    (caused(UpstreamError("x"), ValueError()), C.UPSTREAM_FAILED),
    (caused(UpstreamError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")), C.RESPONSE_MALFORMED),
    (caused(UpstreamError("x", status=503), ValueError()), C.MODEL_OVERLOADED),
    (caused(errors.LedgerError("x"), caused(RuntimeError(), sqlite("x", "SQLITE_BUSY"))), C.DATABASE_LOCKED),
    (caused(errors.TranscriptError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")), C.ENCODING_INVALID),
    (caused(errors.TranscriptError("x"), ValueError("no time stamp")), C.TRANSCRIPT_UNREADABLE),
    (caused(errors.SettingsError("x"), PermissionError()), C.SETTINGS_INVALID),
    (caused(errors.WorkflowError("x"), UpstreamError("x", category=C.QUOTA_SPENT)), C.QUOTA_SPENT),
    (caused(WindlassError("x"), Exception()), C.BUG),
    (caused(OSError(), KeyError()), C.OS_FAILED),
    (caused(Exception(), KeyError()), C.BUG),
    (caused(KeyError(), Exception()), C.BUG),
    (ExceptionGroup("g", [TimeoutError()]), C.TOTAL_TIMEOUT),
    (ExceptionGroup("g", [TimeoutError(), OSError(errno.ENOSPC, "x"), ConnectionResetError()]), C.DISK_FULL),
    (ExceptionGroup("g", [ConnectionResetError(), TimeoutError()]), C.CONNECTION_RESET),
    (ExceptionGroup("g", [Exception(), errors.AccessError("x")]), C.UNKNOWN),
    (ExceptionGroup("g", [Exception(), OSError(errno.EROFS, "x")]), C.DISK_READ_ONLY),
    (BaseExceptionGroup("g", [asyncio.CancelledError(), ExceptionGroup("h", [TypeError()])]), C.BUG),
    (caused(Exception(), ExceptionGroup("g", [errors.FolderBusy("x")])), C.FOLDER_BUSY),
]


@pytest.mark.parametrize(
    ("exc", "category"),
    CHAINS,
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_classify_follows_the_cause_where_the_class_says_little(exc: BaseException, category: C) -> None:
    assert classify(exc) is category


def test_classify_ends_on_circles_and_on_endless_chains_and_groups() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) is C.BUG

    circle = ExceptionGroup("g", [first, OSError()])
    second.__cause__ = circle
    assert classify(circle) is C.BUG
    assert classify(ExceptionGroup("g", [second, second, OSError(errno.ENOSPC, "x")])) is C.BUG

    chain: BaseException = OSError(errno.ENOSPC, "x")
    for _ in range(20_000):
        chain = caused(RuntimeError(), chain)
    assert classify(chain) is C.BUG

    nested: Exception = OSError(errno.ENOSPC, "x")
    for _ in range(5_000):
        nested = ExceptionGroup("g", [nested])
    assert classify(nested) is C.UNKNOWN

    wide = ExceptionGroup("g", [OSError(errno.ENOSPC, "x"), *(TimeoutError() for _ in range(10_000))])
    assert classify(wide) is C.DISK_FULL


def test_only_foreign_exceptions_are_unknown() -> None:
    class Foreign(Exception):
        pass

    class LooksLikeOurs(Exception):
        category = "not ours"

        def __init__(self) -> None:
            self.category = "disk_full"

    assert classify(Foreign()) is C.UNKNOWN
    assert classify(LooksLikeOurs()) is C.UNKNOWN
    assert classify(Exception()) is C.UNKNOWN


@pytest.mark.parametrize(
    ("status", "code", "category"),
    [
        (200, "", None),
        (200, "context_length_exceeded", None),
        (302, "", C.REDIRECT_REFUSED),
        (400, "", C.UPSTREAM_REQUEST_REFUSED),
        (400, "context_length_exceeded", C.CONTEXT_TOO_LONG),
        (429, "insufficient_quota", C.QUOTA_SPENT),
        (429, "of another day", C.RATE_LIMITED),
        (502, "", C.UPSTREAM_SERVER_ERROR),
    ],
)
def test_upstream_category_reads_status_and_code(status: int, code: str, category: C | None) -> None:
    assert errors.upstream_category(status, code) is category


# Registration by adapters


def test_an_adapter_registers_its_exceptions_once_and_for_all() -> None:
    overloaded = type("Overloaded", (Exception,), {"__module__": "adapter_of_a_test.exceptions"})
    narrower = type("Narrower", (overloaded,), {"__module__": "adapter_of_a_test.exceptions"})
    assert classify(overloaded()) is C.UNKNOWN
    for _ in range(2):
        register("adapter_of_a_test.exceptions.Overloaded", C.MODEL_OVERLOADED)
    assert classify(narrower()) is C.MODEL_OVERLOADED
    with pytest.raises(ValueError, match="model_overloaded already; rate_limited contradicts"):
        register("adapter_of_a_test.exceptions.Overloaded", C.RATE_LIMITED)
    assert classify(overloaded()) is C.MODEL_OVERLOADED


@pytest.mark.parametrize("name", ["", "Timeout", ".Timeout", "a.", "a b.Timeout", "builtins.Exception", "a..B"])
def test_register_refuses_what_names_no_class_of_a_library(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be registered"):
        register(name, C.TOTAL_TIMEOUT)


def test_register_refuses_unknown_and_contradictions_of_the_shipped_names() -> None:
    with pytest.raises(ValueError, match="as unknown"):
        register("adapter_of_a_test.Other", C.UNKNOWN)
    with pytest.raises(ValueError, match="contradicts"):
        register("aiohttp.client_exceptions.ClientPayloadError", C.BUG)
    assert classify(aiohttp.ClientPayloadError()) is C.STREAM_CUT


# The tree


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"(?:├──|└──) (\w+)", errors.__doc__ or "")
    shown = {cls.__name__ for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, WindlassError)}
    assert sorted(drawn) == sorted(shown - {"WindlassError"})
    assert shown <= set(errors.__all__)


@pytest.mark.parametrize(
    "exc", [UpstreamError("x", status=429, category=C.QUOTA_SPENT), errors.RequestError("x", status=413)]
)
def test_exceptions_cross_durable_boundaries_with_what_they_know(exc: WindlassError) -> None:
    back = pickle.loads(pickle.dumps(exc))
    assert type(back) is type(exc)
    assert (str(back), vars(back)) == (str(exc), vars(exc))
    assert classify(back) is classify(exc)
