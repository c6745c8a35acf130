"""Pages of calls on PostgreSQL give what their filters say, whichever way they go."""

from __future__ import annotations

import pytest

from tests.unit.ledger import listings
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger

pytestmark = pytest.mark.scenario


@pytest.mark.parametrize("few", [0, 10, 1_000])
async def test_pages_of_calls_are_what_the_filter_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    db = Database(database_url)
    db.migrate()
    ledger = SqlLedger(db)
    try:
        await ledger.append(*listings.records())
        listings.shrink(monkeypatch, few)
        listings.check_pages(ledger, 7)
    finally:
        ledger.close()
        db.close()
