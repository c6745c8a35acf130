"""`/readyz`: 200 where calls would be answered, 503 with the reason where they would not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.golden.application import Client, chat, key, opened

from windlass.errors import ErrorCategory, LedgerError
from windlass.gateway.providers.echo import Echo
from windlass.runtime import Runtime
from windlass.server import readiness
from windlass.server.app import Windlass


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question is answered anew."""
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)


async def asked(runtime: Runtime, **more: Any) -> tuple[int, dict[str, str]]:
    response = await Client(Windlass(runtime, **more)).get("/readyz")
    told = response.json
    assert told["status"] == ("ready" if response.status == 200 else "not ready")
    return response.status, told["reasons"]


async def test_a_server_that_answers_is_ready_and_asks_for_no_key(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()], keys=[key("ops", "acme")]) as runtime:
        assert await asked(runtime) == (200, {})


async def test_one_that_was_told_to_stop_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        status, reasons = await asked(runtime, stopping=lambda: True)
        assert (status, reasons.keys()) == (503, {"draining"})


async def test_one_whose_ledger_takes_no_write_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds the write lock: reading goes on, a commit does not."""
    monkeypatch.setattr("windlass.ledger.db.BUSY_TIMEOUT_MS", 50)
    async with opened(tmp_path) as runtime:
        with runtime.db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=50")
        runtime.db.engine.dispose()
        sa.event.listen(runtime.db.engine, "connect", lambda made, _: made.execute("PRAGMA busy_timeout=50"))
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            status, reasons = await asked(runtime)
            assert (status, reasons) == (503, {"ledger": "database_locked"})
            holder.execute("ROLLBACK")
        assert await asked(runtime) == (200, {})


async def test_one_whose_database_is_away_is_not_and_says_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as runtime:

        def away() -> None:
            raise LedgerError("postgresql://me@db.internal is away", category=ErrorCategory.DATABASE_UNREACHABLE)

        with monkeypatch.context() as broken:
            broken.setattr(runtime.db, "read", away)
            assert await asked(runtime) == (503, {"database": "database_unreachable"})
        assert await asked(runtime) == (200, {})


async def test_one_on_tables_of_another_release_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        with runtime.db.write() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        status, reasons = await asked(runtime)
        assert (status, reasons.keys()) == (503, {"migrations"})
        assert "9999" in reasons["migrations"]


async def test_one_whose_learner_is_behind_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    async with opened(tmp_path, [Echo()], clock=lambda: now[0]) as runtime:
        with monkeypatch.context() as stuck:
            stuck.setattr(runtime.projections, "follow", lambda: None)
            assert (await Client(Windlass(runtime)).post("/v1/chat/completions", chat())).status == 200
            now[0] += 5
            assert await asked(runtime) == (200, {}), "a few seconds are no harm"
            now[0] += 25
            assert await asked(runtime) == (503, {"learner": "30 s behind the ledger"})
        await runtime.caught_up()
        assert await asked(runtime) == (200, {})


async def test_a_database_that_hangs_is_told_of_in_time_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.05)
    async with opened(tmp_path) as runtime:
        app: Any = Windlass(runtime)
        looks, going_on = [], asyncio.Event()
        running = asyncio.get_running_loop()

        def hang() -> dict[str, str]:
            looks.append(1)
            asyncio.run_coroutine_threadsafe(going_on.wait(), running).result()
            return {}

        monkeypatch.setattr(app._readiness, "_look", hang)
        for _ in range(3):
            response = await Client(app).get("/readyz")
            assert (response.status, response.json["reasons"].keys()) == (503, {"database"})
        assert len(looks) == 1
        going_on.set()


async def test_an_answer_stands_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 60.0)
    async with opened(tmp_path) as runtime:
        app: Any = Windlass(runtime)
        looks: list[int] = []
        look: Callable[[], dict[str, str]] = app._readiness._look
        monkeypatch.setattr(app._readiness, "_look", lambda: looks.append(1) or look())
        for response in await asyncio.gather(*(Client(app).get("/readyz") for _ in range(20))):
            assert response.status == 200
        assert len(looks) == 1
