"""Listings of a database give what their filters say, whichever way they go, and pass over rows that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.golden.application import tables
from tests.unit.ledger import listings

from windlass.ledger import search
from windlass.ledger.db import Database, metadata
from windlass.ledger.ledger import CallFilter, DecisionFilter, FeedbackFilter
from windlass.ledger.sql import SqlLedger
from windlass.records import Scope


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "ledger.db").write_bytes(tables())
    made = Database(tmp_path / "ledger.db")
    yield made
    made.close()


@pytest.mark.parametrize("few", [0, 10, 1_000])
async def test_pages_of_calls_are_what_the_filter_says(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    await ledger.append(*listings.records())
    listings.shrink(monkeypatch, few)
    listings.check_pages(ledger, 7)


async def test_no_more_calls_are_held_at_once_than_one_window(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.append(*listings.records())
    listings.shrink(monkeypatch, 10)
    most = 0
    fitting = search._fitting

    def watched(connection: sa.Connection, asked: search.Asked, calls: list[search.Owned]) -> set[search.Owned]:
        nonlocal most
        most = max(most, len(calls))
        return fitting(connection, asked, calls)

    monkeypatch.setattr(search, "_fitting", watched)
    assert ledger.calls(listings.SCOPES[0], wanted=CallFilter(model="old"))
    assert most == search.FURTHER


@pytest.mark.parametrize(
    ("table", "asked"),
    [
        ("calls", search.of_calls(CallFilter(since=5.0, until=9.0, endpoint="chat"), "sqlite")),
        ("decisions", search.of_decisions(DecisionFilter(since=5.0, until=9.0))),
        ("decisions", search.of_decisions(DecisionFilter(point="p", action="a", policy="b", live=False, since=5.0))),
        ("feedback", search.of_feedback(FeedbackFilter(kind="rating", source="qa", metric="m", since=5.0), "sqlite")),
    ],
)
def test_what_does_not_fit_is_passed_over_without_a_look_at_its_row(
    db: Database, table: str, asked: search.Asked
) -> None:
    there = metadata.tables[table]
    owner = there.c.tenant == "acme", there.c.workspace == "default"
    query = sa.select(there.c.seq).where(*owner, *asked).order_by(there.c.seq.desc()).limit(50)
    with db.read() as connection:
        text = str(query.compile(db.engine, compile_kwargs={"literal_binds": True}))
        plan = " ".join(row.detail for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")))
    assert "COVERING INDEX" in plan
    assert "TEMP B-TREE" not in plan, "the index gives the order"


def test_names_with_marks_in_them_are_found(db: Database) -> None:
    names = ["plain", "quote'\"", "line\nend", "\N{SNOWMAN}", "[1]", "{}", ""]
    with db.read() as connection:
        for name in (*names, "other"):
            one = sa.select(sa.literal(name).label("name")).subquery()
            found = connection.scalars(sa.select(one.c.name).where(search._among(connection, one.c.name, names))).all()
            assert found == ([name] if name in names else [])


def test_nothing_is_found_for_who_owns_nothing(ledger: SqlLedger) -> None:
    assert ledger.calls(Scope("nobody"), wanted=CallFilter(error="any")) == ()
