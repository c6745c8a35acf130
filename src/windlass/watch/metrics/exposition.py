"""Sums and figures as families of Prometheus. Imported by the first scrape only: prometheus-client takes 0.1 s.

Families without `worker` hold for the whole deployment, whichever worker was asked; those that are called
`windlass_worker_...` stand for one worker each. No label names a tenant, a user or a key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from windlass.ledger.commit import COMMIT_BOUNDS_S
from windlass.watch.metrics.figures import OVERHEAD_BOUNDS_S, WorkerFigures
from windlass.watch.metrics.sums import BOUNDS_S, LedgerSums, OutcomeKey, OutcomeSum

MICRO: Final = 1_000_000
NUSD: Final = 10**9


class BudgetFigure(msgspec.Struct, frozen=True):
    """A budget of the settings. nusd: its size; most_nusd: spent by the group that spent most; ends: UTC seconds."""

    limit: str
    window: str
    nusd: int
    most_nusd: int
    groups: int
    ends: float | None


class Scraped(msgspec.Struct, frozen=True, kw_only=True):
    """Everything beside the sums. lags: how far each worker's learner is behind, seconds; write_s: None where the
    ledger took no write; failing: the checks of readiness that fail; disk_free_bytes: None where there is no disk."""

    workers: Sequence[WorkerFigures]
    budgets: Sequence[BudgetFigure]
    lags: dict[str, float]
    write_s: float | None
    failing: dict[str, str]
    checks: Sequence[str]
    disk_free_bytes: int | None
    version: str
    database: str


class Exposition:
    """A collector over what one scrape found. sums: None while the ledger is still being counted."""

    def __init__(self, scraped: Scraped, sums: LedgerSums | None):
        self._scraped = scraped
        self._sums = sums

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order in which they are printed."""
        yield from _deployment(self._scraped, complete=self._sums is not None)
        if self._sums is not None:
            yield from _calls(self._sums)
            yield from _times(self._sums)
            yield from _learned(self._sums)
        yield from _budgets(self._scraped.budgets)
        yield from _workers(self._scraped)


def rendered(exposition: Exposition, accept: str) -> tuple[str, bytes]:
    """(content type, text) in the format that a scraper accepts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exposition)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def _deployment(scraped: Scraped, *, complete: bool) -> Iterator[Metric]:
    build = GaugeMetricFamily("windlass_build_info", "Always 1.", labels=["version", "database"])
    build.add_metric([scraped.version, scraped.database], 1)
    yield build
    yield GaugeMetricFamily(
        "windlass_ready", "Whether /readyz of the worker that was asked says so.", value=not scraped.failing
    )
    failing = GaugeMetricFamily(
        "windlass_not_ready", "1 where a check of /readyz fails on the worker that was asked.", labels=["check"]
    )
    for check in scraped.checks:
        failing.add_metric([check], check in scraped.failing)
    yield failing
    yield GaugeMetricFamily(
        "windlass_totals_complete", "0 while the first scrapes still count the ledger, without its families.", complete
    )
    yield GaugeMetricFamily("windlass_workers", "Workers that were heard of lately.", len(scraped.workers))
    if scraped.write_s is not None:
        yield GaugeMetricFamily(
            "windlass_ledger_write_seconds", "How long a write that changes nothing took just now.", scraped.write_s
        )
    if scraped.disk_free_bytes is not None:
        yield GaugeMetricFamily(
            "windlass_disk_free_bytes", "Free on the disk of the state folder.", scraped.disk_free_bytes
        )


def _calls(sums: LedgerSums) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "windlass_calls",
        "Calls that are over; error is a cause of docs/reference/errors.md.",
        labels=OutcomeKey._fields,
    )
    for key, one in sums.outcomes.items():
        calls.add_metric([str(part) for part in key], one.calls)
    yield calls
    tokens = CounterMetricFamily("windlass_tokens", "Tokens of calls.", labels=["provider", "model", "kind"])
    cost = CounterMetricFamily("windlass_cost_nusd", "Cost in nano-dollars.", labels=["provider", "model"])
    estimated = CounterMetricFamily(
        "windlass_calls_estimated", "Calls whose tokens no provider counted.", labels=["provider", "model"]
    )
    for labels, one in _by_model(sums).items():
        tokens.add_metric([*labels, "prompt"], one.prompt_tokens)
        tokens.add_metric([*labels, "completion"], one.completion_tokens)
        cost.add_metric(labels, one.cost_nusd)
        estimated.add_metric(labels, one.estimated)
    yield from (tokens, cost, estimated)


def _times(sums: LedgerSums) -> Iterator[Metric]:
    took = HistogramMetricFamily(
        "windlass_call_duration_seconds", "From a call's arrival to its last byte.", labels=["provider", "model"]
    )
    for labels, one in _by_model(sums).items():
        took.add_metric(labels, _buckets(BOUNDS_S, one.latency, one.calls), one.latency_us / MICRO)
    yield took
    first = HistogramMetricFamily(
        "windlass_call_first_byte_seconds",
        "From a call's arrival to the first byte of its answer, where there was one.",
        labels=["provider", "model"],
    )
    for labels, one in _by_model(sums, lambda key: not key.error).items():
        first.add_metric(labels, _buckets(BOUNDS_S, one.first_byte, one.calls), one.first_byte_us / MICRO)
    yield first


def _learned(sums: LedgerSums) -> Iterator[Metric]:
    decisions = CounterMetricFamily(
        "windlass_decisions", "What was decided at each point.", labels=["point", "policy", "mode", "action"]
    )
    for (point, policy, live, action), chosen in sums.decisions.items():
        decisions.add_metric([point, policy, "live" if live else "shadow", action], chosen)
    yield decisions
    said = CounterMetricFamily("windlass_feedback", "What was said of calls.", labels=["kind", "source"])
    for labels, given in sums.feedback.items():
        said.add_metric(labels, given)
    yield said


def _budgets(budgets: Sequence[BudgetFigure]) -> Iterator[Metric]:
    names = ["limit", "window"]
    size = GaugeMetricFamily("windlass_budget_usd", "What a budget of the settings allows.", labels=names)
    left = GaugeMetricFamily(
        "windlass_budget_remaining_usd", "What the group that spent most has left in this window.", labels=names
    )
    groups = GaugeMetricFamily("windlass_budget_groups", "Groups that spent anything in this window.", labels=names)
    ends = GaugeMetricFamily("windlass_budget_window_end_timestamp_seconds", "When this window ends.", labels=names)
    for one in budgets:
        labels = [one.limit, one.window]
        size.add_metric(labels, one.nusd / NUSD)
        left.add_metric(labels, (one.nusd - one.most_nusd) / NUSD)
        groups.add_metric(labels, one.groups)
        if one.ends is not None:
            ends.add_metric(labels, one.ends)
    yield from (size, left, groups, ends)


def _workers(scraped: Scraped) -> Iterator[Metric]:
    workers = scraped.workers
    yield _gauge(workers, "in_flight_calls", "Calls under way.", lambda one: one.in_flight)
    streams = _family("open_streams", "Event streams that are open, of calls and of pages.", "kind")
    responses = CounterMetricFamily(
        "windlass_worker_http_responses", "Responses by status, of every path.", labels=["worker", "status"]
    )
    refused = CounterMetricFamily(
        "windlass_worker_limit_refusals", "Calls that a limit refused.", labels=["worker", "limit"]
    )
    breakers = _family("breaker_state", "0 closed, 1 half open, 2 open.", "provider", "model")
    limits = _family("limit_used_ratio", "Of a limit, used and held by the group with least left.", "limit", "measure")
    for one in workers:
        for kind, count in one.streams.items():
            streams.add_metric([one.worker, kind], count)
        for status, count in sorted(one.responses.items()):
            responses.add_metric([one.worker, str(status)], count)
        for limit, count in sorted(one.refused.items()):
            refused.add_metric([one.worker, limit], count)
        for breaker in one.breakers:
            breakers.add_metric([one.worker, breaker.provider, breaker.model], breaker.state)
        for used in one.limits:
            limits.add_metric([one.worker, used.limit, used.measure], used.share)
    yield from (streams, responses, refused, breakers, limits)
    yield _overhead(workers)
    yield _gauge(workers, "ledger_waiting_appends", "Appends that wait for a commit.", lambda one: one.pace.waiting)
    yield _commits(workers)
    lag = _family("learner_lag_seconds", "The age of the first record that the learner has not seen.")
    for worker, lag_s in sorted(scraped.lags.items()):
        lag.add_metric([worker], lag_s)
    yield lag
    yield from _processes(workers)


def _overhead(workers: Sequence[WorkerFigures]) -> Metric:
    family = HistogramMetricFamily(
        "windlass_worker_call_overhead_seconds",
        "Of a call's time what no provider took; of calls that are not streamed.",
        labels=["worker"],
    )
    for one in workers:
        family.add_metric(
            [one.worker], _buckets(OVERHEAD_BOUNDS_S, one.overhead, one.overhead_calls), sum_value=one.overhead_s
        )
    return family


def _commits(workers: Sequence[WorkerFigures]) -> Metric:
    family = HistogramMetricFamily("windlass_worker_ledger_commit_seconds", "Commits of batches.", labels=["worker"])
    for one in workers:
        buckets = _buckets(COMMIT_BOUNDS_S, one.pace.at_most, one.pace.commits)
        family.add_metric([one.worker], buckets, sum_value=one.pace.took_s)
    return family


def _processes(workers: Sequence[WorkerFigures]) -> Iterator[Metric]:
    yield _gauge(workers, "resident_memory_bytes", "Resident memory.", lambda one: one.process.resident_bytes)
    cpu = CounterMetricFamily("windlass_worker_cpu_seconds", "Processor time, user and system.", labels=["worker"])
    for one in workers:
        cpu.add_metric([one.worker], one.process.cpu_s)
    yield cpu
    yield _gauge(workers, "open_fds", "Open file descriptors.", lambda one: one.process.open_fds)
    yield _gauge(workers, "max_fds", "File descriptors at most; 0: no limit.", lambda one: one.process.most_fds)
    yield _gauge(workers, "start_time_seconds", "When the worker began, in UTC seconds.", lambda one: one.started)
    yield _gauge(workers, "heard_timestamp_seconds", "When it told these figures.", lambda one: one.at)


def _gauge(
    workers: Sequence[WorkerFigures], name: str, about: str, value: Callable[[WorkerFigures], float]
) -> GaugeMetricFamily:
    family = _family(name, about)
    for one in workers:
        family.add_metric([one.worker], value(one))
    return family


def _family(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"windlass_worker_{name}", about, labels=["worker", *labels])


def _by_model(
    sums: LedgerSums, wanted: Callable[[OutcomeKey], bool] = lambda _: True
) -> dict[tuple[str, str], OutcomeSum]:
    """The sums of each provider and model."""
    found: dict[tuple[str, str], OutcomeSum] = defaultdict(OutcomeSum)
    for key, one in sums.outcomes.items():
        if wanted(key):
            found[key.provider, key.model].add(one)
    return found


def _buckets(bounds_s: Sequence[float], counts: Sequence[int], count: int) -> list[tuple[str, float]]:
    """Prometheus' buckets of counts that are cumulative already."""
    return [*((str(bound), float(at_most)) for bound, at_most in zip(bounds_s, counts, strict=True)), ("+Inf", count)]
