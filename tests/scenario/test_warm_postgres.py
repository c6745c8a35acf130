"""What several workers on PostgreSQL take of a warm start: each prompt once, and together no more than the budget."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from windlass.improve.warm.store import WantedAnswer, WarmTable
from windlass.ledger.db import Database
from windlass.records import Scope

pytestmark = pytest.mark.scenario
WORKERS, PROMPTS = 6, 40
HELD = {"a": 70, "b": 30}
BUDGET = 2_500


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("database_url"))
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def test_workers_that_look_at_the_same_calls_never_double_or_overspend(url: str) -> None:
    databases = [Database(url, connections=3) for _ in range(WORKERS)]
    databases[0].migrate()
    tables = [WarmTable(db) for db in databases]
    tables[0].begin(0)
    taken: list[tuple[str, str]] = []
    most: list[int] = []

    def work(table: WarmTable, order: random.Random) -> None:
        for number in order.sample(range(PROMPTS), PROMPTS):
            prompt = f"p{number}"
            models = table.claim(Scope(), prompt, f"call_{number}", HELD, BUDGET, 1.0)
            most.append(table.spent_nusd())
            for model in models or ():
                taken.append((prompt, model))
                if order.random() < 0.5:
                    table.settle(WantedAnswer(Scope(), prompt, model), HELD[model] // 2)
                elif order.random() < 0.2:
                    table.release(WantedAnswer(Scope(), prompt, model))
                    taken.remove((prompt, model))

    threads = [threading.Thread(target=work, args=(table, random.Random(n))) for n, table in enumerate(tables)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(set(taken)) == len(taken) > WORKERS
        assert max(most) <= BUDGET
        done = tables[0].progress(Scope())
        assert done.answers + done.open == len(taken)
        assert tables[0].spent_nusd() == done.cost_nusd + done.held_nusd
        assert set(tables[0].unsettled()) <= {WantedAnswer(Scope(), *pair, f"call_{pair[0][1:]}") for pair in taken}
        assert len(tables[0].unsettled()) == done.open
    finally:
        for db in databases:
            db.close()
