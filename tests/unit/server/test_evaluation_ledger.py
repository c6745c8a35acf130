"""Logged decisions are read from the ledger as the policies learn from it, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from windlass.ledger.ids import imported
from windlass.ledger.ledger import AnyScope, Entry
from windlass.ledger.memory import MemoryLedger
from windlass.policies.logged import Log
from windlass.policies.reward import RewardOptions
from windlass.records import Call, Decision, Erasure, Feedback, Outcome, Scope, user_digest
from windlass.server import evaluation_ledger

OWN = Scope()
REWARD = RewardOptions()
_OUTCOME: dict[str, Any] = {
    "provider": "p",
    "status": 200,
    "latency_ms": 10.0,
    "first_byte_ms": 5.0,
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "cost_nusd": 7_000,
}


def call(number: int, *, scope: Scope = OWN, action: str = "a", **fields: Any) -> list[Any]:
    """A call with its decision and outcome. fields: of the decision; `outcome`: of the outcome, None for none."""
    owner = {"at": float(number), "tenant": scope.tenant, "workspace": scope.workspace}
    outcome = fields.pop("outcome", {})
    above = fields.pop("of", {})
    values: dict[str, Any] = {
        "id": f"decision_{number}-model",
        "call": f"call_{number}",
        "point": "model",
        "policy": "ucb@1",
        "actions": ("a", "b"),
        "action": action,
        "propensity": 0.4,
        "live": True,
        "context": {"words": float(number)},
        "featuriser": "lexical@1",
    }
    found: list[Any] = [
        Call(id=f"call_{number}", endpoint="chat", model="auto", **owner, **above),
        Decision(**(values | owner | fields)),
    ]
    if outcome is not None:
        ended = {**_OUTCOME, "model": action, **outcome}
        found.append(Outcome(id=f"outcome_{number}", call=f"call_{number}", **owner, **ended))
    return found


def said(number: int, value: float | None, target: str, *, scope: Scope = OWN, **fields: Any) -> Feedback:
    kinds = {"kind": "rating", "source": "user"} | fields
    owner = {"tenant": scope.tenant, "workspace": scope.workspace}
    return Feedback(id=f"feedback_{number}", at=90.0 + number, target=target, value=value, **owner, **kinds)


def read(*items: Any, **options: Any) -> Log:
    ledger = MemoryLedger()
    ledger.append_now(*items)
    return evaluation_ledger.read(ledger, OWN, "model", REWARD, **options)


def test_a_decision_comes_with_what_came_of_it() -> None:
    (one,) = read(*call(1), said(1, 0.9, "call_1")).choices
    assert (one.decision.action, one.decision.propensity, one.decision.context) == ("a", 0.4, {"words": 1.0})
    assert (one.quality, one.cost_nusd, one.failed) == (0.9, 7_000.0, False)
    assert one.reward is not None
    assert 0.7 < one.reward < 0.9


def test_late_twice_and_corrected_feedback_counts_as_its_newest() -> None:
    words = [said(1, 0.1, "call_1"), said(2, 0.8, "call_1"), said(2, 0.8, "call_1")]
    one, other = read(words[0], *call(1), *call(2), *words[1:]).choices
    assert (one.quality, other.quality) == (0.8, None)


def test_feedback_on_what_stands_above_counts() -> None:
    (one,) = read(*call(1, of={"parent": "answer_5"}), said(1, 1.0, "answer_5", kind="praise")).choices
    assert one.quality == 1.0


def test_an_error_and_a_model_that_did_not_answer_are_worth_nothing() -> None:
    failed, over = read(
        *call(1, outcome={"error": "rate_limited", "status": 429}),
        *call(2, outcome={"model": "b"}),
        said(1, 1.0, "call_2"),
    ).choices
    assert (failed.quality, failed.failed) == (0.0, True)
    assert (over.quality, over.failed, over.cost_nusd) == (0.0, True, 7_000.0)


def test_what_says_nothing_of_others_is_left_out_and_counted() -> None:
    log = read(
        *call(1),
        *call(2, actions=("a",), propensity=1.0),
        *call(3, policy="default@1", propensity=1.0),
        *call(4, context={}),
        *call(5, outcome=None),
        *call(6, live=False, id="decision_6-model-shadow"),
        *call(7, point="cache", id="decision_7-cache"),
    )
    assert [one.decision.call for one in log.choices] == ["call_1"]
    assert log.left_out == {
        "its context was deleted": 1,
        "no outcome is known": 1,
        "no policy acted (mode off or shadow)": 1,
        "one action was eligible": 1,
    }


def test_imported_calls_teach_nothing() -> None:
    name = imported("call", 1.0, "ab" * 32, "litellm")
    ledger = MemoryLedger()
    ledger.append_now(Call(id=name, at=1.0, endpoint="chat", model="a"))
    ledger.append_now(Outcome(id="outcome_9", at=1.0, call=name, model="a", **_OUTCOME), *call(1))
    assert len(evaluation_ledger.read(ledger, OWN, "model", REWARD).choices) == 1


def test_a_forgotten_user_is_no_part_of_it() -> None:
    user = {"user": "ann"}
    erasure = Erasure(id="erasure_1", at=99.0, user=user_digest(OWN, "ann"))
    log = read(*call(1, of=user), *call(2), erasure)
    assert [one.decision.call for one in log.choices] == ["call_2"]


class Watched(MemoryLedger):
    """A ledger that notes in whose name it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.scopes: list[AnyScope] = []

    def read(self, scope: AnyScope, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        self.scopes.append(scope)
        return super().read(scope, after=after, limit=limit)


def test_nobody_elses_rows_are_read() -> None:
    """The rival has calls of the same ids, and speaks of ours."""
    rival = Scope("rival", "default")
    ledger = Watched()
    ledger.append_now(*call(1), *call(1, scope=rival, action="b"), *call(2, scope=rival))
    ledger.append_now(*call(3, scope=Scope("default", "other")), said(1, 0.0, "call_1", scope=rival))
    log = evaluation_ledger.read(ledger, OWN, "model", REWARD)
    assert [(one.decision.call, one.decision.action, one.quality) for one in log.choices] == [("call_1", "a", None)]
    assert set(ledger.scopes) == {OWN}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"since": 2.0}, [2, 3, 4]),
        ({"until": 2.0}, [1]),
        ({"since": 2.0, "until": 4.0}, [2, 3]),
        ({"newest": 2}, [3, 4]),
    ],
)
def test_a_part_of_it(options: dict[str, Any], left: list[int]) -> None:
    log = read(*call(1), *call(2), *call(3), *call(4), **options)
    assert [int(one.decision.at) for one in log.choices] == left


def test_more_than_a_page_is_read_in_order() -> None:
    items = [item for number in range(1, 1_501) for item in call(number)]
    assert [one.decision.at for one in read(*items).choices] == [float(number) for number in range(1, 1_501)]
