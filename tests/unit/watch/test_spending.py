"""How budgets grew and what was refused; and what a forecast of exhaustion says, and how often it is right."""

from __future__ import annotations

import doctest
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.golden.application import tables

from windlass.errors import LedgerError
from windlass.gateway.access.limits import window
from windlass.gateway.options import LimitOptions
from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.records import Scope
from windlass.watch.spending import budgets, forecast, store
from windlass.watch.spending.budgets import windows
from windlass.watch.spending.forecast import exhaustion
from windlass.watch.spending.store import KEPT_S, Spending, Window, budget_points

A, B = Scope("a"), Scope("b")
NOW = 1_800_000_000.0


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "ledger.db").write_bytes(tables())
    opened = Database(tmp_path / "ledger.db")
    yield opened
    opened.close()


def spend(db: Database, name: str, group: str, since: int, nusd: int, worker: str = "w") -> None:
    row = {"name": name, "grp": group, "since": since, "worker": worker, "nusd": nusd}
    with db.write() as connection:
        connection.execute(db.replace(schema.spend, "name", "grp", "since", "worker"), row)


def test_the_examples_hold() -> None:
    assert doctest.testmod(forecast).failed == doctest.testmod(budgets).failed == 0


def test_a_budget_is_looked_up_once_in_each_step(db: Database) -> None:
    spending, day = Spending(db), window("day", NOW)[0]
    wanted = {"each day": [Window(day, 900.0)]}
    for seconds, nusd in ((0, 5), (10, 6), (900, 7), (1_800, 7)):
        spend(db, "each day", "a/x", day, nusd)
        spending.sample(wanted, NOW + seconds)
    assert spending.series("each day", "a/x", day) == [(NOW, 5), (NOW + 900, 7), (NOW + 1_800, 7)]
    assert spending.series("each day", "a/y", day) == []
    assert spending.series("each day", "a/x", day - 86_400) == []


def test_workers_are_summed_and_groups_ranked(db: Database) -> None:
    spending = Spending(db)
    for worker in ("one", "two"):
        spend(db, "n", "a/x", 0, 5, worker)
    spend(db, "n", "a/y", 0, 20)
    spend(db, "n", "ab/z", 0, 99)
    assert spending.used("n", 0, prefix="a/") == [("a/y", 20), ("a/x", 10)]
    assert spending.used("n", 0, prefix="a/", most=1) == [("a/y", 20)]
    assert [group for group, _ in spending.used("n", 0)] == ["ab/z", "a/y", "a/x"]
    assert spending.used("n", 60) == spending.used("other", 0) == []


def test_points_of_long_ago_go_but_those_of_totals_stay(db: Database) -> None:
    spending = Spending(db)
    for since in (0, 1_000):
        spend(db, "n", "", since, 1)
    spending.sample({"n": [Window(0, 60.0), Window(1_000, 60.0)]}, NOW)
    spending.sample({"n": [Window(0, 60.0)]}, NOW + KEPT_S + 1)
    assert len(spending.series("n", "", 0)) == 2
    assert spending.series("n", "", 1_000) == []
    spending.sample({}, NOW)
    with db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(budget_points)) == 2


def test_refusals_are_counted_by_the_hour_for_their_own_scope(db: Database) -> None:
    spending = Spending(db)
    for seconds in (0, 1, 7_200):
        spending.refuse(A, "each user", "ann", NOW + seconds)
    spending.refuse(B, "each user", "", NOW)
    spending.refuse(A, "x" * 5_000, "k" * 5_000, NOW)
    assert spending.refused(A) == [], "nothing is written before it is flushed"
    spending.flush()
    spending.flush()
    first, second = spending.refused(A)
    assert (first.limit, first.key, first.refused, first.last_at) == ("each user", "ann", 3, NOW + 7_200)
    assert len(second.limit) == store.NAME_CHARS
    assert [one.refused for one in spending.refused(A, NOW + 7_200)] == [1]
    assert [(one.limit, one.refused) for one in spending.refused(B)] == [("each user", 1)]


def test_refusals_that_cannot_be_written_wait(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    spending = Spending(db)
    spending.refuse(A, "n", "", NOW)

    def away() -> None:
        raise LedgerError("the database is away")

    monkeypatch.setattr(db, "write", away)
    with pytest.raises(LedgerError):
        spending.flush()
    monkeypatch.undo()
    spending.refuse(A, "n", "", NOW + 1)
    spending.flush()
    assert [(one.refused, one.last_at) for one in spending.refused(A)] == [(2, NOW + 1)]


def test_only_budgets_have_windows_that_are_looked_up() -> None:
    limits = [
        LimitOptions(name="a", window="month", usd=1.0), LimitOptions(name="a", window="month", usd=2.0, per="key"),
        LimitOptions(name="a", window="total", usd=1.0), LimitOptions(name="b", window="day", requests=5),
        LimitOptions(name="c", window="minute", usd=1.0),
    ]  # fmt: skip
    found = windows(limits, NOW)
    assert list(found) == ["a"]
    assert [one.since for one in found["a"]] == [window("month", NOW)[0], 0]


def walk(dice: random.Random, drift: float, sd: float, steps: int) -> list[tuple[float, float]]:
    """A random walk with drift, one step an hour."""
    series, used = [(0.0, 0.0)], 0.0
    for step in range(1, steps + 1):
        used += dice.gauss(drift, sd)
        series.append((3_600.0 * step, used))
    return series


def test_the_interval_holds_the_truth_in_80_of_100_cases() -> None:
    """Seeded; 600 walks. A true coverage of 0.80 gives less than 0.75 with a chance below 0.002."""
    dice, inside, told = random.Random(4), 0, 0
    for _ in range(600):
        series = walk(dice, 1.0, 1.5, 400)
        seen = series[:60]
        found = exhaustion(seen, seen[-1][1] + 40.0, math.inf)
        assert found is not None
        truth = next((at for at, used in series[60:] if used >= seen[-1][1] + 40.0), math.inf)
        late = math.inf if found.high_at is None else found.high_at
        assert found.low_at is not None
        told += 1
        inside += found.low_at <= truth <= late + 3_600.0
    assert 0.75 <= inside / told <= 0.92, inside / told


@pytest.mark.parametrize(
    ("series", "most"),
    [([], 1.0), ([(0.0, 0.0)], 1.0), ([(0.0, 0.0)] * 50, 1.0), ([(float(n), math.nan) for n in range(9)], 1.0)],
)
def test_too_little_is_no_forecast(series: list[tuple[float, float]], most: float) -> None:
    assert exhaustion(series, most, 100.0) is None


def test_what_does_not_grow_lasts() -> None:
    found = exhaustion([(float(n), 5.0) for n in range(9)], 10.0, 100.0)
    assert found is not None
    assert (found.at, found.low_at, found.high_at, found.chance) == (None, None, None, 0.0)
    endless = exhaustion([(float(n), 5.0) for n in range(9)], 10.0, math.inf)
    assert endless is not None
    assert endless.chance == 0.0


def test_what_is_spent_is_spent_now() -> None:
    found = exhaustion([(float(n), 2.0 * n) for n in range(9)], 10.0, 100.0)
    assert found is not None
    assert (found.at, found.low_at, found.high_at, found.chance) == (8.0, 8.0, 8.0, 1.0)


def test_a_noisy_drift_may_never_spend_it() -> None:
    series = [(float(n), float(used)) for n, used in enumerate((0, 0, 0, 9, 9, 9, 9, 9, 9))]
    found = exhaustion(series, 100.0, 30.0)
    assert found is not None
    assert found.high_at is None
    assert found.low_at is not None
    assert found.low_at > 8.0
    assert 0.0 < found.chance < 0.5
