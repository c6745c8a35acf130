"""Power cuts at any write of the real ledger: 100,000 with --soak, 2,000 otherwise; and the faults that they find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.apsw_dbapi import Driver
from tests.simulation.disk import Cuts, Image, Recorder, Step
from tests.simulation.power_loss import FILE, Fault, Judge, Life, State, explore, live, migrated, opened
from windlass.ledger.db import Durability
from windlass.ledger.ledger import Body
from windlass.ledger.sql import SqlLedger
from windlass.records import LedgerRecord

pytestmark = pytest.mark.simulation
CUTS = 100_000
CUTS_PER_SEED = 500


@pytest.fixture
def start(tmp_path: Path) -> Image:
    return migrated(tmp_path / "start")


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_power_cut_at_any_write_leaves_a_sound_ledger(
    start: Image, tmp_path: Path, durability: Durability, share: float
) -> None:
    """Full: all that was acknowledged is there. Normal: what is there is what the ledger held at some time."""
    cuts = reopened = 0
    for seed in range(int(CUTS * share / 2 / CUTS_PER_SEED)):
        report = explore(seed, CUTS_PER_SEED, start, tmp_path, durability)
        assert not report.violations, "\n".join(report.violations[:5])
        cuts, reopened = cuts + report.cuts, reopened + report.reopened
    assert cuts == int(CUTS * share / 2)
    assert reopened >= cuts / 200


def test_a_power_cut_during_the_first_migration_leaves_what_can_be_migrated(tmp_path: Path, share: float) -> None:
    recorder = Recorder("power-migration")
    with opened(tmp_path / "live", Driver(recorder.name), "full") as db:
        db.migrate()
    recorder.unregister()
    empty = Life({}, (), states=[State(0, 0, ())])
    judge, disks, cuts = Judge(empty, tmp_path / "cut", "full"), Cuts({}, recorder.log), max(12, int(600 * share))
    for number in range(cuts):
        place = number * len(recorder.log) // cuts
        wrong = judge.reopened(disks.at(place, f"migration/{number}"))
        assert wrong == "", f"cut {number} after step {place} of {len(recorder.log)}"


def test_the_same_seed_gives_the_same_cuts(start: Image, tmp_path: Path) -> None:
    first, again = (live(start, "7", tmp_path / "live", "full", Fault()) for _ in range(2))
    assert [(s.kind, s.file, s.at, len(s.data)) for s in first.log] == [
        (s.kind, s.file, s.at, len(s.data)) for s in again.log
    ]
    one, two = Cuts(first.start, first.log), Cuts(first.start, first.log)
    assert one.at(200, "x") == two.at(200, "x")
    assert one.at(210, "x") != two.at(210, "y") or one.at(230, "x") != two.at(230, "y")


def test_a_cut_keeps_what_was_synced_and_loses_some_of_the_rest() -> None:
    log = [Step("write", FILE, 0, b"a" * 1024), Step("sync", FILE), Step("write", FILE, 512, b"b" * 1024)]
    found = {Cuts({FILE: b""}, log).at(3, str(seed))[FILE] for seed in range(200)}
    assert {data[:512] for data in found} == {b"a" * 512}
    seconds = {data[512:1024] for data in found}
    assert seconds == {b"a" * 512, b"b" * 512}
    assert {len(data) for data in found} == {1024, 1536}
    assert any(data[512:1024] == b"a" * 512 and data[1024:] == b"b" * 512 for data in found), "torn between sectors"


def test_a_deleted_file_may_come_back_until_its_folder_is_synced() -> None:
    log = [Step("delete", "x"), Step("create", "x"), Step("write", "x", 0, b"new"), Step("sync", "x")]
    found = {Cuts({"x": b"old"}, log).at(3, str(seed)).get("x") for seed in range(200)}
    assert found == {b"old", None, b"", b"new"}
    assert Cuts({"x": b"old"}, log).at(4, "0") == {"x": b"new"}


class Hasty(SqlLedger):
    """Planted: acknowledges before the commit."""

    def append_now(self, *items: LedgerRecord | Body) -> int:
        self.post(*items)
        return 0


class Piecemeal(SqlLedger):
    """Planted: a transaction for each record."""

    def append_now(self, *items: LedgerRecord | Body) -> int:
        return [super(Piecemeal, self).append_now(item) for item in items][-1]


def pragma(**values: str) -> Callable[[str], str]:
    """A rewrite of `PRAGMA name=...` that sets another value."""

    def rewrite(sql: str) -> str:
        for name, value in values.items():
            if sql.startswith(f"PRAGMA {name}="):
                return f"PRAGMA {name}={value}"
        return sql

    return rewrite


FULL: dict[str, Fault] = {
    "nothing is synced": Fault(rewrite=pragma(synchronous="OFF")),
    "only checkpoints are synced": Fault(rewrite=pragma(synchronous="NORMAL")),
    "the disk forgets syncs of the log": Fault(lies=lambda file: file.endswith("-wal")),
    "the disk forgets syncs of the database": Fault(lies=lambda file: file == FILE),
    "the disk forgets syncs of a rollback journal": Fault(
        rewrite=pragma(journal_mode="DELETE"), lies=lambda file: file.endswith("-journal"), readers=False
    ),
    "the journal is in memory": Fault(rewrite=pragma(journal_mode="MEMORY"), readers=False),
    # SQLite's manual: without EXTRA a deleted journal may come back and undo the last commit.
    "the folder is not synced after a rollback journal": Fault(rewrite=pragma(journal_mode="DELETE"), readers=False),
    "acknowledged before the commit": Fault(ledger=Hasty),
    "a transaction for each record": Fault(ledger=Piecemeal),
}
NORMAL: dict[str, Fault] = {
    "nothing is synced": FULL["nothing is synced"],
    "the disk forgets syncs of the database": FULL["the disk forgets syncs of the database"],
    "a transaction for each record": FULL["a transaction for each record"],
}


@pytest.mark.parametrize(
    ("durability", "planted"), [*(("full", name) for name in FULL), *(("normal", name) for name in NORMAL)]
)
def test_a_planted_fault_is_found(start: Image, tmp_path: Path, durability: Durability, planted: str) -> None:
    fault = (FULL if durability == "full" else NORMAL)[planted]
    found = (explore(seed, 100, start, tmp_path, durability, fault, lives=1).violations for seed in range(3))
    assert any(found), "300 cuts found nothing"


def test_a_rollback_journal_that_is_synced_in_full_passes(start: Image, tmp_path: Path) -> None:
    """The simulator does not cry wolf: with EXTRA, SQLite promises for this journal what we ask of a full one."""
    sound = Fault(rewrite=pragma(journal_mode="DELETE", synchronous="EXTRA"), readers=False)
    for seed in range(2):
        assert explore(seed, 100, start, tmp_path, "full", sound, lives=1).violations == []


def test_a_violation_says_what_replays_it(start: Image, tmp_path: Path) -> None:
    fault = FULL["nothing is synced"]
    first, again = (explore(1, 100, start, tmp_path, "full", fault, lives=1).violations for _ in range(2))
    assert first == again
    assert first[0].startswith("explore(seed=1, cuts=100, durability='full'), life 0, cut ")
