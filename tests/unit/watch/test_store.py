"""Rollups: every record counts once, whoever writes, however often the process dies."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.golden.application import tables

from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.ledger import Entry
from windlass.records import Scope
from windlass.watch import store
from windlass.watch.store import HOUR_S, Rollups, hour_of

A = Scope("a", "default")
HOUR = hour_of(1_800_000_000.0)
KEY = ("a", "default", "model", HOUR, "p@1", True, "x")
Open = Callable[[], Rollups]


@pytest.fixture
def rollups(tmp_path: Path) -> Iterator[Open]:
    """Workers on one database."""
    (tmp_path / "ledger.db").write_bytes(tables())
    opened: list[Database] = []

    def make() -> Rollups:
        opened.append(Database(tmp_path / "ledger.db"))
        return Rollups(opened[-1])

    yield make
    for db in opened:
        db.close()


def _entries(count: int = 40) -> list[Entry]:
    records = [
        record
        for n in range(count // 4)
        for record in (
            call(f"call_{n}"),
            decision(f"decision_{n}", f"call_{n}"),
            outcome(f"call_{n}"),
            rating(f"feedback_{n}", f"call_{n}", value=0.5),
        )
    ]
    return [Entry(place, record) for place, record in enumerate(records, start=1)]


def _sums(rollups: Rollups) -> tuple[int, int, int, float, int]:
    outcomes, decided, said = rollups.outcomes(A), rollups.decisions(A), rollups.feedback(A)
    return (
        sum(hour.calls for hour in outcomes),
        sum(hour.latency.count for hour in outcomes),
        sum(hour.chosen for hour in decided),
        sum(hour.reward_sum for hour in decided),
        sum(hour.given for hour in said),
    )


def test_what_was_folded_is_in_the_tables(rollups: Open) -> None:
    one = rollups()
    one.fold(*_entries())
    one.credited(3, KEY, 0.75, None)
    one.credited(7, KEY, 0.5, None)
    one.credited(8, KEY, 1.0, 0.5)
    one.flush()
    assert _sums(one) == (10, 10, 10, 1.75, 10)
    (row,) = one.decisions(A, point="model")
    assert (row.action, row.live, row.rewarded, row.propensity_sum) == ("x", True, 2, 7.5)
    assert not one.decisions(A, point="trim")
    (said,) = one.feedback(A)
    assert (said.kind, said.source, said.metric, said.valued, said.value_sum) == ("rating", "user", "quality", 10, 5.0)
    assert not one.outcomes(Scope("b", "default")), "another tenant sees nothing"
    assert not one.outcomes(A, since=HOUR + HOUR_S)
    assert not one.outcomes(A, until=HOUR - 1)
    assert one.cursor == 40


def test_a_batch_that_comes_again_before_it_was_written_counts_once(rollups: Open) -> None:
    one = rollups()
    one.fold(*_entries()[:20])
    one.fold(*_entries())
    one.flush()
    assert _sums(one)[0] == 10


def test_flushing_twice_counts_once(rollups: Open) -> None:
    one = rollups()
    one.fold(*_entries())
    one.flush()
    one.fold(*_entries())
    one.flush()
    assert _sums(one)[0] == 10


@pytest.mark.parametrize("seed", range(5))
def test_workers_that_fold_the_same_ledger_count_it_once(rollups: Open, seed: int) -> None:
    """Each is somewhere else in the ledger, any of them may write, and one starts anew half-way."""
    rng, entries = random.Random(seed), _entries(200)
    workers, at = [rollups() for _ in range(3)], [0, 0, 0]
    for step in range(300):
        who = rng.randrange(3)
        more = entries[at[who] : at[who] + rng.randrange(20)]
        workers[who].fold(*more)
        for entry in more:
            if entry.seq % 4 == 3:
                workers[who].credited(entry.seq, KEY, 0.5, None)
        at[who] += len(more)
        if rng.random() < 0.3:
            workers[who].flush()
        if step == 150:
            # A new process: its learner goes on from a snapshot that is not beyond the tables.
            workers[who] = rollups()
            at[who] = rng.randrange(workers[who].cursor + 1)
    for who, worker in enumerate(workers):
        worker.fold(*entries[at[who] :])
        for entry in entries[at[who] :]:
            if entry.seq % 4 == 3:
                worker.credited(entry.seq, KEY, 0.5, None)
        worker.flush()
    assert _sums(workers[0]) == (50, 50, 50, 25.0, 50)
    assert {worker.look() for worker in workers} == {200}


def test_a_process_that_dies_before_it_wrote_leaves_nothing_out(rollups: Open) -> None:
    dying, other = rollups(), rollups()
    dying.fold(*_entries()[:20])
    other.fold(*_entries())
    other.flush()
    assert _sums(rollups())[0] == 10


def test_emptied_tables_can_be_filled_again(rollups: Open) -> None:
    one = rollups()
    one.fold(*_entries())
    one.flush()
    one.clear()
    assert (_sums(one)[0], one.look()) == (0, 0)
    one.fold(*_entries())
    one.flush()
    assert _sums(one)[0] == 10


def test_threads_that_fold_and_flush_at_once_count_every_call_once(rollups: Open) -> None:
    workers, entries = [rollups() for _ in range(4)], _entries(400)

    def work(worker: Rollups) -> None:
        for start in range(0, len(entries), 10):
            worker.fold(*entries[start : start + 10])
            worker.flush()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _sums(workers[0])[0] == 100


def test_folding_years_at_once_holds_little_and_counts_all(rollups: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.watch.store.HELD", 20)
    one, entries = rollups(), _entries(200)
    for start in range(0, len(entries), 10):
        one.fold(*entries[start : start + 10])
        for entry in entries[start : start + 10]:
            if entry.seq % 4 == 3:
                one.credited(entry.seq, KEY, 0.5, None)
    assert one.cursor >= 170, "most of it is written before anyone says so"
    one.flush()
    assert _sums(one) == (50, 50, 50, 25.0, 50)


def test_rewards_that_a_failure_kept_back_are_not_passed_when_much_waits(
    rollups: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "HELD", 10)
    one, entries = rollups(), _entries(80)
    with pytest.raises(RuntimeError), one.together():
        one.fold(*entries[:40])
        raise RuntimeError("the learner stopped half-way")
    one.flush()
    assert one.cursor == 0
    with one.together():  # the same once more, and what came since
        one.fold(*entries)
        for entry in entries:
            if entry.seq % 4 == 3:
                one.credited(entry.seq, KEY, 0.5, None)
    one.flush()
    assert _sums(one) == (20, 20, 20, 10.0, 20)
