"""Listings against their filters in plain words: many calls of two tenants, some filters that hardly anything fits."""

from __future__ import annotations

import random

import pytest

from windlass.ledger import search
from windlass.ledger.ledger import ALL, CallFilter, CallTrace
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, LedgerRecord, Outcome, Scope

CALLS, AT = 300, 1_800_000_000.0
SCOPES = Scope("acme"), Scope("rival")
WANTED = {
    "everything": CallFilter(),
    "a common model": CallFilter(model="new"),
    "a model of long ago": CallFilter(model="old"),
    "a rare model": CallFilter(model="rare"),
    "no such model": CallFilter(model="none"),
    "a rare error": CallFilter(error="rate_limited"),
    "any error of a provider": CallFilter(error="any", provider="far"),
    "no error long ago": CallFilter(error="none", until=AT + 40),
    "a model in a stretch": CallFilter(model="old", since=AT + 30, until=AT + 60, user="ann"),
    "late outcomes": CallFilter(model="late"),
    "a text of a model": CallFilter(text="user-1", model="new"),
    "nothing in that time": CallFilter(since=AT + 10_000),
}


def records(seed: int = 5) -> list[LedgerRecord]:
    """The first half went to the model `old`; some outcomes come long after their call, some never; ids of both tenants
    are the same."""
    dice = random.Random(seed)
    found: list[LedgerRecord] = []
    late: list[LedgerRecord] = []
    for n in range(CALLS):
        scope, at = SCOPES[n % 3 == 2], AT + n
        owner = {"tenant": scope.tenant, "workspace": scope.workspace}
        user = dice.choice(("ann", "bob", f"user-{n}"))
        found.append(Call(id=f"call_{n // 3}-{n % 3 % 2}", at=at, endpoint="chat", model="auto", user=user, **owner))
        model = "rare" if n in (7, 150) else "late" if n % 29 == 3 else "old" if n < CALLS / 2 else "new"
        error = "rate_limited" if n in (2, 100, 101) else "first_byte_timeout" if n % 11 == 0 else ""
        ended = Outcome(
            id=f"outcome_{n}", at=at + 1, call=f"call_{n // 3}-{n % 3 % 2}", model=model, status=200, latency_ms=5.0,
            provider=dice.choice(("far", "near")), first_byte_ms=1.0, prompt_tokens=1, completion_tokens=1,
            cost_nusd=1, error=error, **owner,
        )  # fmt: skip
        if model == "late":
            late.append(ended)
        elif n % 17:
            found.append(ended)
    return found + late


def shrink(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Make all windows so small that a listing goes through many of them."""
    monkeypatch.setattr(search, "NEAR", (5, 20))
    monkeypatch.setattr(search, "FEW", few)
    monkeypatch.setattr(search, "FURTHER", 25)


def check_pages(ledger: SqlLedger, limit: int) -> None:
    """Each filter, page by page: what `CallFilter.fits` says of all traces, newest first, each once."""
    for scope in (*SCOPES, ALL):
        every = ledger.calls(scope, limit=1_000)
        for name, wanted in WANTED.items():
            expected = [_key(trace) for trace in every if wanted.fits(trace)]
            if scope is ALL:  # ids are not unique across tenants, so that a page cannot begin at one
                pages = [_key(trace) for trace in ledger.calls(scope, limit=1_000, wanted=wanted)]
            else:
                pages = _paged(ledger, scope, wanted, limit)
            assert pages == expected, (scope, name)


def _paged(ledger: SqlLedger, scope: Scope, wanted: CallFilter, limit: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    before = ""
    while page := ledger.calls(scope, limit=limit, before=before, wanted=wanted):
        assert len(page) <= limit
        found += map(_key, page)
        before = page[-1].call.id
    return found


def _key(trace: CallTrace) -> tuple[str, str]:
    return trace.call.tenant, trace.call.id
