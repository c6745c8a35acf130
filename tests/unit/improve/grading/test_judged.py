"""A judge whose model `auto` chooses: its questions are decisions at the point `model`, taught by readable verdicts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import opened
from tests.unit.improve.grading.scene import Says, called, graded, grades, ready
from tests.unit.improve.grading.test_judge import material, scoring

from windlass.errors import UpstreamError
from windlass.gateway.provider import ProviderRequest
from windlass.improve.grading.judged import METRIC
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.testing import Echo

AUTO: dict[str, Any] = {"judge": {"daily_usd": 1.0, "options": {"model": "auto"}}}
AMONG = {"gateway__auto": ["able", "vague"], "graders": AUTO}


def _able_or_vague(request: ProviderRequest) -> str:
    return scoring(8)(request) if request.model == "able" else "Quite good, I should say."


async def _judges(runtime: Runtime) -> list[Any]:
    return [trace for trace in runtime.ledger.calls(Scope(), limit=500) if trace.call.parent.startswith("grade_")]


async def test_a_judges_model_is_chosen_by_the_policy_and_taught_by_its_verdicts(tmp_path: Path) -> None:
    points = {"model": {"policy": "ucb1", "mode": "live"}}
    judge = Says("able", "vague", by=_able_or_vague)
    async with opened(tmp_path, [Echo("a"), judge], points=points, **AMONG) as runtime:
        ready(runtime)
        for number in range(40):
            await called(runtime, f"What is {number} x 7?", model="a")
            await graded(runtime)
            await runtime.caught_up()
        asked = await _judges(runtime)
        told = {one.target: one.value for one in grades(runtime, METRIC)}
    assert len(asked) == 40
    for trace in asked:
        (decision,) = trace.decisions
        assert (decision.point, decision.actions) == ("model", ("able", "vague"))
        assert 0.0 < decision.propensity <= 1.0
        assert told[trace.call.id] == float(decision.action == "able")
    chosen = Counter(trace.decisions[0].action for trace in asked)
    assert chosen["able"] > 2 * chosen["vague"]


async def test_nothing_is_said_of_a_model_that_was_named(tmp_path: Path) -> None:
    named = {"judge": {"daily_usd": 1.0, "options": {"model": "able"}}}
    judge = Says("able", "vague", by=_able_or_vague)
    async with opened(tmp_path, [Echo("a"), judge], graders=named) as runtime:
        ready(runtime)
        await called(runtime, "What?", model="a")
        await graded(runtime)
        assert len(await _judges(runtime)) == 1
        assert grades(runtime, METRIC) == []


async def test_nothing_is_said_of_a_question_without_an_answer(tmp_path: Path) -> None:
    def away(request: ProviderRequest) -> str:
        raise UpstreamError("away", status=None)

    async with opened(tmp_path, [Echo("a"), Says("able", "vague", by=away)], **AMONG) as runtime:
        ready(runtime)
        await called(runtime, "What?", model="a")
        await graded(runtime)
        assert grades(runtime, METRIC) == []
        assert grades(runtime, "judge") == []


@pytest.mark.parametrize(("second", "values"), [(True, [1.0, 1.0]), (False, [0.0, 1.0])])
async def test_of_two_questions_the_one_that_failed_is_told(tmp_path: Path, second: bool, values: list[float]) -> None:
    asked: list[str] = []

    def by(request: ProviderRequest) -> str:
        asked.append(request.model)
        verdict = {"case": material(request)["case"], "better": "A", "reason": "words"}
        return json.dumps(verdict) if second or len(asked) < 2 else "B, I think"

    pair = {"judge": {"daily_usd": 1.0, "options": {"model": "auto", "mode": "pair"}}}
    async with opened(tmp_path, [Echo("a"), Says("able", "vague", by=by)], **{**AMONG, "graders": pair}) as runtime:
        ready(runtime)
        await called(runtime, "What?", model="a", metadata={"expected": "This."})
        await graded(runtime)
        assert sorted(one.value or 0.0 for one in grades(runtime, METRIC)) == values


async def test_another_tenants_judges_teach_nobody_else(tmp_path: Path) -> None:
    acme = Scope("acme", "default")
    async with opened(tmp_path, [Echo("a"), Says("able", "vague", by=_able_or_vague)], **AMONG) as runtime:
        ready(runtime)
        await called(runtime, "What?", model="a", scope=acme)
        await graded(runtime)
        assert len(grades(runtime, METRIC, acme)) == 1
        assert grades(runtime, METRIC) == []
