"""What the policies have learned, in plain words: for each decision point its actions, their rewards and a verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass.content.ask import POINT as ANSWER_POINT
from windlass.gateway.gateway import POINT as MODEL_POINT
from windlass.gateway.route import kinds
from windlass.policies.policy import Arm
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server.dashboard import words

LOOK_BACK = 50
CLEAR_SDS = 2.0
LEANING_SDS = 1.0
QUESTIONS = {
    MODEL_POINT: "Which model answers?",
    kinds.EMBEDDINGS: "Which model turns texts into vectors?",
    kinds.TRANSCRIPTIONS: "Which model hears what is said?",
    ANSWER_POINT: "Is there enough in memory to answer?",
}


@dataclass(frozen=True)
class Lesson:
    """One decision point as a person reads it.

    why: the policy's own account of the newest decision. leader: the action that is really ahead, "" for none.
    taken: how often each action was taken in the newest `cases` decisions.
    """

    point: str
    question: str
    policy: str
    mode: str
    arms: tuple[Arm, ...]
    verdict: str
    why: str
    leader: str
    cases: int
    taken: Mapping[str, int]

    @property
    def measured(self) -> bool:
        """Whether the policy estimates rewards at all; a fixed rule does not."""
        return any(arm.mean is not None for arm in self.arms)


def lessons(runtime: Runtime, scope: Scope) -> list[Lesson]:
    """Every point that is not off and has decided something for this scope. Reads the ledger."""
    found: list[Lesson] = []
    for point, options in sorted(runtime.loop.points.items(), key=lambda pair: (pair[0] != MODEL_POINT, pair[0])):
        if options.mode == "off":
            continue
        newest = runtime.ledger.decisions(scope, point=point, limit=LOOK_BACK)
        made = [decision for decision in newest if decision.policy == runtime.loop.policy_id(point)]
        if made:
            found.append(_lesson(runtime, scope, point, made))
    return found


def verdict(arms: Sequence[Arm]) -> str:
    """One sentence: who is ahead, and whether the difference is more than its own uncertainty."""
    measured = [arm for arm in arms if arm.mean is not None]
    if not measured:
        return "A fixed rule: it is recorded like every other choice, and it learns nothing."
    if not any(arm.observations for arm in measured):
        return "No rewards yet, so it tries its actions evenly."
    if len(measured) == 1:
        return f"Only {measured[0].action} could be chosen, so there is nothing to compare."
    rivals = _rivals(arms)
    if rivals is None:
        untried = ", ".join(arm.action for arm in measured if not arm.observations)
        return f"Nothing is decided: {untried} has no reward yet."
    first, second, gap, doubt = rivals
    if gap > CLEAR_SDS * doubt:
        return f"{first.action} is ahead by {gap:.2f}, clearly more than the uncertainty of {doubt:.2f}."
    if gap > LEANING_SDS * doubt:
        return f"It leans towards {first.action}: ahead by {gap:.2f}, with an uncertainty of {doubt:.2f}."
    return f"Too close to tell: {first.action} and {second.action} are {gap:.2f} apart, within {doubt:.2f} of doubt."


def leader(arms: Sequence[Arm]) -> str:
    """The action whose lead is clearly more than its uncertainty, "" where there is none."""
    rivals = _rivals(arms)
    if rivals is None:
        return ""
    first, _, gap, doubt = rivals
    return first.action if gap > CLEAR_SDS * doubt else ""


def reason(decision: Decision) -> str:
    """Why a call went where it went, as one line."""
    if decision.fallback:
        return f"fell back: {decision.fallback}"
    if len(decision.actions) == 1:
        return "asked for by name"
    chance = words.percent(decision.propensity)
    return f"{decision.policy} chose it among {len(decision.actions)} with a chance of {chance}"


def _lesson(runtime: Runtime, scope: Scope, point: str, made: Sequence[Decision]) -> Lesson:
    """What stands behind the newest decision with a real choice, else behind the newest at all."""
    typical = next((decision for decision in made if len(decision.actions) > 1), made[0])
    arms = runtime.loop.explain(point, scope, typical.context, typical.actions)
    return Lesson(
        point=point,
        question=QUESTIONS.get(point, point),
        policy=typical.policy,
        mode=runtime.loop.points[point].mode,
        arms=arms,
        verdict=verdict(arms),
        why=words.plain(str(typical.extra.get("why", ""))),
        leader=leader(arms),
        cases=len(made),
        taken=Counter(decision.action for decision in made),
    )


def _rivals(arms: Sequence[Arm]) -> tuple[Arm, Arm, float, float] | None:
    """(best, second, gap between their means, doubt: the deviation of that gap), where all measured were tried."""
    measured = sorted((arm for arm in arms if arm.mean is not None), key=lambda arm: -(arm.mean or 0.0))
    if len(measured) < 2 or not all(arm.observations for arm in measured):
        return None
    first, second = measured[:2]
    return first, second, (first.mean or 0.0) - (second.mean or 0.0), math.hypot(first.sd or 0.0, second.sd or 0.0)
