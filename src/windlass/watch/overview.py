"""The overview: calls, cost, latency and errors by hour and model, a fold over the ledger."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from windlass.ledger.ledger import ALL, Entry, Ledger
from windlass.records import Call, Decision, Feedback, Outcome, RunEvent, Scope
from windlass.watch.sketch import Sketch

HOUR_S = 3600
READ = 2000


@dataclass
class Hour:
    """What one hour of one scope saw of one model."""

    calls: int = 0
    errors: int = 0
    cost_nusd: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency: Sketch = field(default_factory=Sketch)


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
    """The fold and what can be asked of it. `cursor` is the last sequence number it has seen."""

    def __init__(self) -> None:
        self.cursor = 0
        self._lock = threading.RLock()
        self._hours: dict[Scope, dict[tuple[int, str], Hour]] = defaultdict(dict)
        self._decisions: dict[Scope, int] = defaultdict(int)
        self._feedback: dict[Scope, int] = defaultdict(int)

    def fold(self, entry: Entry) -> None:
        """Take in one entry; entries come in ledger order, and one that came already changes nothing."""
        with self._lock:
            if entry.seq <= self.cursor:
                return
            self.cursor = entry.seq
            match entry.record:
                case Outcome() as outcome:
                    self._count(outcome)
                case Decision() as decision:
                    self._decisions[decision.scope] += 1
                case Feedback() as feedback:
                    self._feedback[feedback.scope] += 1
                case Call() | RunEvent():
                    pass
                case _ as other:
                    assert_never(other)

    def catch_up(self, ledger: Ledger) -> int:
        """Fold all that was committed since; returns how many entries."""
        seen = 0
        while entries := ledger.read(ALL, after=self.cursor, limit=READ):
            for entry in entries:
                self.fold(entry)
            seen += len(entries)
        return seen

    def totals(self, scope: Scope, since: float = 0.0) -> Totals:
        """All models together, from the hour that holds `since` (UTC seconds)."""
        with self._lock:
            return _sum(hour for _, _, hour in self._since(scope, since))

    def by_model(self, scope: Scope, since: float = 0.0) -> dict[str, Totals]:
        """Each model by itself, busiest first."""
        split: dict[str, list[Hour]] = defaultdict(list)
        with self._lock:
            for _, model, hour in self._since(scope, since):
                split[model].append(hour)
            found = {model: _sum(hours) for model, hours in split.items()}
        return dict(sorted(found.items(), key=lambda pair: (-pair[1].calls, pair[0])))

    def by_hour(self, scope: Scope, since: float = 0.0) -> list[tuple[int, Totals]]:
        """(start of the hour in UTC seconds, its totals), oldest first; hours without calls are left out."""
        split: dict[int, list[Hour]] = defaultdict(list)
        with self._lock:
            for at, _, hour in self._since(scope, since):
                split[at].append(hour)
            return [(at, _sum(hours)) for at, hours in sorted(split.items())]

    def _since(self, scope: Scope, since: float) -> Iterator[tuple[int, str, Hour]]:
        """(start, model, hour) of a scope's hours; the lock is the caller's."""
        return ((at, model, hour) for (at, model), hour in self._hours.get(scope, {}).items() if at >= _hour(since))

    def counted(self, scope: Scope) -> tuple[int, int]:
        """(decisions, feedback) so far."""
        return self._decisions.get(scope, 0), self._feedback.get(scope, 0)

    def _count(self, outcome: Outcome) -> None:
        hour = self._hours[outcome.scope].setdefault((_hour(outcome.at), outcome.model), Hour())
        hour.calls += 1
        hour.errors += outcome.error != ""
        hour.cost_nusd += outcome.cost_nusd
        hour.prompt_tokens += outcome.prompt_tokens
        hour.completion_tokens += outcome.completion_tokens
        hour.latency.add(outcome.latency_ms)


def _hour(at: float) -> int:
    return int(at // HOUR_S) * HOUR_S


def _sum(hours: Iterable[Hour]) -> Totals:
    total, latency = Hour(), Sketch()
    for hour in hours:
        total.calls += hour.calls
        total.errors += hour.errors
        total.cost_nusd += hour.cost_nusd
        total.prompt_tokens += hour.prompt_tokens
        total.completion_tokens += hour.completion_tokens
        latency.merge(hour.latency)
    return Totals(
        calls=total.calls,
        errors=total.errors,
        cost_nusd=total.cost_nusd,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        p50_ms=latency.quantile(0.5),
        p95_ms=latency.quantile(0.95),
        p99_ms=latency.quantile(0.99),
    )
