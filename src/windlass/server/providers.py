"""How providers do: whether each model answers, how fast, what fails, since when, and what recovered.

Read from the hourly tables and the episodes that the fold over outcomes keeps (watch/outcomes), so that no look at it
scans the ledger. Breakers are those of the process that answers: each worker has its own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from windlass.errors import Audience
from windlass.gateway.access.admission import Caller
from windlass.gateway.resilience.breaker import BreakerState
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server.reading import ProvidersAsked, moment, read
from windlass.watch.outcomes.fold import whose
from windlass.watch.outcomes.store import Episode, ProviderHour
from windlass.watch.sketch import Sketch

Arguments = dict[str, Any]
Standing: TypeAlias = Literal["answers", "fails", "left_alone", "on_probation", "unused"]
DAY_S = 86_400.0
CATCH_UP = 20_000
"""Outcomes that a look folds at most, before it answers with what is there; the rest is folded behind it."""


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds; None before the first answer."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Upheld(msgspec.Struct, frozen=True, kw_only=True):
    """How one model of one provider stands: what it did in the range asked for, and its breaker where that holds
    something against it.

    answered: calls; failed: attempts, of which one call may make several; skipped: those that its breaker kept away.
    """

    provider: str
    model: str
    standing: Standing
    answered: int
    failed: int
    skipped: int
    latency: Quantiles
    first_byte: Quantiles
    breaker: BreakerState | None


class Pattern(Episode, frozen=True, kw_only=True):
    """An episode, who can mend its cause, and how many calls met it."""

    whose: str
    calls: int


async def providers(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Every model of every provider, what fails now, and what failed before, page by page."""
    asked = read(arguments, ProvidersAsked)
    now = runtime.clock()
    since = moment(asked.since, now)
    breakers = runtime.gateway.resilience.breakers.state()  # on the loop, which changes them

    def look() -> dict[str, Any]:
        runtime.watch.catch_up(CATCH_UP)
        hours = runtime.watch.outcomes.hours(caller.scope, now - DAY_S if since is None else since)
        failing = runtime.watch.outcomes.going_on(caller.scope)
        over = runtime.watch.outcomes.over(caller.scope, limit=asked.limit, before=asked.before)
        stands = standings(runtime, hours, failing, breakers)
        return {
            "providers": msgspec.to_builtins([one for one in stands if _fits(one, asked)]),
            "failing": msgspec.to_builtins([pattern(one) for one in failing if _fits(one, asked)]),
            "over": msgspec.to_builtins([pattern(one) for one in over if _fits(one, asked)]),
            "further": over[-1].place if len(over) >= asked.limit else 0,
            "cursor": runtime.watch.outcomes.cursor,
        }

    return await asyncio.to_thread(look)


def _fits(one: Upheld | Episode, asked: ProvidersAsked) -> bool:
    return asked.provider in ("", one.provider) and asked.model in ("", one.model)


def pattern(episode: Episode) -> Pattern:
    """The episode with who can mend it."""
    calls = episode.retried + episode.failed_over + episode.lost
    return Pattern(**msgspec.structs.asdict(episode), whose=whose(episode.error), calls=calls)


def standings(
    runtime: Runtime, hours: Iterable[ProviderHour], failing: Sequence[Episode], breakers: Sequence[BreakerState]
) -> list[Upheld]:
    """The models of the settings and those that only the ledger knows; what needs a look first, then the busiest."""
    split: dict[tuple[str, str], list[ProviderHour]] = defaultdict(list)
    for hour in hours:
        split[hour.provider, hour.model].append(hour)
    known = runtime.gateway.providers
    names = {(known.owner(name), name) for name in known.names()} | split.keys()
    names |= {(one.provider, one.model) for one in failing}
    held = {(one.provider, one.model): one for one in breakers}
    names |= held.keys()
    troubled = {(one.provider, one.model) for one in failing if whose(one.error) != Audience.CLIENT.value}
    found = [_upheld(name, split[name], held.get(name), troubled=name in troubled) for name in names]
    worst = ("left_alone", "on_probation", "fails", "answers", "unused")
    return sorted(found, key=lambda one: (worst.index(one.standing), -one.answered, one.provider, one.model))


def _upheld(
    name: tuple[str, str], hours: Sequence[ProviderHour], breaker: BreakerState | None, *, troubled: bool
) -> Upheld:
    answered = sum(hour.answered for hour in hours)
    standing: Standing = "answers" if answered else "unused"
    if troubled:
        standing = "fails"
    if breaker is not None and breaker.state != "closed":
        standing = "left_alone" if breaker.state == "open" else "on_probation"
    return Upheld(
        provider=name[0],
        model=name[1],
        standing=standing,
        answered=answered,
        failed=sum(hour.failed for hour in hours),
        skipped=sum(hour.skipped for hour in hours),
        latency=quantiles(hour.latency for hour in hours),
        first_byte=quantiles(hour.first_byte for hour in hours),
        breaker=breaker,
    )


def quantiles(sketches: Iterable[Sketch]) -> Quantiles:
    """Of all of them together."""
    whole = Sketch()
    for sketch in sketches:
        whole.merge(sketch)
    return Quantiles(whole.quantile(0.5), whole.quantile(0.95), whole.quantile(0.99))


def hours_of(runtime: Runtime, scope: Scope, since: float, provider: str, model: str) -> list[ProviderHour]:
    """The hours of one model, oldest first."""
    hours = runtime.watch.outcomes.hours(scope, since)
    return [hour for hour in hours if (hour.provider, hour.model) == (provider, model)]
