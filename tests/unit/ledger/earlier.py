"""A database as the release before wrote it, and what must be readable in it after an upgrade.

`tests/data/upgrade/ledger-0001.db.gz` was made by that release (migration 0001): one short transcript taken in without
an embedder, three questions, five feedback, one of them another tenant's.
"""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windlass.content.ingest import COLLECTION
from windlass.content.store import Contents
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.move import newest, version
from windlass.ledger.sql import SqlLedger
from windlass.memory.retrieval import search
from windlass.memory.store import Memory
from windlass.records import Call, Feedback, Scope
from windlass.runtime import Runtime
from windlass.settings import load

PACKED = Path(__file__).parents[2] / "data" / "upgrade" / "ledger-0001.db.gz"
MADE_S = 1_780_000_100.0
SKIPPED = ("sqlite_", "fts_", "alembic_version")


def unpack(file: Path) -> Path:
    """The SQLite database of the earlier release at `file`."""
    file.write_bytes(gzip.decompress(PACKED.read_bytes()))
    return file


def tables(file: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows of each of its tables, read with the standard library alone."""
    connection = sqlite3.connect(file)
    try:
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            if not name.startswith(SKIPPED):
                yield name, [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')]
    finally:
        connection.close()


def check_reads_back(db: Database, before: dict[str, list[dict[str, Any]]]) -> None:
    """Every record of `before` is there, field by field, and so are memory and content."""
    assert version(db) == newest()
    ledger = SqlLedger(db)
    try:
        entries = ledger.read(ALL)
        placed = {
            row["id"]: row["seq"]
            for name in ("calls", "decisions", "outcomes", "feedback", "run_events")
            for row in before[name]
        }
        assert {entry.record.id: entry.seq for entry in entries} == placed
        said = {entry.record.id: entry.record for entry in entries if isinstance(entry.record, Feedback)}
        assert said["feedback_words"].comment == "Grüße, “quoted” \\ %s"
        assert said["feedback_acme"].scope == Scope("acme", "two")
        assert any(row["comment"] for row in before["feedback"])
        asked = [entry.record for entry in entries if isinstance(entry.record, Call)]
        for call in asked:
            trace = ledger.trace(Scope(), call.id)
            assert trace is not None
            assert trace.outcome is not None
            contexts = {row["decision"] for row in before["contexts"]}
            assert all(bool(decision.context) == (decision.id in contexts) for decision in trace.decisions)
            assert len(ledger.bodies(Scope(), call.id)) == sum(row["call"] == call.id for row in before["bodies"])
        assert asked
    finally:
        ledger.close()
    found = search(Memory(db, None), Scope(), COLLECTION, "What holds and what lets out?")
    assert {hit.text for hit in found.hits} <= {row["text"] for row in before["chunks"]}
    assert found.hits
    contents = Contents(db)
    ((item, told),) = contents.items(Scope()).items()
    assert told.title == "Why a pawl falls"
    assert len(contents.segments(Scope(), item)) == len(before["segments"]) == 4
    assert contents.source(Scope(), item)[1].startswith(b"---\ntitle: Why a pawl falls")


async def check_replays(home: Path, url: str = "") -> None:
    """The policies of the upgraded database have learned, and a rebuild from its ledger is bitwise equal."""
    settings = load({"home": str(home), "memory.embedder": "off", "storage.database_url": url}, environ={})
    empty = load({"home": str(home / "empty"), "memory.embedder": "off"}, environ={})
    async with Runtime(settings, clock=lambda: MADE_S) as runtime, Runtime(empty) as other:
        cursor, live, rebuilt = await asyncio.to_thread(runtime.replay)
        assert (cursor, live) == (runtime.ledger.head(), rebuilt)
        assert live != other.replay()[1]
