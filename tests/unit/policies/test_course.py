"""Calls that are told at once are taken together, and it shows in no bit of the state and in nothing that is heard."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.ledger import Entry
from windlass.policies.credit import Credit
from windlass.policies.loop import Loop
from windlass.policies.points import GuardOptions, PointOptions
from windlass.policies.replay import Learner
from windlass.records import Erasure, LedgerRecord, RunEvent, Scope, StepResult, user_digest

A, B = Scope("a", "one"), Scope("b", "two")
REPLACE = msgspec.structs.replace


def _loop() -> Loop:
    """Two points where a rule decides, one of them under a guard that is taught, and one that learns."""
    options = {"action": "m1"}
    return Loop(
        {
            "model": PointOptions(mode="live", policy="fixed", options=options),
            "prompt": PointOptions(mode="live", policy="fixed", options=options),
            "tool": PointOptions(mode="live", policy="fixed", options=options, guards=(GuardOptions("cool_down", {}),)),
            "agent": PointOptions(mode="live", policy="epsilon_greedy"),
        }
    )


def _call(
    name: str, *points: str, scope: Scope = A, action: str = "m1", policy: str = "fixed@1", answered: str = "m1"
) -> list[LedgerRecord]:
    """A call with decisions at these points, and how it ended."""
    decided = [
        REPLACE(
            decision(f"decision_{name.removeprefix('call_')}-{point}", name, scope),
            point=point, policy=policy, actions=("m1", "m2"), action=action, live=True, context={"one": 0.5},
        )
        for point in points
    ]  # fmt: skip
    return [call(name, scope), *decided, REPLACE(outcome(name, scope), model=answered, latency_ms=100.0 + len(name))]


def _folded(told: Sequence[LedgerRecord], step: int, window: int) -> tuple[bytes, int, list[Credit]]:
    """State, cursor and credits, after `step` entries at a time."""
    entries = [Entry(place, record) for place, record in enumerate(told, start=1)]
    learner, heard = Learner(_loop(), window), list[Credit]()
    learner.on_credit(heard.append)
    for first in range(0, len(entries), step):
        learner.fold(*entries[first : first + step])
    return learner.state(), learner.cursor, heard


def _same(told: Sequence[LedgerRecord], window: int = 10_000) -> None:
    """However many entries come at a time."""
    one = _folded(told, 1, window)
    assert one[2], "something was earned"
    for step in (3, 50, 10_000):
        assert _folded(told, step, window) == one


@pytest.mark.parametrize("window", [1, 20, 10_000])
@pytest.mark.parametrize("between", [(), ("run",), ("rated",), ("erased",)])
def test_calls_of_every_course_among_one_another(between: tuple[str, ...], window: int) -> None:
    points = [("model",), ("prompt", "model"), ("model", "tool"), ("agent",), ("model", "agent"), ("prompt",), ()]
    told: list[LedgerRecord] = []
    for place in range(140):
        scope, what = (A, B)[place % 3 == 0], points[place % len(points)]
        name = f"call_{place}" if place % 11 else f"odd name {place}"
        policy, answered = ("fixed@1", "other@1")[place % 13 == 0], ("m1", "m2", "m3")[place % 5 % 3]
        told += _call(name, *what, scope=scope, policy=policy, answered=answered)
        if "run" in between:
            told.append(
                RunEvent(id=f"e{place}", at=1.0, tenant="a", run="r", workflow="w", step="s",
                         result=StepResult(status="ok"))
            )  # fmt: skip
        if "rated" in between and place % 4 == 0:
            told.append(rating(f"feedback_{place}", f"call_{place // 2}", scope))
        if "erased" in between and place % 20 == 7:
            told[-1 - 1 - len(what)] = REPLACE(call(name, scope), user="ada")
            told.append(
                Erasure(id=f"erasure_{place}", at=1.0, tenant=scope.tenant, workspace=scope.workspace,
                        user=user_digest(scope, "ada"))
            )  # fmt: skip
    _same(told, window)


@pytest.mark.parametrize("window", [10, 10_000])
@pytest.mark.parametrize("point", ["model", "agent"])
def test_more_courses_than_are_kept_in_mind(point: str, window: int) -> None:
    """Each call goes its own way: what is known of others is let go, and its place may be another's by then."""
    told: list[LedgerRecord] = []
    for place in range(1_300):
        made = _call(f"call_{place}", point, action=f"m{place}", answered=f"m{place % 7}", policy="epsilon_greedy@1")
        told += [*made[:-1], REPLACE(made[-1], error="" if place % 3 else "stream_cut")]
    told += _call("call_again", "model")
    _same(told, window)


def test_two_decisions_at_one_point_and_too_many_of_them() -> None:
    twice = _call("call_1", "model", "model")
    twice[2] = REPLACE(twice[2], id="decision_other")
    many = _call("call_2", *["prompt"] * 70)
    many[1:-1] = [REPLACE(one, id=f"decision_{place}") for place, one in enumerate(many[1:-1])]
    _same([*twice, *many, *_call("call_3", "model")])


def test_what_somebody_else_told_is_no_part_of_the_call() -> None:
    mine, theirs = _call("call_1", "prompt", "model"), _call("call_1", "prompt", "model", scope=B)
    for swapped in ((0,), (1,), (2,), (3,), (0, 3), (1, 2)):
        _same([theirs[n] if n in swapped else mine[n] for n in range(4)] + _call("call_2", "model"))
