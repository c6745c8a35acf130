"""What judges' own calls were worth: whether a verdict could be read. So `auto` learns which models can judge.

It is said only of calls whose model was chosen among two or more, as feedback of the source `system`. Whether a verdict
was right, people alone can say (`windlass graders agreement`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from windlass.gateway.feedback import FeedbackRequest
from windlass.improve.grading.grader import AskModel, JudgeAnswer, digest
from windlass.ledger.ledger import Ledger
from windlass.records import Scope

METRIC: Final = "verdict"
POINT: Final = "model"


class Noting:
    """Asks for one judge about one case, and notes what was answered. unanswered: nothing came of the last question."""

    def __init__(self, ask: AskModel):
        self.answers: list[JudgeAnswer] = []
        self.unanswered = False
        self._ask = ask

    async def __call__(self, body: bytes, told: str) -> JudgeAnswer:
        self.unanswered = True
        answer = await self._ask(body, told)
        self.unanswered = False
        self.answers.append(answer)
        return answer

    def readable(self, *, failed: bool) -> Iterator[tuple[str, bool]]:
        """(call, whether its verdict could be read). failed: the judge gave up; on its last answer, where one came."""
        last = len(self.answers) - 1
        for place, answer in enumerate(self.answers):
            if answer.call:
                yield answer.call, not (failed and place == last and not self.unanswered)


def said_of(ledger: Ledger, scope: Scope, call: str, *, readable: bool) -> FeedbackRequest | None:
    """What to say of a judge's call; None where its model was named, or it is not there."""
    trace = ledger.trace(scope, call)
    if trace is None or not any(one.point == POINT and one.live and len(one.actions) > 1 for one in trace.decisions):
        return None
    return FeedbackRequest(
        id=f"feedback_{call.partition('_')[2][:12]}{digest(METRIC, call)[:20]}",
        target=call,
        kind="rating",
        source="system",
        metric=METRIC,
        value=float(readable),
        comment="the verdict could be read" if readable else "the answer is no verdict",
    )
