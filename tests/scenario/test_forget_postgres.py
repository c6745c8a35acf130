"""Forgetting on a real PostgreSQL: the bytes leave the server's table files, and the workers agree."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.golden.application import settings
from tests.scenario.postgres import Postgres
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.ledger import workers
from windlass.ledger.ledger import ALL
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


async def test_the_policies_of_all_workers_follow_the_outcomes_of_one(tmp_path: Path, database_url: str) -> None:
    async with _worker(tmp_path, database_url, "worker-0") as one, _worker(tmp_path, database_url, "worker-1") as other:
        for number in range(20):
            call = await _call(one, "u", f"question {number}")
            await one.feedback(Scope(), FeedbackRequest(target=call, kind="rating", value=float(number % 2)))
        await _level(one, other)
        assert one.learner.digest() == other.learner.digest()
        assert one.loop.states() == other.loop.states() != []
        assert {worker.name for worker in other.workers()} >= {"worker-0", "worker-1"}
        await other.caught_up()
        assert other.overview.totals(Scope()).calls == 20
        workers.beat(one.db, "worker-9", 1, one.clock(), 0)
        async with asyncio.timeout(10):
            while any((lags := other.lags())[name] for name in ("worker-0", "worker-1")):
                await asyncio.sleep(0.05)
        assert lags["worker-9"] > 0.0, "who has learned nothing is behind since the first entry"
