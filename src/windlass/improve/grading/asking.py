"""How judges ask models: through the gateway, as recorded calls of the tenant whose call is graded, within a budget.

The question's digest is its idempotency key, so the same question about the same reply is answered from the gateway's
store (`gateway.idempotency_hours`) and billed once. A judge's calls carry the user of the graded call, so that
forgetting that user deletes them too, and a parent of the kind `grade_`, by which nobody grades them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from windlass.errors import WindlassError
from windlass.gateway.dialects.readers import UNREADABLE
from windlass.gateway.transit import Answer, Request
from windlass.improve.grading.cases import OWN_PARENT, text
from windlass.improve.grading.grader import GraderFailed, JudgeAnswer
from windlass.improve.grading.store import GradingPlace
from windlass.records import Scope

Complete = Callable[[Request], Awaitable[Answer]]
MOST_CHARS: Final = 100_000


class OverBudget(GraderFailed):
    """The judge has spent what it may in this UTC day."""


class Asking:
    """Asks for one judge. complete: the gateway in force. limit_nusd: what it may spend in a UTC day.

    spent_nusd: what the questions through this object have cost; the dearest of them must still fit in.
    """

    def __init__(self, judge: str, complete: Complete, place: GradingPlace, limit_nusd: int):
        self._judge = judge
        self._complete = complete
        self._place = place
        self._limit_nusd = limit_nusd
        self._dearest_nusd = 0

    async def ask(self, scope: Scope, body: bytes, digest: str) -> JudgeAnswer:
        """The model's answer. GraderFailed where there is none, OverBudget before anything is asked."""
        spent = await asyncio.to_thread(self._place.spent_nusd, self._judge)
        if spent + self._dearest_nusd > self._limit_nusd or spent >= self._limit_nusd:
            raise OverBudget(
                f"{spent / 1e9:.4f} of {self._limit_nusd / 1e9:.4f} USD are spent today (UTC); "
                f"raise graders.{self._judge}.daily_usd, or wait"
            )
        request = Request(body, scope=scope, parent=f"{OWN_PARENT}{digest[:32]}", idempotency_key=f"grade-{digest}")
        try:
            answer, data = await self._read(request)
            said = text("chat", data, stream=False)[:MOST_CHARS]
        except (WindlassError, *UNREADABLE) as exc:
            raise GraderFailed(f"the judge's model gave no answer: {exc}") from exc
        headers = answer.headers
        cost = 0 if "x-windlass-replayed" in headers else int(headers.get("x-windlass-cost-nusd", "0"))
        if answer.status >= 400:
            raise GraderFailed(f"the judge's model answered with status {answer.status}: {data[:200]!r}")
        return JudgeAnswer(said, headers.get("x-windlass-call", ""), headers.get("x-windlass-model", ""), cost)

    async def _read(self, request: Request) -> tuple[Answer, bytes]:
        """The answer to its end. What it cost is spent, whatever it said."""
        answer = await self._complete(request)
        try:
            data = b"".join([chunk async for chunk in answer.chunks])
        finally:
            await answer.chunks.aclose()
            outcome = answer.walked.outcome if answer.walked is not None else None
            if outcome is not None and outcome.cost_nusd:
                self._dearest_nusd = max(self._dearest_nusd, outcome.cost_nusd)
                await asyncio.to_thread(self._place.spend, self._judge, outcome.cost_nusd)
        return answer, data
