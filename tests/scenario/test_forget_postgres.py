"""Forgetting on a real PostgreSQL: the bytes leave the server's table files, and the workers agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.golden.application import settings
from tests.scenario.faults import run
from tests.scenario.postgres import OWNER, Postgres
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.ledger import workers
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.postgres import end_log
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.testing import Echo

pytestmark = pytest.mark.scenario
SECRET, USER = "xylophone-sonata-in-violet", "user-zebra-quartz"


def _worker(home: Path, url: str, name: str) -> Runtime:
    return Runtime(settings(home, storage__database_url=url), providers=[Echo("a", "b")], worker=name)


async def _call(runtime: Runtime, user: str, text: str) -> str:
    body: dict[str, Any] = {"model": "auto", "user": user, "messages": [{"role": "user", "content": text}]}
    answer = await runtime.gateway.complete(Request(msgspec.json.encode(body)))
    assert [chunk async for chunk in answer.chunks]
    return answer.transit.call.id


async def _level(*workers: Runtime) -> None:
    """Wait until all have learned from everything."""
    async with asyncio.timeout(20):
        while len({worker.learner.cursor for worker in workers}) > 1 or any(
            worker.learner.cursor < worker.ledger.head() for worker in workers
        ):
            await asyncio.sleep(0.02)


def _files_with(postgres: Postgres, text: str) -> list[str]:
    with psycopg.connect(postgres.url("postgres").replace("+psycopg", "").replace("windlass@", "postgres@")) as admin:
        admin.execute("CHECKPOINT")
    tables = (postgres.data / "base").rglob("*")
    return [str(path) for path in tables if path.is_file() and text.encode() in path.read_bytes()]


async def test_a_forgotten_user_leaves_no_byte_in_the_tables_and_all_workers_agree(
    tmp_path: Path, postgres: Postgres, database_url: str
) -> None:
    async with _worker(tmp_path, database_url, "worker-0") as one, _worker(tmp_path, database_url, "worker-1") as other:
        for number in range(6):
            mine = one if number % 2 else other
            call = await _call(mine, USER, SECRET)
            said = FeedbackRequest(target=call, kind="rating", value=1.0, comment=f"I wrote {SECRET}")
            await other.feedback(Scope(), said)
            await _call(one, "somebody", "kept-words")
        await _level(one, other)
        one.projections.keep()
        assert _files_with(postgres, SECRET), "the test can fail"
        assert await one.forget(Scope(), USER, by="ann", reason="asked for it") > 10
        await _level(one, other)
        assert not _files_with(postgres, SECRET)
        assert not _files_with(postgres, USER)
        assert _files_with(postgres, "kept-words")
        assert one.learner.digest() == other.learner.digest()
        for worker in (one, other):
            _, live, again = worker.replay()
            assert live == again
        assert {trace.call.user for trace in one.ledger.calls(ALL)} == {"", "somebody"}


def _all_files_with(folder: Path, text: str) -> list[str]:
    """Every file below, whatever it is for, that holds `text`."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@contextmanager
def _unlinking(postgres: Postgres) -> Iterator[None]:
    """A server that unlinks old segments of its log instead of renaming them."""
    with postgres.admin() as admin:
        admin.execute("ALTER SYSTEM SET wal_recycle = off")
        admin.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("ALTER SYSTEM RESET wal_recycle")
            admin.execute(f"REVOKE pg_checkpoint FROM {OWNER}")
            admin.execute("SELECT pg_reload_conf()")


async def test_what_the_log_keeps_is_told_and_with_the_rights_to_end_it_no_file_of_the_server_holds_a_byte(
    tmp_path: Path, postgres: Postgres, database_url: str
) -> None:
    secret, user = "mandolin-fugue-in-ochre", "user-okapi-basalt"
    home, where = (
        tmp_path / "home",
        {"WINDLASS_STORAGE__DATABASE_URL": database_url},
    )
    home.mkdir(mode=0o700)
    async with _worker(home, database_url, "worker-0") as runtime:
        for number in range(4):
            call = await _call(runtime, user, f"{secret} {number}")
            said = FeedbackRequest(target=call, kind="rating", value=1.0, comment=f"{user} wrote {secret}")
            await runtime.feedback(Scope(), said)
        await _call(runtime, "somebody", "kept-words")
        await runtime.caught_up()
    told = run(home, "forget", user, more=where)
    assert told.returncode == 0, told.stderr
    words = " ".join(told.stdout.split())
    assert "rows deleted or cleared" in words
    assert f"GRANT EXECUTE ON FUNCTION pg_switch_wal() TO {OWNER}; GRANT pg_checkpoint TO {OWNER};" in words
    assert "set wal_recycle = off" in words
    assert _all_files_with(postgres.data / "pg_wal", secret), "and so it is"
    with _unlinking(postgres):
        assert not _files_with(postgres, secret)
        with postgres.admin(database_url.rsplit("/", 1)[1]) as admin:
            admin.execute(f"GRANT EXECUTE ON FUNCTION pg_switch_wal() TO {OWNER}")
            admin.execute(f"GRANT pg_checkpoint TO {OWNER}")
        again = run(home, "forget", user, "--json", more=where)
        assert json.loads(again.stdout) == {"changed": 0, "remains": []}, again.stdout + again.stderr
        for folder in (postgres.folder, home):
            for text in (secret, user):
                assert not _all_files_with(folder, text)
        assert _all_files_with(postgres.data, "kept-words"), "the test can find what is there"


async def test_what_else_keeps_a_copy_of_the_log_is_told(postgres: Postgres, database_url: str) -> None:
    db = Database(database_url)
    db.migrate()
    try:
        with postgres.admin() as admin:
            admin.execute("SELECT pg_create_physical_replication_slot('unread', true)")
            for setting in ("wal_keep_size = '16MB'", "log_min_duration_statement = '10s'"):
                admin.execute(f"ALTER SYSTEM SET {setting}")
            admin.execute("SELECT pg_reload_conf()")
            try:
                remains = " ".join(end_log(db))
            finally:
                admin.execute("SELECT pg_drop_replication_slot('unread')")
                admin.execute("ALTER SYSTEM RESET ALL")
                admin.execute("SELECT pg_reload_conf()")
        for words in ("replication slot unread", "keeps 16MB of write-ahead log", "text log holds statements"):
            assert words in remains
    finally:
        db.close()


async def test_the_policies_of_all_workers_follow_the_outcomes_of_one(tmp_path: Path, database_url: str) -> None:
    async with _worker(tmp_path, database_url, "worker-0") as one, _worker(tmp_path, database_url, "worker-1") as other:
        for number in range(20):
            call = await _call(one, "u", f"question {number}")
            await one.feedback(Scope(), FeedbackRequest(target=call, kind="rating", value=float(number % 2)))
        await _level(one, other)
        assert one.learner.digest() == other.learner.digest()
        assert one.loop.states() == other.loop.states() != []
        assert {worker.name for worker in other.workers()} >= {one.worker, other.worker}
        await other.caught_up()
        assert other.overview.totals(Scope()).calls == 20
        workers.beat(one.db, "worker-9", 1, one.clock(), 0)
        async with asyncio.timeout(10):
            while any((lags := other.lags())[name] for name in (one.worker, other.worker)):
                await asyncio.sleep(0.05)
        assert lags["worker-9"] > 0.0, "who has learned nothing is behind since the first entry"
