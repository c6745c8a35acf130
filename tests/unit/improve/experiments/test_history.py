"""The calls of the ledger that a plan is reckoned from."""

from __future__ import annotations

import pytest
from tests.unit.policies.test_replay import call, decision, outcome, said
from tests.unit.policies.trials.test_plan import planned

from windlass.improve.experiments.history import past
from windlass.improve.experiments.planning import forecast
from windlass.ledger.memory import MemoryLedger
from windlass.policies.reward import RewardOptions
from windlass.records import Scope, user_digest

ACME = Scope("acme", "main")


@pytest.fixture
def ledger():
    return MemoryLedger()


def read(ledger, **options):
    newest = {"newest": options.pop("newest")} if "newest" in options else {}
    return past(ledger, ACME, planned(**options), RewardOptions(), **newest)


def test_each_call_with_what_came_of_it(ledger):
    ledger.append_now(
        call("call_1"), decision("call_1", at=5.0), outcome("call_1", latency_ms=80.0, cost_nusd=2_000_000)
    )
    ledger.append_now(call("call_2", parent="answer_1"), decision("call_2", "deep"), outcome("call_2", error="timeout"))
    ledger.append_now(
        said(1.0, "call_1", name="feedback_1"), said(0.0, "call_1", name="feedback_2"), said(1.0, "answer_1")
    )
    first, second = read(ledger)
    assert (first.at, first.unit, first.action, first.told) == (5.0, "call_1", "fast", (0.0, 2_000.0, 80.0, 0.0))
    assert (second.action, second.told) == ("deep", (0.0, 0.0, None, 1.0))
    assert [one.unit for one in read(ledger, unit="session")] == ["call_1", "answer_1"]


def test_users_are_digests_and_calls_of_nobody_are_left_out(ledger):
    ledger.append_now(call("call_1", user="ann"), decision("call_1"), call("call_2"), decision("call_2"))
    assert [one.unit for one in read(ledger, unit="user")] == [user_digest(ACME, "ann")]
    assert len(read(ledger)) == 2


def test_other_workspaces_points_and_shadows_are_left_out(ledger):
    other = Scope("acme", "other")
    ledger.append_now(call("call_1", scope=other), decision("call_1", scope=other), outcome("call_1", scope=other))
    ledger.append_now(
        call("call_2"), decision("call_2", point="prompt"), call("call_3"), decision("call_3", live=False)
    )
    assert read(ledger) == []
    assert [one.action for one in read(ledger, point="prompt")] == ["fast"]


def test_the_newest_alone(ledger):
    for number in range(20):
        ledger.append_now(call(f"call_{number}"), decision(f"call_{number}"))
    assert [one.unit for one in read(ledger, newest=2)] == ["call_18", "call_19"]


def test_a_forecast_from_the_ledger(ledger):
    for number in range(40):
        name = f"call_{number}"
        ledger.append_now(call(name), decision(name, at=number * 60.0), outcome(name), said(float(number % 2), name))
    found = forecast(planned(), past(ledger, ACME, planned(), RewardOptions()))
    assert (found.units, found.mean, found.missing) == (40, 0.5, "")
