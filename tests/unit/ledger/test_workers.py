"""The names of workers, and who is waited for."""

from __future__ import annotations

from pathlib import Path

from windlass.ledger import workers
from windlass.ledger.db import Database

NOW = 1_800_000_000.0


def test_a_name_is_one_of_its_host_and_folder_and_stays(tmp_path: Path) -> None:
    one = workers.unique("worker-0", tmp_path, "crane.example.org")
    assert one.startswith("worker-0@crane-")
    assert one == workers.unique("worker-0", tmp_path / "x" / "..", "crane.example.org")
    others = [("worker-1", tmp_path, "crane"), ("worker-0", tmp_path / "x", "crane"), ("worker-0", tmp_path, "winch")]
    others += [("worker-0", tmp_path, "crane.example.net"), ("worker-0", tmp_path, "")]
    assert len({one, *(workers.unique(*other) for other in others)}) == 6


def test_a_strange_host_makes_a_plain_name(tmp_path: Path) -> None:
    name = workers.unique("worker-0", tmp_path, "hö/st %\udcff" + "x" * 300)
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 60
    assert "/" not in name


def test_who_left_is_not_alive_and_is_awaited_for_a_while(db: Database) -> None:
    mine = workers.unique("worker-0", Path("/a"), "here")
    sibling = workers.unique("worker-1", Path("/a"), "here")
    for name, at in ((mine, NOW), (sibling, NOW - 9_000), ("b@x-1", NOW - 50), ("c@x-1", NOW - 70), ("d@x-1", NOW)):
        workers.beat(db, name, 1, at, 5)
    workers.leave(db, "d@x-1")
    assert [one.name for one in workers.alive(db, NOW)] == [mine]
    assert set(workers.awaited(db, NOW - 60, mine)) == {mine, sibling, "b@x-1", "d@x-1"}
    workers.leave(db, "d@x-1")
    assert "d@x-1" not in [one.name for one in workers.alive(db, NOW)], "leaving twice brings nobody back"
    workers.beat(db, "d@x-1", 1, NOW, 6)
    assert "d@x-1" in [one.name for one in workers.alive(db, NOW)]
