"""The ledger summed by the database: what a count by hand says, however it is cut."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.golden.application import tables

from windlass.errors import LedgerError
from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, Snapshot, Spend
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Decision, Erasure, Feedback, LedgerRecord, Outcome
from windlass.watch.metrics.store import PROJECTION, BudgetSpent, Reckoning, spending, write_s
from windlass.watch.metrics.sums import BOUNDS_S, DecisionKey, LedgerSums, OutcomeKey

SEED = 20_260_501
AT = 1_800_000_000.0


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "ledger.db").write_bytes(tables())
    with closing(Database(tmp_path / "ledger.db")) as db:
        yield db


@pytest_asyncio.fixture
async def ledger(db: Database) -> AsyncIterator[SqlLedger]:
    with closing(SqlLedger(db)) as ledger:
        yield ledger


def history(count: int, seed: int = SEED) -> list[LedgerRecord]:
    """Calls of two tenants with all that belongs to them, and some that have no end or no beginning."""
    rng = random.Random(seed)
    made: list[LedgerRecord] = []
    for number in range(count):
        owner: dict[str, Any] = {"at": AT + number, "tenant": rng.choice(["acme", "rival"])}
        call, model = f"call_{number}", rng.choice(["m", "n", 'odd","name', "ä" * 40])
        endpoint = rng.choice(["chat", "embeddings"])
        if rng.random() < 0.95:
            made.append(Call(id=call, endpoint=endpoint, model="auto", **owner))
        actions = rng.choice([("m",), ("m", "n"), ('odd","name',), ("m", "n", 'odd","name')])
        made.append(
            Decision(
                id=f"decision_{number}", call=call, point="model", policy="ucb@1", actions=actions,
                action=rng.choice(actions), propensity=0.5, live=rng.random() < 0.5, **owner,
            )
        )  # fmt: skip
        if rng.random() < 0.95:
            made.append(outcome(number, model=model, rng=rng, **owner))
        if rng.random() < 0.2:
            made.append(
                Feedback(id=f"feedback_{number}", target=call, kind="rating", source="user", value=1.0, **owner)
            )
    made.append(Erasure(id="erasure_1", user="0" * 64, at=AT))
    return made


def outcome(number: int, *, rng: random.Random | None = None, **fields: Any) -> Outcome:
    rng = rng or random.Random(number)
    status, error = rng.choice([(200, ""), (200, ""), (502, "stream_cut"), (499, "client_gone")])
    values: dict[str, Any] = {
        "id": f"outcome_{number}", "call": f"call_{number}", "at": AT, "model": "m", "provider": "p", "status": status,
        "latency_ms": rng.expovariate(1 / 800), "first_byte_ms": rng.expovariate(1 / 80), "error": error,
        "prompt_tokens": rng.randrange(100), "completion_tokens": rng.randrange(100), "cost_nusd": rng.randrange(10**9),
        "tokens_estimated": rng.random() < 0.3,
    }  # fmt: skip
    return Outcome(**(values | fields))


def summed(reckoning: Reckoning) -> LedgerSums:
    found: list[LedgerSums] = []
    while not reckoning.read(0.0, found.append):
        pass
    return found[0]


async def test_an_empty_ledger_has_no_series(db: Database, ledger: SqlLedger) -> None:
    sums = summed(Reckoning(db, ledger))
    assert (sums.outcomes, sums.decisions, sums.feedback, sums.cursor) == ({}, {}, {}, 0)


async def test_the_sums_are_those_of_a_count_by_hand(db: Database, ledger: SqlLedger) -> None:
    await ledger.append(*history(400))
    records = [entry.record for entry in ledger.read(ALL, limit=10_000)]
    calls = {(one.tenant, one.id): one.endpoint for one in records if isinstance(one, Call)}
    ended = [one for one in records if isinstance(one, Outcome)]
    sums = summed(Reckoning(db, ledger))

    keys = Counter(
        OutcomeKey(one.provider, one.model, calls.get((one.tenant, one.call), ""), one.status, one.error)
        for one in ended
    )
    assert {key: amounts.calls for key, amounts in sums.outcomes.items()} == keys
    every = list(sums.outcomes.values())
    for name in ("prompt_tokens", "completion_tokens", "cost_nusd"):
        assert sum(getattr(one, name) for one in every) == sum(getattr(one, name) for one in ended), name
    assert sum(one.estimated for one in every) == sum(one.tokens_estimated for one in ended)
    for name, sum_name, buckets in (
        ("latency_ms", "latency_us", "latency"),
        ("first_byte_ms", "first_byte_us", "first_byte"),
    ):
        took = [getattr(one, name) for one in ended]
        assert sum(getattr(one, sum_name) for one in every) == pytest.approx(sum(took) * 1000, abs=len(took))
        counted = [sum(getattr(one, buckets)[place] for one in every) for place in range(len(BOUNDS_S))]
        assert counted == [sum(value <= bound * 1000 for value in took) for bound in BOUNDS_S]

    decided = Counter(
        DecisionKey(one.point, one.policy if len(one.actions) > 1 else "named@1", one.live, one.action)
        for one in records
        if isinstance(one, Decision)
    )
    assert sums.decisions == decided
    assert sums.feedback == {("rating", "user"): sum(isinstance(one, Feedback) for one in records)}


@pytest.mark.parametrize("slice_calls", [1, 7, 100])
async def test_however_it_is_cut_the_sums_are_the_same_to_the_byte(
    db: Database, ledger: SqlLedger, slice_calls: int
) -> None:
    """Two workers that count in other steps must not differ by a rounding: a counter would seem to begin again."""
    cut = Reckoning(db, ledger, slice_calls=slice_calls)
    records = history(150)
    for begin in range(0, len(records), 90):
        await ledger.append(*records[begin : begin + 90])
        summed(cut)
    assert summed(cut).state() == summed(Reckoning(db, ledger)).state()


async def test_names_beyond_all_bounds_fall_together_the_same_in_every_worker(
    db: Database, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.watch.metrics.sums.MOST_SERIES", 10)
    await ledger.append(*(outcome(number, model=f"made-up-{number % 60}") for number in range(300)))
    sums = summed(Reckoning(db, ledger, slice_calls=11))
    assert len(sums.outcomes) <= 10 + 3
    assert sum(one.calls for one in sums.outcomes.values()) == 300
    assert sums.state() == summed(Reckoning(db, ledger)).state()


async def test_what_comes_later_is_added_and_nothing_twice(db: Database, ledger: SqlLedger) -> None:
    reckoning = Reckoning(db, ledger)
    await ledger.append(outcome(1), outcome(2))
    assert sum(one.calls for one in summed(reckoning).outcomes.values()) == 2
    assert sum(one.calls for one in summed(reckoning).outcomes.values()) == 2
    await ledger.append(outcome(2), outcome(3))
    assert sum(one.calls for one in summed(reckoning).outcomes.values()) == 3


async def test_a_restart_goes_on_from_the_snapshot(db: Database, ledger: SqlLedger) -> None:
    await ledger.append(*(outcome(number) for number in range(50)))
    before = summed(Reckoning(db, ledger, slice_calls=10, keep_every=20)).state()
    kept = ledger.snapshot(PROJECTION, LedgerSums.VERSION)
    assert kept is not None
    assert 20 <= sum(one.calls for one in LedgerSums.restored(kept.state).outcomes.values()) <= 50
    with db.write() as connection:  # what the snapshot holds is not counted again
        connection.execute(sa.delete(schema.outcomes).where(schema.outcomes.c.seq <= kept.cursor))
    assert summed(Reckoning(db, ledger)).state() == before


async def test_a_snapshot_that_is_damaged_is_counted_again(db: Database, ledger: SqlLedger) -> None:
    await ledger.append(*(outcome(number) for number in range(5)))
    ledger.save_snapshot(Snapshot(projection=PROJECTION, version=LedgerSums.VERSION, cursor=4, at=AT, state=b"damaged"))
    assert sum(one.calls for one in summed(Reckoning(db, ledger)).outcomes.values()) == 5


async def test_a_long_ledger_is_counted_over_several_scrapes(db: Database, ledger: SqlLedger) -> None:
    await ledger.append(*(outcome(number) for number in range(31)))
    reckoning, told = Reckoning(db, ledger, slice_calls=10), list[int]()
    answers = [reckoning.read(0.0, lambda sums: told.append(sums.cursor)) for _ in range(4)]
    assert answers == [False, False, False, True]
    assert told == [31], "nothing is told before all of it is counted"


async def test_absurd_figures_of_an_upstream_break_nothing(db: Database, ledger: SqlLedger) -> None:
    most = 2**63 - 1
    absurd = {"prompt_tokens": most, "completion_tokens": most, "cost_nusd": most, "latency_ms": 9e18}
    await ledger.append(*(outcome(number, **absurd) for number in range(20)), outcome(99))
    sums = summed(Reckoning(db, ledger))
    assert sum(one.calls for one in sums.outcomes.values()) == 21
    assert all(one.cost_nusd >= 0 for one in sums.outcomes.values())


async def test_threads_that_ask_at_once_count_once(db: Database, ledger: SqlLedger) -> None:
    await ledger.append(*(outcome(number) for number in range(200)))
    reckoning, told = Reckoning(db, ledger, slice_calls=5), list[int]()
    threads = [
        threading.Thread(
            target=reckoning.read, args=(10.0, lambda sums: told.append(sum(o.calls for o in sums.outcomes.values())))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [200] * 8


async def test_spending_is_of_the_window_and_of_the_group_that_spent_most(db: Database, ledger: SqlLedger) -> None:
    def spend(limit: str, group: str, since: int, nusd: int) -> Spend:
        return Spend(limit=limit, group=group, since=since, nusd=nusd, outcome=f"outcome_{limit}{group}{since}{nusd}")

    await ledger.append(
        spend("all", "", 100, 5), spend("all", "", 100, 6), spend("all", "", 0, 1_000),
        spend("users", "acme/ann", 100, 7), spend("users", "acme/ben", 100, 9),
        spend("users", "/acme/key/ann", 100, 99), spend("other", "", 100, 77),
    )  # fmt: skip
    assert spending(db, {"all": 100, "users": 100, "unused": 100}) == {
        "all": BudgetSpent(11, 1),
        "users": BudgetSpent(9, 2),
    }
    assert spending(db, {}) == {}


async def test_the_write_of_a_probe_changes_nothing_and_fails_where_none_is_possible(
    db: Database, ledger: SqlLedger, tmp_path: Path
) -> None:
    await ledger.append(outcome(1))
    head = ledger.head()
    assert 0 < write_s(db) < 5
    assert ledger.head() == head
    (tmp_path / "bare").mkdir()
    with closing(Database(tmp_path / "bare" / "ledger.db")) as bare, pytest.raises(LedgerError, match="no such table"):
        write_s(bare)
