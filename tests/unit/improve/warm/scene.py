"""What the tests of a warm start begin from: settings, models of which one is good, and what was asked beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.improve.grading.scene import Says
from tests.unit.improve.grading.scene import ready as grading_ready

from windlass.improve.warm.prompt import PARENT
from windlass.ledger.ledger import CallTrace
from windlass.records import Scope
from windlass.runtime import Runtime

USD = 10.0
"""Per million tokens, each way: 0.02 USD a call of `Says`, and 0.041 USD held of one whose length is open."""
ON: Mapping[str, Any] = {
    "routing__warm_start_prompts": 3,
    "routing__warm_start_budget_usd": 100.0,
    "graders__exact": {"options": {"match": "contains"}},
    "points__model__policy": "joint_thompson",
    "points__model__options": {},
    "memory__embedder": "off",
}
KNOWN: Mapping[str, Any] = {"metadata": {"expected": "good"}}


def says(*models: str, usd: float = USD, good: str = "b") -> Says:
    """Models of which one answers well."""
    return Says(*models, by=lambda request: "good" if request.model == good else "bad", usd=usd)


def ready(runtime: Runtime) -> None:
    """As the server's background does before its first look."""
    assert runtime.warm is not None
    runtime.warm.begin()
    grading_ready(runtime)


async def warmed(runtime: Runtime) -> None:
    """Let the warm start see all that is committed, its own calls too."""
    assert runtime.warm is not None
    await runtime.warm.step()
    while await runtime.warm.step():
        pass


def extra(runtime: Runtime, scope: Scope | None = None) -> list[CallTrace]:
    """The calls of the warm start, oldest first, with their decisions."""
    found = runtime.ledger.calls(scope or Scope(), limit=1000)[::-1]
    traces = (runtime.ledger.trace(one.call.scope, one.call.id) for one in found if one.call.parent.startswith(PARENT))
    return [trace for trace in traces if trace is not None]


def observed(runtime: Runtime, scope: Scope | None = None) -> dict[str, int]:
    """How many rewards the live policy has learned of each model."""
    arms = runtime.loop.explain("model", scope or Scope(), {}, ("a", "b", "c"))
    return {arm.action: arm.observations for arm in arms}
