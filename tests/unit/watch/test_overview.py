"""Calls, cost, latency and errors by hour and model, as the pages read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import tables

from windlass.ledger.db import Database
from windlass.ledger.ledger import Entry
from windlass.records import Outcome, Scope
from windlass.watch.overview import Overview
from windlass.watch.store import HOUR_S, Rollups

A, B = Scope("a", "default"), Scope("b", "default")
HOUR = 500_000 * HOUR_S


def _outcome(number: int, at: float, scope: Scope = A, **fields: Any) -> Outcome:
    values: dict[str, Any] = {
        "model": "m", "provider": "p", "status": 200, "latency_ms": 10.0, "first_byte_ms": 1.0, "prompt_tokens": 3,
        "completion_tokens": 4, "cost_nusd": 7,
    }  # fmt: skip
    return Outcome(
        id=f"outcome_{number}", call=f"call_{number}", at=at, tenant=scope.tenant, workspace=scope.workspace,
        **(values | fields),
    )  # fmt: skip


@pytest.fixture
def rollups(tmp_path: Path) -> Iterator[Rollups]:
    (tmp_path / "ledger.db").write_bytes(tables())
    db = Database(tmp_path / "ledger.db")
    yield Rollups(db)
    db.close()


def _folded(rollups: Rollups, *outcomes: Outcome) -> Overview:
    rollups.fold(*(Entry(place, record) for place, record in enumerate(outcomes, start=1)))
    rollups.flush()
    return Overview(rollups)


def test_an_empty_overview_knows_that_it_is_empty(rollups: Rollups) -> None:
    totals = Overview(rollups).totals(A)
    assert (totals.calls, totals.cost_nusd, totals.p50_ms, totals.p99_ms) == (0, 0, None, None)
    assert Overview(rollups).by_model(A) == {}
    assert Overview(rollups).by_hour(A) == []
    assert Overview(rollups).counted(A) == (0, 0)


def test_outcomes_add_up(rollups: Rollups) -> None:
    overview = _folded(
        rollups,
        _outcome(1, HOUR, latency_ms=10.0),
        _outcome(2, HOUR + 1, latency_ms=20.0, error="stream_cut"),
        _outcome(3, HOUR + HOUR_S, latency_ms=30.0, model="n", cost_nusd=100),
    )
    totals = overview.totals(A)
    assert (totals.calls, totals.errors, totals.cost_nusd) == (3, 1, 114)
    assert (totals.prompt_tokens, totals.completion_tokens) == (9, 12)
    assert totals.p50_ms == pytest.approx(20.0, rel=0.01)
    assert [(at, one.calls) for at, one in overview.by_hour(A)] == [(HOUR, 2), (HOUR + HOUR_S, 1)]
    assert {model: one.calls for model, one in overview.by_model(A).items()} == {"m": 2, "n": 1}


def test_the_busiest_model_comes_first_then_by_name(rollups: Rollups) -> None:
    overview = _folded(rollups, *(_outcome(n, HOUR, model=model) for n, model in enumerate(["b", "c", "c", "a"])))
    assert list(overview.by_model(A)) == ["c", "a", "b"]


@pytest.mark.parametrize(("since", "calls"), [(HOUR, 2), (HOUR + 3599.9, 2), (HOUR + HOUR_S, 1), (HOUR * 2, 0), (0, 2)])
def test_a_range_begins_with_the_hour_that_holds_it(rollups: Rollups, since: float, calls: int) -> None:
    overview = _folded(rollups, _outcome(1, HOUR + 5), _outcome(2, HOUR + HOUR_S + 5))
    assert overview.totals(A, since).calls == calls
    assert sum(one.calls for one in overview.by_model(A, since).values()) == calls
    assert sum(one.calls for _, one in overview.by_hour(A, since)) == calls


def test_scopes_do_not_mix(rollups: Rollups) -> None:
    overview = _folded(rollups, _outcome(1, HOUR), _outcome(2, HOUR, B, cost_nusd=1_000))
    assert (overview.totals(A).cost_nusd, overview.totals(B).cost_nusd) == (7, 1_000)
    assert overview.totals(Scope("a", "other")).calls == 0
