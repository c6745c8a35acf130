"""The tests' own PostgreSQL: up fast, recovers from kills, no superuser for the program, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.scenario.postgres import STOP_S, Postgres

pytestmark = pytest.mark.scenario


def _connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_a_fresh_database_is_utf8_durable_and_no_superusers(database_url: str) -> None:
    with _connect(database_url) as connection:
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in ("server_encoding", "fsync", "is_superuser")]
        assert shown == [("UTF8",), ("on",), ("off",)]
        connection.execute("CREATE TABLE kept (n int)")


def test_committed_rows_survive_sigkill_of_the_whole_server() -> None:
    server = Postgres()
    try:
        began = time.monotonic()
        server.start()
        assert time.monotonic() - began < 5
        url = server.create()
        with _connect(url) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
            (backend,) = server.backends(url)
            os.kill(backend, signal.SIGTERM)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            _connect(url)
        server.restart()
        with _connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        server.drop(url)
        with pytest.raises(psycopg.OperationalError):
            _connect(url)
    finally:
        server.stop()
    assert not server.folder.exists()


HOLDER = """
import signal
from tests.scenario.postgres import Postgres
server = Postgres(fsync=False)
server.start()
print(server.folder, server.pid, flush=True)
signal.pause()
"""


def test_a_server_ends_with_the_process_that_started_it() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        with holder.stdout:
            folder, pid = holder.stdout.readline().split()
    finally:
        holder.kill()
        holder.wait()
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and (Path(folder).exists() or Path(f"/proc/{pid}").exists()):
        time.sleep(0.02)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()
