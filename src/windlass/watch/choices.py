"""The newest calls whose model was chosen, with what came of each: what clusters of prompts are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from windlass.ledger.ledger import CallTrace, Ledger
from windlass.policies import reward
from windlass.policies.reward import RewardOptions
from windlass.records import Call, Decision, FeedbackSource, Outcome, Scope

POINT: Final = "model"
NEWEST: Final = 2_000
"""So many choices are looked at."""
LOOKED: Final = 8_000
"""So many calls at most to find them."""
PAGE: Final = 50
"""With ten times as many the event loop waited 0.14 s for the thread that reads them."""


class RatedChoice(NamedTuple):
    """One choice among two or more. cost_nusd: of its call, where the chosen model answered. quality: None where nobody
    said anything."""

    call: Call
    decision: Decision
    cost_nusd: int | None
    quality: float | None


def choices(ledger: Ledger, scope: Scope, options: RewardOptions) -> Iterator[RatedChoice]:
    """The newest calls whose model was chosen among two or more, the newest first."""
    found, before = 0, ""
    for _ in range(LOOKED // PAGE):
        page = ledger.calls(scope, limit=PAGE, before=before)
        for trace in page:
            choice = _choice(trace, options)
            if choice is not None:
                yield choice
                found += 1
            if found == NEWEST:
                return
        if len(page) < PAGE:
            return
        before = page[-1].call.id


def _choice(trace: CallTrace, options: RewardOptions) -> RatedChoice | None:
    decision = next((one for one in trace.decisions if one.point == POINT and one.live), None)
    if decision is None or len(decision.actions) < 2:
        return None
    outcome = trace.outcome
    if outcome is not None and outcome.model != decision.action:
        return RatedChoice(trace.call, decision, None, 0.0)  # as policies learn it: another one answered
    return RatedChoice(trace.call, decision, _cost_nusd(outcome), _quality(trace, options))


def _cost_nusd(outcome: Outcome | None) -> int | None:
    """What a call did cost; None of one that came to nothing, or has not ended."""
    known = outcome is not None and (outcome.cost_nusd or not outcome.error)
    return outcome.cost_nusd if outcome is not None and known else None


def _quality(trace: CallTrace, options: RewardOptions) -> float | None:
    values: dict[tuple[FeedbackSource, str], float] = {}
    for said in trace.feedback:
        if (value := reward.read(said).value) is not None:
            values[said.source, said.metric] = value
    return reward.graded("" if trace.outcome is None else trace.outcome.error, values, options)
