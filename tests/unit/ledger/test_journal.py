"""The journal: what a killed process leaves is in the tables once and whole, whoever comes next."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from windlass.errors import ErrorCategory, LedgerError
from windlass.ledger import journal
from windlass.ledger.check import AT, A, B, call, decision, outcome, rating
from windlass.ledger.commit import GroupCommit
from windlass.ledger.db import Database
from windlass.ledger.intake import Pending, pending
from windlass.ledger.journal import Journal
from windlass.ledger.ledger import ALL, Body, Item, Spend
from windlass.ledger.sql import SqlLedger
from windlass.records import Erasure, user_digest
from windlass.stats.chance import Propensity

SECRET = b"what a user said in confidence"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("ledger.db.journal-*"))


def one_call(name: str, user: str = "u") -> tuple[Item, ...]:
    """All that a call leaves behind."""
    return (
        call(name, user=user),
        decision(f"decision_{name}", name),
        outcome(name),
        Body(id=f"{name}-request", at=AT, tenant="a", call=name, role="request", data=SECRET, user=user, expires_at=AT),
        Spend(limit="all", group="", since=0, nusd=7, outcome=f"outcome_{name}"),
    )


def left_by_a_killed_process(folder: Path, *appends: tuple[Item, ...], turn_after: int = -1) -> list[bytes]:
    """A journal whose process is gone; returns its records. turn_after: so many stand in one file, others in both."""
    kept = Journal(folder / "ledger.db")
    data = [journal.record(pending(items)) for items in appends]
    for number, one in enumerate(data):
        if number == turn_after:
            kept.turn()
        assert kept.append(one)
    for file in kept._files:  # as the kernel does it
        os.close(file)
    return data


def spent(db: Database) -> int:
    with db.read() as connection:
        return int(connection.scalar(sa.text("SELECT coalesce(sum(nusd), 0) FROM spend")) or 0)


def ids(db: Database) -> list[str]:
    with closing(SqlLedger(db)) as ledger:
        return [entry.record.id for entry in ledger.read(ALL)]


async def test_what_is_kept_is_seen_at_once_by_its_process_and_soon_by_others(db: Database, tmp_path: Path) -> None:
    with closing(SqlLedger(db)) as ledger, closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
        assert ledger.keep(*one_call("call_1")) is None
        assert [one.call.id for one in ledger.calls(A)] == ["call_1"]
        assert ledger.keep(*one_call("call_2")) is None
        await ledger.append(rating("feedback_1", "call_2"))
        assert [entry.record.id for entry in ledger.read(ALL)][-1] == "feedback_1", "after the call that it is about"
        assert ledger.keep(*one_call("call_3")) is None
        for _ in range(500):
            if other.execute("SELECT count(*) FROM outcomes").fetchone() == (3,):
                break
            await asyncio.sleep(0.01)
        assert other.execute("SELECT sum(nusd) FROM spend").fetchone() == (21,)
    assert files(tmp_path) == []


async def test_full_durability_waits_for_the_commit_and_keeps_no_journal(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "ledger.db", durability="full")) as db:
        db.migrate()
        with closing(SqlLedger(db)) as ledger:
            committing = ledger.keep(*one_call("call_1"))
            assert committing is not None
            assert await committing == 3
            assert files(tmp_path) == []


async def test_what_is_committed_is_cut_off_at_once(db: Database, tmp_path: Path) -> None:
    with closing(SqlLedger(db)) as ledger:
        for number in range(20):
            ledger.keep(*one_call(f"call_{number}"))
            if number % 5 == 0:
                await asyncio.sleep(0.06)
        ledger.head()
        assert len(files(tmp_path)) == 2
        assert all(SECRET not in file.read_bytes() for file in files(tmp_path))


_KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.unit.ledger.test_journal import one_call
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger

async def main():
    db = Database(Path(sys.argv[1]))
    ledger = SqlLedger(db)
    for number in range(50):
        assert ledger.keep(*one_call(f"call_{number}")) is None
        if number == 20:
            ledger.head()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_nothing_that_was_kept(db: Database, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "ledger.db"), str(root)], check=False)
    assert done.returncode == -signal.SIGKILL
    with db.read() as connection:
        there = connection.scalar(sa.text("SELECT count(*) FROM calls"))
    assert there is not None
    assert 21 <= there < 50, "the kill came before the last commit"
    assert len(files(tmp_path)) == 2
    found = ids(db)
    assert found == [f"{kind}call_{number}" for number in range(50) for kind in ("", "decision_", "outcome_")]
    assert spent(db) == 7 * 50
    assert files(tmp_path) == []


@pytest.mark.parametrize("turn_after", [-1, 1])
def test_a_record_that_is_not_whole_was_never_there(db: Database, tmp_path: Path, turn_after: int) -> None:
    """Cut anywhere: what is before the cut stands, in order, and nothing else."""
    data = left_by_a_killed_process(tmp_path, *(one_call(f"call_{n}") for n in range(3)), turn_after=turn_after)
    db.close()  # the tables are in one file then
    last = max(files(tmp_path), key=lambda file: file.stat().st_size)
    whole = last.read_bytes()
    saved = {file: file.read_bytes() for file in files(tmp_path)}
    begins = len(whole) - len(data[-1]) - 16
    for size in (begins, begins + 1, begins + 15, begins + 16, len(whole) - 1, len(whole)):
        copy = tmp_path / f"cut-{size}"
        copy.mkdir()
        shutil.copy(tmp_path / "ledger.db", copy)
        for file, content in saved.items():
            (copy / file.name).write_bytes(content[:size] if file == last else content)
        with closing(Database(copy / "ledger.db")) as cut:
            count = 3 if size == len(whole) else 2
            assert [name for name in ids(cut) if name.startswith("call")] == [f"call_{n}" for n in range(count)]
            assert spent(cut) == 7 * count


def test_a_flipped_bit_ends_a_file(db: Database, tmp_path: Path) -> None:
    left_by_a_killed_process(tmp_path, one_call("call_0"), one_call("call_1"), one_call("call_2"))
    file = max(files(tmp_path), key=lambda one: one.stat().st_size)
    data = bytearray(file.read_bytes())
    data[data.index(b"decision_call_1") + 3] ^= 4
    file.write_bytes(data)
    assert [name for name in ids(db) if name.startswith("call")] == ["call_0"]


@pytest.mark.parametrize(
    "content", [b"", b"windlass jour", b"windlass journal 1\n", b"windlass journal 1\n{}\n", b"\0" * 99]
)
def test_a_file_without_a_record_is_taken_away(db: Database, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db.journal-00-0").write_bytes(content)
    assert ids(db) == []
    assert files(tmp_path) == []


def test_what_was_committed_before_the_end_is_not_committed_again(db: Database, tmp_path: Path) -> None:
    with closing(SqlLedger(db)) as ledger:
        ledger.append_now(*one_call("call_0"))
        with db.write() as connection:
            connection.execute(sa.text("DELETE FROM bodies"))
    left_by_a_killed_process(tmp_path, one_call("call_0"), one_call("call_1"))
    assert [name for name in ids(db) if name.startswith("call")] == ["call_0", "call_1"]
    assert spent(db) == 14
    with db.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM bodies")) == 1, "what was deleted since stays away"


def test_the_journal_of_a_living_process_is_left_alone(db: Database, tmp_path: Path) -> None:
    living = Journal(tmp_path / "ledger.db")
    living.append(journal.record(pending(one_call("call_1"))))
    assert ids(db) == []
    assert len(files(tmp_path)) == 2
    living.close()
    assert ids(db)[0] == "call_1", "and is found once it is closed with something in it"


async def test_a_propensity_that_nobody_worked_out_is_the_same_to_the_bit(db: Database, tmp_path: Path) -> None:
    late = Propensity([0.5, 0.6, 0.7], [0.1, 0.2, 0.1], 1).mixed(0.01, 0.97)
    made = msgspec.structs.replace(decision("decision_1", "call_1"), propensity=late)
    left_by_a_killed_process(tmp_path, (call("call_1"), made))
    with closing(SqlLedger(db)) as ledger:
        assert [one.propensity for one in ledger.decisions(ALL)] == [float(late)]


def test_a_row_of_an_earlier_release_gets_what_it_lacks(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {**journal._LAYOUT, "outcomes": tuple(name for name in journal._LAYOUT["outcomes"] if name != "provider")}
    at = journal._LAYOUT["outcomes"].index("provider")
    rows: list[Pending] = [
        (table, row[:at] + row[at + 1 :] if table.name == "outcomes" else row)
        for table, row in pending((call("call_1"), outcome("call_1")))
    ]
    with monkeypatch.context() as earlier:
        earlier.setattr(journal, "_LAYOUT", columns)
        kept = Journal(tmp_path / "ledger.db")
        assert kept.append(journal.record(rows))
    kept.close()
    with closing(SqlLedger(db)) as ledger:
        trace = ledger.trace(A, "call_1")
    assert trace is not None
    assert trace.outcome is not None
    assert (trace.outcome.provider, trace.outcome.cost_nusd) == ("", outcome("call_1").cost_nusd)


async def test_a_full_disk_is_met_by_waiting_for_the_commit(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def torn(file: int, data: bytes) -> int:
        return real(file, data[: len(data) // 2])

    with closing(SqlLedger(db)) as ledger:
        assert ledger.keep(*one_call("call_0")) is None
        with monkeypatch.context() as full:
            full.setattr(os, "write", torn)
            committing = ledger.keep(*one_call("call_1"))
        assert committing is not None
        await committing
        assert ledger.keep(*one_call("call_2")) is None, "there is room again"
        assert spent(db) == 21
        assert all(SECRET not in file.read_bytes() for file in files(tmp_path))


async def test_no_folder_for_it_means_no_journal(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("this file system knows no locks")

    with closing(SqlLedger(db)) as ledger:
        monkeypatch.setattr("fcntl.flock", refused)
        committing = ledger.keep(*one_call("call_1"))
        assert committing is not None
        await committing
        assert files(tmp_path) == []


async def test_while_commits_fail_nothing_is_taken_and_nothing_is_lost(db: Database, tmp_path: Path) -> None:
    with closing(SqlLedger(db)) as ledger:
        with db.write() as connection:
            connection.execute(sa.text("ALTER TABLE calls RENAME TO gone"))
        assert ledger.keep(*one_call("call_1")) is None
        with pytest.raises(LedgerError, match="no such table"):
            await ledger.append(rating("feedback_1", "call_1"))
        committing = ledger.keep(*one_call("call_2"))
        assert committing is not None
        with pytest.raises(LedgerError, match="no such table"):
            await committing
        with db.write() as connection:
            connection.execute(sa.text("ALTER TABLE gone RENAME TO calls"))
        await ledger.append(rating("feedback_2", "call_1"))
        kept = [entry.record.id for entry in ledger.read(ALL)]
        assert kept == ["call_1", "decision_call_1", "outcome_call_1", "feedback_2"]
        assert ledger.keep(*one_call("call_3")) is None


async def test_what_cannot_be_committed_at_the_end_is_there_for_the_next(db: Database, tmp_path: Path) -> None:
    ledger = SqlLedger(db)
    with db.write() as connection:
        connection.execute(sa.text("ALTER TABLE calls RENAME TO gone"))
    assert ledger.keep(*one_call("call_1")) is None
    ledger.close()
    with db.write() as connection:
        connection.execute(sa.text("ALTER TABLE gone RENAME TO calls"))
    assert ids(db) == ["call_1", "decision_call_1", "outcome_call_1"]


def test_a_commit_that_fails_at_the_end_is_not_cut_off_by_the_next_one(db: Database, tmp_path: Path) -> None:
    """The oldest record was left in the journal, so that the count of what is committed says nothing of it."""
    under_way, closing_now = threading.Event(), threading.Event()
    written: list[str] = []

    def write(items: Sequence[str]) -> int:
        if not written:
            under_way.set()
            assert closing_now.wait(10)
            written.append("nothing")
            raise LedgerError("the disk is full")
        written.extend(items)
        return len(written)

    kept = Journal(tmp_path / "ledger.db")
    group = GroupCommit(write, kept)
    assert group.keep(("first",), journal.record(pending((call("call_1"),))))
    assert under_way.wait(10)
    assert group.keep(("second",), journal.record(pending((call("call_2"),))))
    closer = threading.Thread(target=group.close)
    closer.start()
    while not group._closed:
        time.sleep(0.001)
    closing_now.set()
    closer.join(10)
    kept.close()
    assert written == ["nothing", "second"]
    assert ids(db) == ["call_1", "call_2"], "the next process has taken in what was left"


async def test_a_large_call_is_committed_like_any_other(db: Database, tmp_path: Path) -> None:
    large = Body(id="b", at=AT, tenant="a", call="call_1", role="request", data=b"x" * 300_000, expires_at=AT)
    with closing(SqlLedger(db)) as ledger:
        committing = ledger.keep(call("call_1"), large)
        assert committing is not None
        assert await committing == 1
        assert files(tmp_path) == []


async def test_forgetting_takes_what_a_killed_neighbour_left_as_well(db: Database, tmp_path: Path) -> None:
    with closing(SqlLedger(db)) as ledger:
        await ledger.append(call("call_0", user="u"))
        left_by_a_killed_process(tmp_path, one_call("call_1", user="u"), (call("call_2", B),))
        told = Erasure(id="erasure_1", at=AT + 1, tenant="a", workspace="default", user=user_digest(A, "u"))
        await ledger.append(told)
        ledger.erase(told)
        assert files(tmp_path) == []
        assert not any(SECRET in file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        assert [one.call.id for one in ledger.calls(B)] == ["call_2"]


async def test_a_closed_ledger_keeps_nothing(db: Database) -> None:
    ledger = SqlLedger(db)
    ledger.close()
    committing = ledger.keep(call("call_1"))
    assert committing is not None
    with pytest.raises(LedgerError) as refused:
        await committing
    assert refused.value.category is ErrorCategory.LEDGER_CLOSED


def test_a_reader_within_a_write_does_not_wait_for_itself(db: Database) -> None:
    async def kept() -> None:
        assert ledger.keep(*one_call("call_1")) is None

    with closing(SqlLedger(db)) as ledger:
        with db.write() as connection:
            connection.execute(sa.text("UPDATE heads SET value = value"))
            asyncio.run(kept())
            with db.read() as reading:
                assert reading.scalar(sa.text("SELECT count(*) FROM calls")) == 0
        assert ledger.head() == 3
