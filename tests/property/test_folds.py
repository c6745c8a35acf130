"""Folds against counting by hand: whatever happened in whatever order, the overview says what a loop over it says."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from windlass.ledger.check import call, decision, rating
from windlass.ledger.memory import MemoryLedger
from windlass.records import Decision, Feedback, LedgerRecord, Outcome, Scope
from windlass.watch.overview import HOUR_S, Overview

SCOPES = (Scope("a", "one"), Scope("a", "two"), Scope("b", "one"))
START = 500_000 * HOUR_S


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    scope = draw(st.sampled_from(SCOPES))
    number = draw(st.integers(0, 10**9))
    return Outcome(
        id=f"outcome_{number}",
        call=f"call_{number}",
        at=START + draw(st.floats(0, 4 * HOUR_S)),
        tenant=scope.tenant,
        workspace=scope.workspace,
        model=draw(st.sampled_from(["x", "y", ""])),
        provider="p",
        status=draw(st.sampled_from([200, 429, 502])),
        latency_ms=draw(st.floats(0.001, 1e6)),
        first_byte_ms=0.0,
        prompt_tokens=draw(st.integers(0, 1_000)),
        completion_tokens=draw(st.integers(0, 1_000)),
        cost_nusd=draw(st.integers(0, 10**12)),
        error=draw(st.sampled_from(["", "", "rate_limited"])),
    )


@st.composite
def others(draw: st.DrawFn) -> LedgerRecord:
    scope, number = draw(st.sampled_from(SCOPES)), draw(st.integers(0, 10**9))
    made: list[LedgerRecord] = [
        call(f"call_{number}", scope),
        decision(f"decision_{number}", f"call_{number}", scope),
        rating(f"feedback_{number}", f"call_{number}", scope),
    ]
    return draw(st.sampled_from(made))


HISTORY = st.lists(st.one_of(outcomes(), others()), max_size=40)


def _mine(history: list[Any], scope: Scope, since: float) -> list[Outcome]:
    first = math.floor(since / HOUR_S) * HOUR_S
    return [o for o in history if isinstance(o, Outcome) and o.scope == scope and o.at // HOUR_S * HOUR_S >= first]


def _kept(history: list[LedgerRecord]) -> list[LedgerRecord]:
    """What a ledger keeps of it: the first of each kind, scope and id."""
    found: dict[Any, LedgerRecord] = {}
    for record in history:
        found.setdefault((type(record), record.scope, record.id), record)
    return list(found.values())


@given(HISTORY, st.floats(START - HOUR_S, START + 5 * HOUR_S), st.integers(0, 40))
def test_the_overview_is_what_counting_by_hand_gives(history: list[LedgerRecord], since: float, pause: int) -> None:
    ledger, overview = MemoryLedger(), Overview()
    ledger.append_now(*history[:pause])
    overview.catch_up(ledger)
    ledger.append_now(*history[pause:])
    overview.catch_up(ledger)
    kept = _kept(history)
    for scope in SCOPES:
        mine, totals = _mine(kept, scope, since), overview.totals(scope, since)
        assert totals.calls == len(mine)
        assert totals.errors == sum(one.error != "" for one in mine)
        assert totals.cost_nusd == sum(one.cost_nusd for one in mine)
        assert totals.prompt_tokens == sum(one.prompt_tokens for one in mine)
        assert totals.completion_tokens == sum(one.completion_tokens for one in mine)
        ranked = sorted(one.latency_ms for one in mine)
        for q, found in ((0.5, totals.p50_ms), (0.95, totals.p95_ms), (0.99, totals.p99_ms)):
            assert (found is None) == (not ranked)
            if found is not None:
                exact = ranked[math.floor(q * (len(ranked) - 1))]
                assert abs(found - exact) <= 0.01 * exact * (1 + 1e-9)
        by_model = {model: one.calls for model, one in overview.by_model(scope, since).items()}
        assert by_model == Counter(one.model for one in mine)
        by_hour = {at: one.calls for at, one in overview.by_hour(scope, since)}
        assert by_hour == Counter(int(one.at // HOUR_S) * HOUR_S for one in mine)
        decisions = sum(isinstance(one, Decision) and one.scope == scope for one in kept)
        feedback = sum(isinstance(one, Feedback) and one.scope == scope for one in kept)
        assert overview.counted(scope) == (decisions, feedback)
