"""What is known of the newest calls, folded from a ledger page by page."""

from __future__ import annotations

import pytest
from tests.unit.policies.test_replay import ACME, call, decision, erasure, outcome, said

from windlass.ledger.memory import MemoryLedger
from windlass.watch import known as module
from windlass.watch.known import known


@pytest.fixture
def ledger():
    ledger = MemoryLedger()
    for number in range(7):
        name = f"call_{number}"
        ledger.append_now(call(name, user="ann"), decision(name), outcome(name), said(1.0, name))
    return ledger


def test_pages_make_no_difference(ledger, monkeypatch):
    whole = known(ledger, ACME, "model", 100).stored()
    monkeypatch.setattr(module, "_PAGE", 3)
    assert known(ledger, ACME, "model", 100).stored() == whole
    assert len(whole.calls) == 7


def test_a_user_who_was_erased_is_gone(ledger):
    ledger.append_now(erasure("ann"))
    assert not known(ledger, ACME, "model", 100).calls


def test_only_decisions_of_the_point_are_kept(ledger):
    kept = known(ledger, ACME, "prompt", 100).calls
    assert len(kept) == 7
    assert not any(account.acted for account in kept.values())
