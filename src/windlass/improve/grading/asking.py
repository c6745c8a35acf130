"""How judges ask models: through the gateway, as recorded calls of the tenant whose call is graded, within a budget.

The question's digest is its idempotency key, so the same question about the same reply is answered from the gateway's
store (`gateway.idempotency_hours`) and billed once. A judge's calls carry the user of the graded call, so that
forgetting that user deletes them too, and a parent of the kind `grade_`, by which nobody grades them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from windlass.errors import (
    AccessError,
    ErrorCategory,
    ModelUnknown,
    RequestError,
    UpstreamError,
    WindlassError,
    classify,
)
from windlass.gateway.dialects.readers import UNREADABLE
from windlass.gateway.transit import Answer, Request
from windlass.improve.grading.cases import OWN_PARENT, text
from windlass.improve.grading.grader import GraderFailed, JudgeAnswer
from windlass.improve.grading.store import GradingPlace
from windlass.records import Scope

Complete = Callable[[Request], Awaitable[Answer]]
MOST_CHARS: Final = 100_000
UNKNOWN_SHARE: Final = 100
"""What may have cost something counts as this part of a day's budget, as long as no answer has shown a price."""
_UNREACHED: Final = frozenset(
    {
        ErrorCategory.URL_INVALID,
        ErrorCategory.DNS_FAILED,
        ErrorCategory.CONNECT_TIMEOUT,
        ErrorCategory.CONNECT_REFUSED,
        ErrorCategory.HOST_UNREACHABLE,
        ErrorCategory.PROXY_FAILED,
        ErrorCategory.TLS_FAILED,
    }
)


class OverBudget(GraderFailed):
    """The judge has spent what it may in this UTC day."""


class Asking:
    """Asks for one judge. complete: the gateway in force. limit_nusd: what it may spend in a UTC day.

    The dearest answer so far must still fit in, and so much a question counts that ended without an answer, since a
    model may have worked on it all the same.
    """

    def __init__(self, judge: str, complete: Complete, place: GradingPlace, limit_nusd: int):
        self._judge = judge
        self._complete = complete
        self._place = place
        self._limit_nusd = limit_nusd
        self._dearest_nusd: int | None = None

    async def ask(self, scope: Scope, body: bytes, digest: str) -> JudgeAnswer:
        """The model's answer. GraderFailed where there is none, OverBudget before anything is asked."""
        spent = await asyncio.to_thread(self._place.spent_nusd, self._judge)
        if spent + (self._dearest_nusd or 0) > self._limit_nusd or spent >= self._limit_nusd:
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
        """The answer to its end. What it cost is spent, whatever it said; where nobody knows, what it may have cost."""
        try:
            answer = await self._complete(request)
        except BaseException as exc:  # cancelled at the time limit, too
            if _may_cost(exc):
                await asyncio.shield(self._spend(self._unknown_nusd()))
            raise
        try:
            data = b"".join([chunk async for chunk in answer.chunks])
        finally:
            await answer.chunks.aclose()
            outcome = answer.walked.outcome if answer.walked is not None else None
            if outcome is not None and (outcome.cost_nusd or answer.status < 400):
                self._dearest_nusd = max(self._dearest_nusd or 0, outcome.cost_nusd)
                await self._spend(outcome.cost_nusd)
        return answer, data

    async def _spend(self, nusd: int) -> None:
        if nusd:
            await asyncio.to_thread(self._place.spend, self._judge, nusd)

    def _unknown_nusd(self) -> int:
        """What a question may have cost that brought no answer."""
        return self._limit_nusd // UNKNOWN_SHARE if self._dearest_nusd is None else self._dearest_nusd


def _may_cost(exc: BaseException) -> bool:
    """Whether a model may have worked on a question that ended so: not where nobody was asked, or it was refused."""
    match exc:
        case RequestError() | AccessError() | ModelUnknown():
            return False
        case UpstreamError():
            return exc.status is None and classify(exc) not in _UNREACHED
        case _:
            return True
