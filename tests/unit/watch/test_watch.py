"""The task that keeps the tables level: in parts, so that a stop has not to wait for millions of rows."""

from __future__ import annotations

import asyncio
import threading

import pytest

from windlass.ledger.db import Database
from windlass.watch import watch as watching
from windlass.watch.watch import Watch


@pytest.fixture
def watch(tmp_path, monkeypatch):
    db = Database(tmp_path / "ledger.db")
    db.migrate()
    monkeypatch.setattr(watching, "EVERY_S", 0.01)
    yield Watch(db, settled=lambda: 100, limits=tuple, clock=lambda: 1.8e9)
    db.close()


async def test_a_backlog_is_taken_in_parts_and_a_stop_comes_between_them(watch, monkeypatch):
    asked, going_on = [], threading.Event()

    def part(until, most):
        asked.append((until, most))
        going_on.wait(5)
        return True

    monkeypatch.setattr(watch.outcomes, "catch_up", part)
    task = asyncio.create_task(watch.run())
    while not asked:
        await asyncio.sleep(0.001)
    task.cancel()
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked == [(100, watching.AT_ONCE)]


async def test_it_rests_once_it_is_level(watch, monkeypatch):
    left = [True, True, False]
    asked = []
    monkeypatch.setattr(watch.outcomes, "catch_up", lambda until, most: asked.append(most) or (left and left.pop(0)))
    monkeypatch.setattr(watching, "EVERY_S", 60.0)
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.3)
    task.cancel()
    assert len(asked) == 3, "after a part that was not the last comes the next one; after the last a rest"
