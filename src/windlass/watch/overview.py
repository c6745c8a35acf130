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
        return _sum(self._rollups.outcomes(scope, since))

    def by_model(self, scope: Scope, since: float = 0.0) -> dict[str, Totals]:
        """Each model by itself, busiest first."""
        split: dict[str, list[OutcomeHour]] = defaultdict(list)
        for hour in self._rollups.outcomes(scope, since):
            split[hour.model].append(hour)
        found = {model: _sum(hours) for model, hours in split.items()}
        return dict(sorted(found.items(), key=lambda pair: (-pair[1].calls, pair[0])))

    def by_hour(self, scope: Scope, since: float = 0.0) -> list[tuple[int, Totals]]:
        """(start of the hour in UTC seconds, its totals), oldest first; hours without calls are left out."""
        split: dict[int, list[OutcomeHour]] = defaultdict(list)
        for hour in self._rollups.outcomes(scope, since):
            split[hour.hour].append(hour)
        return [(at, _sum(hours)) for at, hours in sorted(split.items())]

    def counted(self, scope: Scope) -> tuple[int, int]:
        """(decisions, feedback) so far."""
        decisions = sum(hour.chosen for hour in self._rollups.decisions(scope))
        return decisions, sum(hour.given for hour in self._rollups.feedback(scope))


def _sum(hours: Iterable[OutcomeHour]) -> Totals:
    calls = errors = cost_nusd = prompt_tokens = completion_tokens = 0
    latency = Sketch()
    for hour in hours:
        calls += hour.calls
        errors += hour.errors
        cost_nusd += hour.cost_nusd
        prompt_tokens += hour.prompt_tokens
        completion_tokens += hour.completion_tokens
        latency.merge(hour.latency)
    return Totals(
        calls=calls,
        errors=errors,
        cost_nusd=cost_nusd,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        p50_ms=latency.quantile(0.5),
        p95_ms=latency.quantile(0.95),
        p99_ms=latency.quantile(0.99),
    )
