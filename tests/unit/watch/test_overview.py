"""Calls, cost, latency and errors by hour and model: the fold over the ledger, and what it does under threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.ledger import AnyScope, Entry
from windlass.ledger.memory import MemoryLedger
from windlass.records import Outcome, Scope
from windlass.watch.overview import HOUR_S, Overview

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


def _folded(*outcomes: Outcome) -> Overview:
    overview = Overview()
    for place, record in enumerate(outcomes, start=1):
        overview.fold(Entry(place, record))
    return overview


def test_an_empty_overview_knows_that_it_is_empty() -> None:
    totals = Overview().totals(A)
    assert (totals.calls, totals.cost_nusd, totals.p50_ms, totals.p99_ms) == (0, 0, None, None)
    assert Overview().by_model(A) == {}
    assert Overview().by_hour(A) == []
    assert Overview().counted(A) == (0, 0)


def test_outcomes_add_up() -> None:
    overview = _folded(
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


def test_the_busiest_model_comes_first_then_by_name() -> None:
    overview = _folded(*(_outcome(n, HOUR, model=model) for n, model in enumerate(["b", "c", "c", "a"])))
    assert list(overview.by_model(A)) == ["c", "a", "b"]


@pytest.mark.parametrize(("since", "calls"), [(HOUR, 2), (HOUR + 3599.9, 2), (HOUR + HOUR_S, 1), (HOUR * 2, 0), (0, 2)])
def test_a_range_begins_with_the_hour_that_holds_it(since: float, calls: int) -> None:
    overview = _folded(_outcome(1, HOUR + 5), _outcome(2, HOUR + HOUR_S + 5))
    assert overview.totals(A, since).calls == calls
    assert sum(one.calls for one in overview.by_model(A, since).values()) == calls
    assert sum(one.calls for _, one in overview.by_hour(A, since)) == calls


def test_scopes_do_not_mix() -> None:
    overview = _folded(_outcome(1, HOUR), _outcome(2, HOUR, B, cost_nusd=1_000))
    assert (overview.totals(A).cost_nusd, overview.totals(B).cost_nusd) == (7, 1_000)
    assert overview.totals(Scope("a", "other")).calls == 0


async def test_it_catches_up_with_a_ledger_and_stays() -> None:
    ledger, overview = MemoryLedger(), Overview()
    await ledger.append(call("call_1"), decision("decision_1", "call_1"), outcome("call_1"), rating("feedback_1", "x"))
    assert overview.catch_up(ledger) == 4
    assert overview.catch_up(ledger) == 0
    assert (overview.totals(A).calls, overview.counted(A), overview.counted(B)) == (1, (1, 1), (0, 0))
    assert overview.cursor == ledger.head()


def test_an_entry_that_came_already_changes_nothing() -> None:
    overview = _folded(_outcome(1, HOUR))
    overview.fold(Entry(1, _outcome(1, HOUR)))
    assert overview.totals(A).calls == 1


async def test_two_threads_that_catch_up_at_once_count_every_call_once() -> None:
    """The learner's thread and a page that wants to be up to date read the same entries."""
    both = threading.Barrier(2, timeout=1)

    class Meeting(MemoryLedger):
        def read(self, scope: AnyScope, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
            entries = super().read(scope, after=after, limit=limit)
            try:
                both.wait()
            except threading.BrokenBarrierError:
                pass  # the other thread waits elsewhere, which is what keeps the count right
            return entries

    ledger, overview = Meeting(), Overview()
    await ledger.append(*(_outcome(n, HOUR) for n in range(10)))
    threads = [threading.Thread(target=overview.catch_up, args=(ledger,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overview.totals(A).calls == 10


def test_reading_while_another_thread_folds_does_not_fail() -> None:
    """A page is drawn in one thread while the learner's thread folds new hours and models in."""
    overview, stop, failures = Overview(), threading.Event(), list[Exception]()

    def fold() -> None:
        for number in range(1_000):
            at, latency = HOUR + number * HOUR_S, 1.0 + number % 997
            overview.fold(Entry(number + 1, _outcome(number, at, model=f"m{number}", latency_ms=latency)))
            if failures:
                break
        stop.set()

    def read() -> None:
        while not stop.is_set():
            try:
                overview.totals(A)
                overview.by_model(A)
                overview.by_hour(A)
            except RuntimeError as exc:
                failures.append(exc)
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=fold), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
