"""The overview: calls, cost, latency and errors by hour and model, read from the rollups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from windlass.records import Scope
from windlass.watch.sketch import Sketch
from windlass.watch.store import OutcomeHour, Rollups


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """A summary over hours; latencies in ms, None before the first call."""

    calls: int
    errors: int
    cost_nusd: int
    prompt_tokens: int
    completion_tokens: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Overview:
    """What can be asked of the rollups; `since` is in UTC seconds and counts from the hour that holds it."""

    def __init__(self, rollups: Rollups):
        self._rollups = rollups

    @property
    def cursor(self) -> int:
        """The sequence number of the last record that the answers hold."""
        return self._rollups.cursor

    def totals(self, scope: Scope, since: float = 0.0) -> Totals:
        """All models together."""
        return summary(self._rollups.outcomes(scope, since))[0]

    def by_model(self, scope: Scope, since: float = 0.0) -> dict[str, Totals]:
        """Each model by itself, busiest first."""
        return summary(self._rollups.outcomes(scope, since))[1]

    def by_hour(self, scope: Scope, since: float = 0.0) -> list[tuple[int, Totals]]:
        """(start of the hour in UTC seconds, its totals), oldest first; hours without calls are left out."""
        return by_hour(self._rollups.outcomes(scope, since))

    def counted(self, scope: Scope) -> tuple[int, int]:
        """(decisions, feedback) so far."""
        decisions = sum(hour.chosen for hour in self._rollups.decisions(scope))
        return decisions, sum(hour.given for hour in self._rollups.feedback(scope))


def summary(hours: Iterable[OutcomeHour]) -> tuple[Totals, dict[str, Totals]]:
    """(all models together, each by itself with the busiest first); each sketch is merged once, which is what costs."""
    split: dict[str, _Sum] = defaultdict(_Sum)
    for hour in hours:
        split[hour.model].add(hour)
    whole = _Sum()
    for one in split.values():
        whole.add(one)
    models = sorted(split.items(), key=lambda pair: (-pair[1].calls, pair[0]))
    return whole.totals(), {model: one.totals() for model, one in models}


def by_hour(hours: Iterable[OutcomeHour]) -> list[tuple[int, Totals]]:
    """(start of the hour in UTC seconds, its totals), oldest first."""
    split: dict[int, _Sum] = defaultdict(_Sum)
    for hour in hours:
        split[hour.hour].add(hour)
    return [(at, one.totals()) for at, one in sorted(split.items())]


class _Sum:
    """What becomes `Totals`."""

    def __init__(self) -> None:
        self.calls = self.errors = self.cost_nusd = self.prompt_tokens = self.completion_tokens = 0
        self.latency = Sketch()

    def add(self, other: OutcomeHour | _Sum) -> None:
        self.calls += other.calls
        self.errors += other.errors
        self.cost_nusd += other.cost_nusd
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.latency.merge(other.latency)

    def totals(self) -> Totals:
        """The sums, and the quantiles of the latency."""
        return Totals(
            calls=self.calls,
            errors=self.errors,
            cost_nusd=self.cost_nusd,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            p50_ms=self.latency.quantile(0.5),
            p95_ms=self.latency.quantile(0.95),
            p99_ms=self.latency.quantile(0.99),
        )
