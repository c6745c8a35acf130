"""SIGKILL in the middle of an ingest, at seeded random moments: afterwards every item is in memory exactly once."""

from __future__ import annotations

import random
import shutil
import subprocess
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
    expected = _content(clean)
    assert len(expected["items"]) == len(files)
    landed = starts = 0
    while landed < kills:
        starts += 1
        assert starts <= 5 * kills, f"only {landed} of {starts - 1} kills met a running program"
        process = start(killed, "ingest", str(tmp_path / "talks"))
        try:
            ended = process.wait(timeout=rng.uniform(0.15, 0.9) * whole_s)
        except subprocess.TimeoutExpired:
            kill(process)
            landed += 1
            continue
        # What the killed ones left was finished before the next kill came: it must be whole. Then from nothing again.
        assert ended == 0
        _check(killed, expected)
        shutil.rmtree(killed)
    assert windlass(killed, "ingest", str(tmp_path / "talks")).returncode == 0
    _check(killed, expected)


def _check(killed: Path, expected: dict[str, list[tuple[object, ...]]]) -> None:
    """Every item is in memory exactly once, as if nothing had been killed."""
    assert _content(killed) == expected
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
