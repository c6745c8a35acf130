"""Pages hold what the records hold, to the last bit, whatever is known from the page before."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from windlass.errors import RecordInvalid
from windlass.ledger.check import call, decision, outcome
from windlass.ledger.db import Database
from windlass.ledger.folded import FoldedDecision, FoldedOutcome
from windlass.ledger.folding import narrowed
from windlass.ledger.ledger import ALL, Entry
from windlass.ledger.sql import SqlLedger
from windlass.records import LedgerRecord, Scope

REPLACE = msgspec.structs.replace
# A form that a text of another could be taken for, or a number of one that is known.
NAMES = ("0", "1", "-1", "[", '["0"]', "", "null", "ü\U0001f600", "a'b\"c\\", "\x01\x7f", "long " * 50)
ODD = (0.0, -1.0, 1e-9, 5e-324, 9e299, -9e299, 0.1, math.nextafter(2.0**-10, 0.0), 2.0**24, 2.0**35)


def _told(count: int, seed: int, names: Sequence[str], odd: Sequence[float] = ()) -> list[LedgerRecord]:
    """Decisions, live and in shadow, and outcomes, with numbers of 53 bits and a few that are `odd`."""
    dice = random.Random(seed)

    def number(least: float, most: float) -> float:
        return dice.choice(odd) if odd and dice.random() < 0.1 else dice.uniform(least, most)

    found: list[LedgerRecord] = []
    for place in range(count):
        name, what, scope = f"call_{seed}_{place}", dice.choice(names), Scope(dice.choice(names) or "t", "w")
        live = dice.random() < 0.8
        made = decision(f"decision_{seed}_{place}-model", name, scope)
        made = REPLACE(made, at=number(1.7e9, 1.9e9), propensity=number(0.01, 1.0), action=what, actions=(what, "x"))
        found.append(REPLACE(made, live=live, extra={} if live else {"shadow": what}, context={"one": 0.1 * place}))
        ended = REPLACE(outcome(name, scope), model=what, at=number(1.7e9, 1.9e9), latency_ms=number(0.2, 5e5))
        found.append(REPLACE(ended, first_byte_ms=number(0.2, 5e5), cost_nusd=dice.getrandbits(62)))
    return found


def _equal(ledger: SqlLedger, told: Sequence[LedgerRecord], limit: int) -> None:
    """Read page after page, the rows are those of the records."""
    found: list[Any] = []
    while page := ledger.folded(ALL, after=found[-1].seq if found else 0, limit=limit, contexts=None):
        found += page
    wanted = narrowed([Entry(place, record) for place, record in enumerate(told, start=1)])
    assert [type(row) for row in found] == [type(row) for row in wanted]
    assert found == list(wanted)


@pytest.mark.parametrize("limit", [7, 700, 10_000])
@pytest.mark.parametrize(
    ("names", "odd"), [(("a", "b"), ()), (NAMES, ()), (("a", "b"), ODD), (NAMES, ODD), (tuple(map(str, range(99))), ())]
)
def test_pages_are_what_records_are_narrowed_to(
    db: Database, names: tuple[str, ...], odd: tuple[float, ...], limit: int
) -> None:
    ledger = SqlLedger(db)
    told = _told(1_500, 3, names, odd)
    for first in range(0, len(told), 500):
        ledger.append_now(*told[first : first + 500])
    _equal(ledger, told, limit)
    _equal(ledger, told, limit)
    ledger.close()


def test_what_was_frequent_before_need_not_be_now(db: Database) -> None:
    """Every page has forms of its own, so that none of those known from the one before it fits."""
    ledger = SqlLedger(db)
    told = [record for page in range(4) for record in _told(350, page, (f"model {page}", f"other {page}"))]
    ledger.append_now(*told)
    _equal(ledger, told, 700)
    ledger.close()


def test_rows_share_the_form_that_was_known_before_the_page(db: Database) -> None:
    ledger = SqlLedger(db)
    ledger.append_now(*_told(1_500, 1, ("a", "b")))
    pages = [ledger.folded(ALL, after=after, limit=1_000) for after in (0, 1_000, 2_000)]
    for kind in (FoldedDecision, FoldedOutcome):
        forms = [{id(row.form) for row in page if type(row) is kind} for page in pages]
        assert forms[0] == forms[1] == forms[2]
    ledger.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE decisions SET policy = x'ff' WHERE seq = 1501", "UPDATE decisions SET at = 'x' WHERE seq = 1501",
        "UPDATE decisions SET live = 'x' WHERE seq = 1501", "UPDATE decisions SET extra = '[]' WHERE NOT live",
        "UPDATE outcomes SET status = 'x' WHERE seq = 1502", "UPDATE outcomes SET latency_ms = x'00' WHERE seq = 1502",
        "UPDATE outcomes SET cost_nusd = 1.5 WHERE seq = 1502", "UPDATE outcomes SET model = x'00' WHERE seq = 1502",
    ],
)  # fmt: skip
def test_a_row_that_is_damaged_is_named_among_known_ones(db: Database, change: str) -> None:
    ledger = SqlLedger(db)
    ledger.append_now(*_told(1_000, 2, ("a", "b")))
    ledger.folded(ALL, after=0, limit=1_000)
    with db.write() as connection:
        connection.exec_driver_sql(change)
    with pytest.raises(RecordInvalid, match=r"row \d+ is no "):
        ledger.folded(ALL, after=1_000, limit=1_000)
    ledger.close()


def test_an_empty_page_is_empty(db: Database) -> None:
    ledger = SqlLedger(db)
    assert list(ledger.folded(ALL, after=0, limit=10)) == []
    ledger.append_now(call("call_1"))
    assert [row.seq for row in ledger.folded(ALL, after=0, limit=10)] == [1]
    ledger.close()
