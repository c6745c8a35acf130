"""Faults of a PostgreSQL server: full disk, no writes, locks, rot, no connection: clear errors, service, nothing lost.

A clock that is set back is in test_faults.py, on both databases.
"""

from __future__ import annotations

import random
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.scenario.disk import Disk, MountRefused, disk
from tests.scenario.faults import Client, findings, refused, run, said, stopped, up
from tests.scenario.postgres import OWNER, Postgres, server_user
from windlass.ledger.db import BUSY_TIMEOUT_MS
from windlass.ledger.writer import PATIENCE_S

pytestmark = pytest.mark.scenario
WAIT_S = PATIENCE_S + BUSY_TIMEOUT_MS / 1000 + 5
"""The longest that a call may take to be refused."""
TABLES = ("calls", "decisions", "outcomes", "feedback", "contexts", "bodies")
DISK_BYTES = 96 * 1024 * 1024


def name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def database(url: str) -> dict[str, str]:
    """The environment of a program on this database."""
    return {"WINDLASS_STORAGE__DATABASE_URL": url}


@contextmanager
def asked(postgres: Postgres, url: str) -> Iterator[psycopg.Connection[Any]]:
    """The superuser in the database of the program."""
    with postgres.admin(name(url)) as admin:
        yield admin


def refused_in_time(client: Client, code: str) -> None:
    began = time.monotonic()
    refused(client.call(), code)
    assert time.monotonic() - began < WAIT_S


def healthy(client: Client) -> None:
    """What needs no database goes on."""
    for path in ("/healthz", "/v1/models"):
        with urllib.request.urlopen(f"{client.url}{path}", timeout=5) as answer:
            assert answer.status == 200


def nothing_lost(postgres: Postgres, url: str, client: Client) -> None:
    """All that was acknowledged is there once, each call with its decision."""
    with asked(postgres, url) as admin:

        def kept(query: str) -> list[str]:
            return [str(row[0]) for row in admin.execute(query)]

        ended = kept("SELECT call FROM outcomes")
        assert set(client.calls) <= set(ended)
        assert len(ended) == len(set(ended))
        assert set(client.ratings) <= set(kept("SELECT id FROM feedback"))
        lone = "SELECT c.id FROM calls c LEFT JOIN decisions d ON d.call = c.id WHERE d.id IS NULL"
        assert kept(lone) == [], "a call without its decision"


def at_once(home: Path, url: str, *commands: Sequence[str]) -> list[subprocess.CompletedProcess[str]]:
    """Commands beside one another, to their ends."""
    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(lambda words: run(home, *words, more=database(url)), commands))


def found(home: Path, url: str, words: str) -> None:
    (told,) = at_once(home, url, ("doctor", "--json"))
    tells(told, words)


def tells(told: subprocess.CompletedProcess[str], words: str) -> None:
    assert any(words in finding for finding in findings(told)), told.stdout


def disconnect(postgres: Postgres, url: str) -> None:
    with postgres.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name(url),))


def test_a_database_that_takes_no_writes_or_no_connection_is_named_and_comes_back(
    tmp_path: Path, postgres: Postgres, database_url: str
) -> None:
    home, target = tmp_path / "home", sql.Identifier(name(database_url))
    with (
        up(home, more=database(database_url)) as (url, process),
        ExitStack() as held,
        ThreadPoolExecutor(2) as threads,
    ):
        client = Client(url)
        assert client.call()[0] == 200
        with postgres.admin() as admin:
            admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(target))
            disconnect(postgres, database_url)
            rating = threads.submit(client.rate, client.calls[0])
            asking = threads.submit(at_once, home, database_url, ("calls", "--json"), ("doctor", "--json"))
            refused_in_time(client, "disk_read_only")
            refused(rating.result(WAIT_S), "disk_read_only")
            healthy(client)
            shown, told = asking.result(60)
            assert client.calls[0] in shown.stdout, "what is there can be read"
            tells(told, "the database takes no writes")
            admin.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(target))
        client.back()
        with postgres.admin(name(database_url)) as admin:
            admin.execute("REVOKE INSERT ON outcomes FROM windlass")
            refused_in_time(client, "permission_denied")
            found(home, database_url, "lacks rights on outcomes")
            admin.execute("GRANT INSERT ON outcomes TO windlass")
        client.back()
        _take_all(postgres, database_url, held)
        naming = threads.submit(found, home, database_url, "raise max_connections")
        refused_in_time(client, "pool_exhausted")
        healthy(client)
        naming.result(60)
        held.close()
        client.back()
        assert client.rate(client.calls[0])[0] < 300
        assert stopped(process) == 0
    assert "Traceback" not in said(home)
    nothing_lost(postgres, database_url, client)


def test_a_table_that_another_session_locks_refuses_in_time_and_a_short_lock_only_delays(
    tmp_path: Path, postgres: Postgres, database_url: str
) -> None:
    home = tmp_path / "home"
    with up(home, more=database(database_url)) as (url, process), ThreadPoolExecutor(1) as threads:
        client = Client(url)
        assert client.call()[0] == 200
        with asked(postgres, database_url) as admin:
            with admin.transaction():
                admin.execute("LOCK TABLE outcomes IN ACCESS EXCLUSIVE MODE")
                began = time.monotonic()
                calling = threads.submit(client.call)
                healthy(client)
                found(home, database_url, f"session {admin.info.backend_pid} holds outcomes locked")
                refused(calling.result(WAIT_S), "database_locked")
                assert time.monotonic() - began < WAIT_S
                healthy(client)
            client.back()
            with admin.transaction():
                admin.execute("LOCK TABLE outcomes IN ACCESS EXCLUSIVE MODE")
                calling = threads.submit(client.call)
                time.sleep(0.5)
            assert calling.result(30)[0] == 200
        assert client.rate(client.calls[0])[0] < 300
        assert stopped(process) == 0
    assert "Traceback" not in said(home)
    nothing_lost(postgres, database_url, client)


def test_a_server_that_is_away_is_named_and_found_again(tmp_path: Path, postgres: Postgres, database_url: str) -> None:
    home = tmp_path / "home"
    with up(home, more=database(database_url)) as (url, process), ThreadPoolExecutor(6) as threads:
        client = Client(url)
        assert client.call()[0] == 200
        postgres.kill()
        try:
            streaming = threads.submit(client.call, stream=True)
            telling = threads.submit(at_once, home, database_url, ("doctor", "--json"))
            starting = [
                threads.submit(at_once, tmp_path / arguments[-1], database_url, arguments)
                for arguments in (("up",), ("up", "--workers", "2"), ("calls",))
            ]
            refused_in_time(client, "database_unreachable")
            refused(streaming.result(WAIT_S), "database_unreachable")
            healthy(client)
            tells(telling.result(60)[0], "start the server, or correct storage.database_url")
            for started in starting:
                (done,) = started.result(60)
                assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
                assert "start the server, or correct storage.database_url" in done.stderr
        finally:
            postgres.start()
        client.back()
        disconnect(postgres, database_url)
        assert client.call()[0] == 200, "connections that were cut are made again"
        assert stopped(process) == 0
    assert "Traceback" not in said(home)
    nothing_lost(postgres, database_url, client)


def test_a_refused_password_is_named_and_never_shown(tmp_path: Path, postgres: Postgres) -> None:
    home, role, rules = tmp_path / "home", "locked", postgres.data / "pg_hba.conf"
    trusting = rules.read_text()
    with postgres.admin() as admin:
        admin.execute("CREATE ROLE locked LOGIN PASSWORD 'first-password'")
        admin.execute("CREATE DATABASE locked OWNER locked")
        rules.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{trusting}")
        admin.execute("SELECT pg_reload_conf()")
        url = postgres.url("locked").replace(f"{OWNER}@", f"{role}:first-password@")
        try:
            done = run(home, "up", more=database(url.replace("first-password", "guessed-password")))
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
            assert "correct user and password in storage.database_url" in done.stderr
            assert "guessed-password" not in done.stderr
            with up(home, more=database(url)) as (served, process):
                client = Client(served)
                assert client.call()[0] == 200
                admin.execute("ALTER ROLE locked PASSWORD 'second-password'")
                disconnect(postgres, url)
                refused_in_time(client, "permission_denied")
                found(home, url, "correct user and password in storage.database_url")
                admin.execute("ALTER ROLE locked PASSWORD 'first-password'")
                client.back()
                assert stopped(process) == 0
            assert "-password" not in said(home)
            nothing_lost(postgres, url, client)
        finally:
            rules.write_text(trusting)
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("DROP DATABASE locked WITH (FORCE)")
            admin.execute("DROP ROLE locked")


def test_a_page_that_rots_is_named_and_calls_go_on(tmp_path: Path, postgres: Postgres, database_url: str) -> None:
    home = tmp_path / "home"
    with up(home, more=database(database_url)) as (url, process):
        client = Client(url)
        with ThreadPoolExecutor(8) as threads:
            assert {status for status, _ in threads.map(lambda _: client.call(), range(120))} == {200}
        page = _harm(postgres, database_url, "outcomes")
        told, shown = at_once(home, database_url, ("doctor", "--json"), ("call", client.calls[0]))
        assert any("invalid page" in one and "restore a backup" in one for one in findings(told)), told.stdout
        assert shown.returncode == 0 or "invalid page" in shown.stderr, shown.stderr
        for _ in range(5):
            status, body = client.call()
            assert status in (200, 503), body
            if status == 503:
                refused((status, body), "database_corrupt")
        healthy(client)
        _mend(postgres, page)
        client.back()
        assert stopped(process) == 0
    assert "Traceback" not in said(home)
    nothing_lost(postgres, database_url, client)


def test_a_database_that_cannot_keep_every_text_and_a_server_that_is_too_old_are_refused(
    tmp_path: Path, postgres: Postgres, database_url: str
) -> None:
    with postgres.admin() as admin:
        made = "CREATE DATABASE latin OWNER windlass ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        admin.execute(made)
        try:
            done = run(tmp_path / "home", "up", more=database(postgres.url("latin")))
            assert (done.returncode, "encoded in LATIN1" in done.stderr, "UTF8" in done.stderr) == (2, True, True)
            with psycopg.connect(postgres.url("latin").replace("+psycopg", "")) as latin:
                assert latin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        finally:
            admin.execute("DROP DATABASE latin WITH (FORCE)")
    with _older(postgres, b"13") as port:
        done = run(tmp_path / "home", "up", more=database(database_url.replace(f":{postgres.port}/", f":{port}/")))
        assert (done.returncode, "PostgreSQL 13 is too old; use 15 or newer" in done.stderr) == (2, True), done.stderr


def test_a_full_disk_of_the_server_refuses_calls_and_the_service_returns_with_the_space(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with _small() as (postgres, fill, free):
        database_url = postgres.create()
        with up(home, more=database(database_url)) as (url, process):
            client = Client(url)
            for _ in range(5):
                assert client.call()[0] == 200
            fill()
            refused(client.calls_until_refused(), "disk_full")
            healthy(client)
            shown, told = at_once(home, database_url, ("calls", "--limit", "1000", "--json"), ("doctor", "--json"))
            assert client.calls[0] in shown.stdout, "what is there can be read"
            tells(told, "the server's disk is full: make room")
            free()
            client.back()
            assert client.rate(client.calls[1])[0] < 300
            assert stopped(process) == 0
        assert "Traceback" not in said(home)
        nothing_lost(postgres, database_url, client)


def _take_all(postgres: Postgres, url: str, held: ExitStack) -> None:
    """Take every connection of the server, also those that the program has."""
    where = postgres.url("postgres").replace("+psycopg", "")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            held.enter_context(psycopg.connect(where))
        except psycopg.OperationalError:
            if not postgres.backends(url):
                return
            disconnect(postgres, url)
    raise AssertionError("the program keeps its connections")


def _harm(postgres: Postgres, url: str, table: str) -> tuple[Path, bytes]:
    """Garbage over the first page of a table's fullest partition; the file and what was in it."""
    with asked(postgres, url) as admin:
        admin.execute("CHECKPOINT")
        largest = admin.execute(
            "SELECT pg_relation_filepath(relid) FROM pg_partition_tree(%s) WHERE isleaf"
            " ORDER BY pg_relation_size(relid) DESC LIMIT 1",
            (table,),
        ).fetchone()
    assert largest is not None
    postgres.halt()
    file = postgres.data / str(largest[0])
    before = file.read_bytes()
    assert len(before) > 8192, "there are pages beside it"
    file.write_bytes(random.Random(5).randbytes(8192) + before[8192:])
    postgres.start()
    return file, before[:8192]


def _mend(postgres: Postgres, page: tuple[Path, bytes]) -> None:
    """What a restored backup does, for one page."""
    postgres.halt()
    file, before = page
    with file.open("r+b") as harmed:
        harmed.write(before)
    postgres.start()


@contextmanager
def _older(postgres: Postgres, version: bytes) -> Iterator[int]:
    """A port on which the server says that it is of another version."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def relay(one: socket.socket, other: socket.socket, change: bool) -> None:
            with suppress(OSError), one, other:
                while received := one.recv(65_536):
                    if change:
                        received = received.replace(b"server_version\x0015", b"server_version\x00" + version)
                    other.sendall(received)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    server = socket.create_connection(("127.0.0.1", postgres.port))
                    threading.Thread(target=relay, args=(client, server, False), daemon=True).start()
                    threading.Thread(target=relay, args=(server, client, True), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield int(listening.getsockname()[1])


@contextmanager
def _small() -> Iterator[tuple[Postgres, Callable[[], None], Callable[[], None]]]:
    """A server on a small disk, and the way to fill and to free it; where no disk can be made, one that says so."""
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="windlass-pg-", dir="/tmp")))
        # A server without room for its log does not refuse but stops, which is the fault "away".
        initdb = ["--data-checksums", "--wal-segsize=1", f"--waldir={folder / 'wal'}"]
        small: Disk | None = None
        with suppress(MountRefused):
            small = ending.enter_context(disk(folder / "data", DISK_BYTES, server_user()))
        postgres = Postgres(folder, disk=small, initdb=initdb, shared_buffers="16MB")
        ending.callback(postgres.stop)
        postgres.start()
        if small is not None:
            yield postgres, small.fill, small.free
        else:
            yield postgres, lambda: _say_full(postgres, full=True), lambda: _say_full(postgres, full=False)


def _say_full(postgres: Postgres, *, full: bool) -> None:
    """The server's own words and code for a full disk, from triggers on all that needs room."""
    raising = (
        "RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
        " 'could not extend file \"base/1/1\": No space left on device' USING ERRCODE = '53100'; END $$"
    )
    with postgres.admin() as admin:
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'test_%'"
        databases = [str(row[0]) for row in admin.execute(query)]
    for one in databases:
        with postgres.admin(one) as admin:
            if not full:
                admin.execute("DROP EVENT TRIGGER full_disk")
                admin.execute("DROP FUNCTION full_disk() CASCADE")
                continue
            for kind, function in (("trigger", "full_disk"), ("event_trigger", "full_disk_too")):
                body = raising.format(kind)
                admin.execute(sql.SQL(f"CREATE OR REPLACE FUNCTION {function}() {body}"))
            for table in TABLES:
                made = sql.SQL("CREATE TRIGGER full_disk BEFORE INSERT ON {} EXECUTE FUNCTION full_disk()")
                admin.execute(made.format(sql.Identifier(table)))
            admin.execute(
                "CREATE EVENT TRIGGER full_disk ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS')"
                " EXECUTE FUNCTION full_disk_too()"
            )
