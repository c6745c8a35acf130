"""What Prometheus reads: its own parser finds the numbers, under names and labels that keep to its rules."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from windlass.ledger.commit import COMMIT_BOUNDS_S, Pace
from windlass.watch.metrics.exposition import BudgetFigure, Exposition, Scraped, rendered
from windlass.watch.metrics.figures import (
    OVERHEAD_BOUNDS_S,
    BreakerFigure,
    LimitFigure,
    Process,
    WorkerFigures,
    process,
)
from windlass.watch.metrics.sums import BOUNDS_S, DecisionKey, LedgerSums, OutcomeKey, OutcomeSum, Slice

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def worker(name: str = "main", **fields: Any) -> WorkerFigures:
    values: dict[str, Any] = {
        "worker": name, "at": 1_800_000_100.0, "started": 1_800_000_000.0, "in_flight": 3,
        "streams": {"calls": 2, "pages": 1}, "responses": {200: 9, 429: 2}, "refused": {"daily": 2},
        "overhead": tuple(range(len(OVERHEAD_BOUNDS_S))), "overhead_calls": 12, "overhead_s": 0.5,
        "breakers": (BreakerFigure("p", "m", 2),), "limits": (LimitFigure("rate", "requests", 0.25),),
        "pace": Pace(4, tuple(range(len(COMMIT_BOUNDS_S))), 14, 0.7), "process": Process(90_000_000, 1.5, 12, 1024),
    }  # fmt: skip
    return WorkerFigures(**(values | fields))


def scraped(*workers: WorkerFigures, **fields: Any) -> Scraped:
    values: dict[str, Any] = {
        "workers": workers or (worker(),), "budgets": (), "lags": {"main": 0.5}, "write_s": 0.002, "failing": {},
        "checks": ("database", "ledger"), "disk_free_bytes": 10**9, "version": "1.2.3", "database": "sqlite",
    }  # fmt: skip
    return Scraped(**(values | fields))


def sums() -> LedgerSums:
    folded = LedgerSums()
    ok = OutcomeSum(5, 30, 40, 2**53 - 8, 1, 4_000_000, 500_000, [*([0] * 6), *([4] * 9)], [5] * 15)
    cut = OutcomeSum(2, 3, 0, 7, 0, 1_000_000, 900_000, [2] * 15, [2] * 15)
    keys = OutcomeKey("p", "m", "chat", 200, ""), OutcomeKey("p", "m", "chat", 502, "stream_cut")
    decided = [(DecisionKey("model", "ucb@1", True, "m"), 6), (DecisionKey("model", "ucb@1", False, "n"), 1)]
    folded.fold(Slice(9, list(zip(keys, (ok, cut), strict=True)), decided, [(("rating", "user"), 3)]))
    return folded


def samples(found: Scraped, counted: LedgerSums | None) -> dict[str, float]:
    """The value of each series by its name and labels, as the text has them."""
    _, text = rendered(Exposition(found, counted), "")
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for family in families(text.decode())
        for sample in family.samples
    }


def test_sums_are_told_exactly() -> None:
    found = samples(scraped(), sums())
    assert found["windlass_calls_total{endpoint=chat,error=,model=m,provider=p,status=200}"] == 5
    assert found["windlass_calls_total{endpoint=chat,error=stream_cut,model=m,provider=p,status=502}"] == 2
    assert found["windlass_cost_nusd_total{model=m,provider=p}"] == 2**53 - 1, "exact up to 9 million dollars"
    assert found["windlass_tokens_total{kind=prompt,model=m,provider=p}"] == 33
    assert found["windlass_tokens_total{kind=completion,model=m,provider=p}"] == 40
    assert found["windlass_calls_estimated_total{model=m,provider=p}"] == 1
    assert found["windlass_decisions_total{action=n,mode=shadow,point=model,policy=ucb@1}"] == 1
    assert found["windlass_feedback_total{kind=rating,source=user}"] == 3


def test_histograms_are_cumulative_and_hold_only_what_they_are_about() -> None:
    found = samples(scraped(), sums())
    took = [found[f"windlass_call_duration_seconds_bucket{{le={bound},model=m,provider=p}}"] for bound in BOUNDS_S]
    assert took == [2] * 6 + [6] * 9
    assert found["windlass_call_duration_seconds_bucket{le=+Inf,model=m,provider=p}"] == 7
    assert found["windlass_call_duration_seconds_count{model=m,provider=p}"] == 7
    assert found["windlass_call_duration_seconds_sum{model=m,provider=p}"] == 5.0
    first = found["windlass_call_first_byte_seconds_count{model=m,provider=p}"]
    assert first == 5, "a call that failed has no first byte"


def test_without_sums_nothing_is_told_of_the_ledger() -> None:
    """A counter that showed a part of it would be taken for a burst of calls once all of it is there."""
    found = samples(scraped(), None)
    assert found["windlass_totals_complete{}"] == 0
    assert samples(scraped(), sums())["windlass_totals_complete{}"] == 1
    assert not any(name.startswith(("windlass_calls", "windlass_cost", "windlass_decisions")) for name in found)
    assert found["windlass_worker_in_flight_calls{worker=main}"] == 3


def test_each_worker_has_its_own_series() -> None:
    found = samples(
        scraped(worker("one"), worker("two", in_flight=0, breakers=()), lags={"one": 0.0, "two": 7.5}), None
    )
    assert found["windlass_workers{}"] == 2
    assert found["windlass_worker_in_flight_calls{worker=one}"] == 3
    assert found["windlass_worker_in_flight_calls{worker=two}"] == 0
    assert found["windlass_worker_learner_lag_seconds{worker=two}"] == 7.5
    assert found["windlass_worker_breaker_state{model=m,provider=p,worker=one}"] == 2
    assert "windlass_worker_breaker_state{model=m,provider=p,worker=two}" not in found
    assert found["windlass_worker_http_responses_total{status=429,worker=one}"] == 2
    assert found["windlass_worker_limit_refusals_total{limit=daily,worker=two}"] == 2
    assert found["windlass_worker_limit_used_ratio{limit=rate,measure=requests,worker=one}"] == 0.25
    assert found["windlass_worker_call_overhead_seconds_bucket{le=+Inf,worker=one}"] == 12
    assert found["windlass_worker_open_streams{kind=calls,worker=one}"] == 2
    assert found["windlass_worker_ledger_waiting_appends{worker=one}"] == 4
    assert found["windlass_worker_ledger_commit_seconds_bucket{le=+Inf,worker=two}"] == 14
    assert found["windlass_worker_resident_memory_bytes{worker=one}"] == 90_000_000


def test_budgets_and_readiness() -> None:
    day = BudgetFigure("daily", "day", 2 * 10**9, 2_500_000_000, 3, 1_800_003_600.0)
    ever = BudgetFigure("ever", "total", 10**9, 0, 0, None)
    found = samples(scraped(budgets=(day, ever), failing={"ledger": "disk_full"}, write_s=None), None)
    assert found["windlass_budget_remaining_usd{limit=daily,window=day}"] == -0.5
    assert found["windlass_budget_remaining_usd{limit=ever,window=total}"] == 1.0
    assert found["windlass_budget_window_end_timestamp_seconds{limit=daily,window=day}"] == 1_800_003_600
    assert "windlass_budget_window_end_timestamp_seconds{limit=ever,window=total}" not in found
    assert (found["windlass_ready{}"], found["windlass_not_ready{check=ledger}"]) == (0, 1)
    assert found["windlass_not_ready{check=database}"] == 0
    assert "windlass_ledger_write_seconds{}" not in found


@pytest.mark.parametrize(
    "name", ['quote"', "back\\slash", "new\nline", "ä {le='1'} 9\n# TYPE x gauge", "\U0001f6a2", ""]
)
def test_names_of_clients_and_upstreams_cannot_break_out_of_their_label(name: str) -> None:
    folded = LedgerSums()
    folded.fold(Slice(1, [(OutcomeKey("p", name, "chat", 200, ""), OutcomeSum(calls=1))], [], []))
    _, text = rendered(Exposition(scraped(), folded), "")
    calls = next(family for family in families(text.decode()) if family.name == "windlass_calls")
    assert [sample.labels["model"] for sample in calls.samples] == [name]


def test_names_keep_to_the_rules_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/: base units, counters end in _total, a help text for each."""
    _, text = rendered(Exposition(scraped(), sums()), "")
    for family in families(text.decode()):
        assert re.fullmatch("windlass_[a-z0-9_]+", family.name)
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search("_(ms|milliseconds|kb|mb|percent|count)$", family.name), family.name
        for sample in family.samples:
            assert sample.labels.keys().isdisjoint({"tenant", "workspace", "user", "key", "team", "group", "call"})


def test_a_scraper_gets_the_format_that_it_accepts() -> None:
    kind, text = rendered(Exposition(scraped(), sums()), OPEN_METRICS)
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in open_families(text.decode())} >= {"windlass_calls", "windlass_ready"}
    assert rendered(Exposition(scraped(), None), "no/such, */*;q=x")[0].startswith("text/plain")


def test_the_figures_of_a_process_are_plausible() -> None:
    now = process()
    assert now.resident_bytes > 10**7
    assert now.cpu_s > 0
    assert 2 < now.open_fds <= now.most_fds
