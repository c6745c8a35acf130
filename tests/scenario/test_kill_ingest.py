"""SIGKILL in the middle of an ingest, at seeded random moments: afterwards every item is in memory exactly once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.scenario import corpus
from tests.scenario.program import kill, rows, start, windlass

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
ITEMS, TURNS = 24, 60


def test_ten_kills_lose_and_double_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 100 if request.config.getoption("--soak") else 10
    rng = random.Random(20261121)
    files = corpus.write(tmp_path / "talks", ITEMS, TURNS, seed=7)
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    began = time.monotonic()
    assert windlass(clean, "ingest", str(tmp_path / "talks")).returncode == 0
    whole_s = time.monotonic() - began
    landed = 0
    for _ in range(kills):
        process = start(killed, "ingest", str(tmp_path / "talks"))
        time.sleep(rng.uniform(0.15, 0.9) * whole_s)
        landed += process.poll() is None
        if process.poll() is None:
            kill(process)
    assert landed >= kills // 2, f"only {landed} of {kills} kills met a running program"
    assert windlass(killed, "ingest", str(tmp_path / "talks")).returncode == 0
    assert _content(killed) == _content(clean)
    assert len(_content(killed)["items"]) == len(files)
    assert _doubles(killed) == []


def _content(home: Path) -> dict[str, list[tuple[object, ...]]]:
    """All that memory holds, without times and row numbers."""
    return {
        "items": rows(home, "SELECT tenant, workspace, id, title FROM items ORDER BY id"),
        "segments": rows(home, "SELECT item, ordinal, speaker, start_s, text FROM segments ORDER BY item, ordinal"),
        "chapters": rows(home, "SELECT item, ordinal, title FROM chapters ORDER BY item, ordinal"),
        "quotes": rows(home, "SELECT item, ordinal, text FROM quotes ORDER BY item, ordinal"),
        "chunks": rows(home, "SELECT item, ordinal, text FROM chunks ORDER BY item, ordinal"),
        "vectors": rows(
            home,
            "SELECT c.item, c.ordinal, length(v.data) FROM vectors v JOIN chunks c ON c.id = v.chunk "
            "ORDER BY c.item, c.ordinal",
        ),
        "indexed": rows(home, "SELECT count(*) FROM chunks"),
    }


def _doubles(home: Path) -> list[tuple[object, ...]]:
    """Chunks, by text, that stand more than once in one item; and step events with one id."""
    return rows(home, "SELECT item, text, count(*) FROM chunks GROUP BY item, text HAVING count(*) > 1") + rows(
        home, "SELECT id, count(*) FROM run_events GROUP BY tenant, workspace, id HAVING count(*) > 1"
    )
