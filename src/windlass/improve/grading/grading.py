"""Grading: finished calls are looked at off the path of every call, and what graders say becomes feedback.

A fold over the ledger whose place is kept: each outcome is looked at once, by one worker of a database, and what was
looked at twice after a crash is the same feedback by its id. A grader that fails, hangs or lies outside [0, 1] is
counted and shown; it touches no call and stops no other grader.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import structlog

from windlass.errors import InputError, LedgerError
from windlass.gateway.feedback import FeedbackRequest
from windlass.improve.grading.answers import KnownAnswers
from windlass.improve.grading.apart import apart
from windlass.improve.grading.asking import Asking, Complete, OverBudget
from windlass.improve.grading.cases import LOOK_BACK_S, earlier, informed, look
from windlass.improve.grading.check import checked
from windlass.improve.grading.grader import Case, Grade, GraderFailed, Judge, Skipped, Verdict
from windlass.improve.grading.judged import Noting, said_of
from windlass.improve.grading.measuring import Measuring
from windlass.improve.grading.panel import MOST_HUNG, Seat
from windlass.improve.grading.store import GradingPlace
from windlass.ledger import ids, retention
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, CallTrace, Ledger
from windlass.records import Call, Feedback, LedgerRecord, Outcome, Scope

log = structlog.get_logger(__name__)
EVERY_S: Final = 1.0
READ: Final = 64
"""Entries of the ledger in one go. After each go it rests as long as that took: calls come first in this process."""
AT_ONCE: Final = 16
"""Calls that are looked at side by side."""
BACKOFF_S: Final = 5.0
HOLD_S: Final = 10.0


class Say(Protocol):
    """The door of all feedback: checks and keeps it, and returns what was kept."""

    def __call__(
        self, scope: Scope, said: FeedbackRequest, extra: Mapping[str, Any] | None = None
    ) -> Awaitable[Feedback]: ...


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What one grader said of a call: `value` is None where it said nothing, and `why` tells the reason either way.

    raw: the value before it was calibrated. new: whether it was not in the ledger already. cost_nusd: what it took.
    """

    grader: str
    call: str
    value: float | None
    raw: float | None
    why: str
    new: bool = False
    cost_nusd: int = 0


class Grading:
    """Grades by the graders of the settings. complete: the gateway in force; say: the door of feedback."""

    def __init__(
        self,
        seats: Sequence[Seat],
        *,
        db: Database,
        ledger: Ledger,
        complete: Complete,
        say: Say,
        clock: Callable[[], float],
    ):
        self.seats = tuple(seats)
        self.measuring = Measuring(ledger, clock)
        self._db = db
        self._ledger = ledger
        self._say = say
        self._place = GradingPlace(db, clock)
        self._looking = threading.Lock()
        self._asking = {
            seat.metric: Asking(seat.metric, complete, self._place, int(seat.options.daily_usd * 1e9))
            for seat in self.seats
        }

    async def run(self) -> None:
        """Look at what ends, until cancelled. A ledger that cannot be read now is tried again."""
        begun = False
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                began_s = time.monotonic()
                try:
                    if not begun:
                        await asyncio.to_thread(self.begin)
                        begun = True
                    while await self.step():
                        await asyncio.sleep(time.monotonic() - began_s)
                        began_s = time.monotonic()
                except LedgerError as exc:
                    log.error("grading_waits", reason=str(exc))
                    await asyncio.sleep(BACKOFF_S)
        finally:
            self._place.leave()

    def begin(self) -> None:
        """Where nothing was ever graded here, begin with what comes now."""
        self._place.begin(self._ledger.head())

    async def step(self) -> bool:
        """Look at the next entries of the ledger; whether there may be more to do now."""
        if not await asyncio.to_thread(self._place.take):
            return False
        holding = asyncio.create_task(self._holding())
        try:
            return await self._batch()
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)

    async def _holding(self) -> None:
        """Keep the turn, however long judges take."""
        while True:
            await asyncio.sleep(HOLD_S)
            await asyncio.to_thread(self._place.take)

    async def _batch(self) -> bool:
        """The next entries, side by side, each part noted once it is looked at."""
        seen = await asyncio.to_thread(self._place.cursor)
        entries = await asyncio.to_thread(partial(self._ledger.read, ALL, after=seen, limit=READ))
        for at in range(0, len(entries), AT_ONCE):
            part = entries[at : at + AT_ONCE]
            begun = {(one.record.scope, one.record.id): one.record for one in part if isinstance(one.record, Call)}
            ended = await asyncio.gather(*(self._entry(one.record, begun) for one in part), return_exceptions=True)
            for exc in filter(None, ended):
                raise exc  # once all of them have ended: the ledger cannot be read or written
            if not await asyncio.to_thread(self._place.move, seen, part[-1].seq):
                return False  # another worker has taken the turn meanwhile
            seen = part[-1].seq
        return len(entries) == READ

    async def _entry(self, record: LedgerRecord, begun: Mapping[tuple[Scope, str], Call]) -> None:
        """One record, looked at; begun: the calls beside it. What other programs logged is graded when asked for."""
        try:
            match record:
                case Outcome() as outcome if not ids.is_imported(outcome.call):
                    call = begun.get((outcome.scope, outcome.call))
                    trace = CallTrace(call=call, decisions=(), outcome=outcome, feedback=()) if call else None
                    await self.grade(outcome.scope, outcome.call, trace=trace)
                case Feedback(kind="correction") as said if said.comment and said.source in ("user", "manager"):
                    await self.grade(said.scope, said.target, correction=said.comment)
                case _:
                    pass
        except LedgerError:
            raise  # it is tried again, where one record that cannot be graded would hold up all after it
        except Exception as exc:  # noqa: BLE001 (what a stranger's record holds may raise anything)
            log.error("grading_failed", record=record.id, reason=f"{type(exc).__name__}: {exc}")

    async def grade(
        self,
        scope: Scope,
        call: str,
        *,
        wanted: Collection[str] = (),
        answers: KnownAnswers | None = None,
        correction: str = "",
        dry: bool = False,
        trace: CallTrace | None = None,
    ) -> list[Given]:
        """Ask the graders about one call of `scope`; those in `wanted`, or all whose share it is in.

        answers: in place of the graders' own. correction: ask those that compare with it. dry: give no feedback.
        trace: of the call, where it is at hand.
        Nothing comes of a call that the scope does not hold. InputError for a grader that there is not.
        """
        asked = self._asked(call, wanted, correction=bool(correction))
        if asked and trace is None:
            trace = await asyncio.to_thread(self._ledger.trace, scope, call)
        if trace is None or not asked:
            return []
        kept = {said.id for said in trace.feedback}
        looked: Case | Skipped | None = None
        found: list[Given] = []
        for seat in asked:
            if seat.grade_id(scope, call) in kept:
                found.append(Given(grader=seat.metric, call=call, value=None, raw=None, why="graded_before"))
                continue
            if looked is None:
                looked = await asyncio.to_thread(self._looked, trace)
            case = informed(looked, answers or seat.answers)
            found.append(await self._given(seat, trace, case, correction, dry))
        return found

    def _looked(self, trace: CallTrace) -> Case | Skipped:
        """One at a time: a reply may have 64 megabytes, of which none that is so long is kept."""
        with self._looking:
            return look(self._ledger, trace)

    def require(self, wanted: Collection[str]) -> list[Seat]:
        """The graders of these names; all without any. InputError for one that there is not."""
        known = {seat.metric for seat in self.seats}
        if unknown := sorted(set(wanted) - known):
            raise InputError(f"there is no grader {', '.join(unknown)[:200]}; known: {', '.join(sorted(known))}")
        return [seat for seat in self.seats if not wanted or seat.metric in wanted]

    def spent_nusd(self, grader: str) -> int:
        """What a judge has spent in this UTC day, all workers and tenants together."""
        return self._place.spent_nusd(grader)

    def _asked(self, call: str, wanted: Collection[str], *, correction: bool) -> list[Seat]:
        fitting = [seat for seat in self.require(wanted) if (seat.grader.on == "correction") is correction]
        return [seat for seat in fitting if wanted or seat.wants(call)]

    async def _given(self, seat: Seat, trace: CallTrace, case: Case | Skipped, correction: str, dry: bool) -> Given:
        """One grader's word on a call, counted, and given as feedback where it is one."""
        verdict = case if isinstance(case, Skipped) else await self._verdict(seat, case, correction)
        match verdict:
            case Skipped(why=why):
                seat.skip(why)
                return Given(grader=seat.metric, call=trace.call.id, value=None, raw=None, why=why)
            case str():
                if seat.fail(verdict):  # a grader that fails at every call for one reason says so once
                    log.warning("grader_failed", grader=seat.metric, call=trace.call.id, reason=verdict)
                return Given(grader=seat.metric, call=trace.call.id, value=None, raw=None, why=f"failed: {verdict}")
            case Grade():
                seat.spent_nusd += verdict.cost_nusd
                return await self._fed_back(seat, trace, verdict, dry)

    async def _verdict(self, seat: Seat, case: Case, correction: str) -> Verdict | str:
        """What a grader says; a sentence where it failed."""
        if seat.hung >= MOST_HUNG:
            return Skipped(why="hung")
        try:
            if seat.grader.on == "correction":
                case = msgspec.structs.replace(case, correction=correction)
            elif seat.grader.on == "next":
                before = await asyncio.to_thread(earlier, self._ledger, case.call, LOOK_BACK_S)
                if not before:
                    return Skipped(why="nothing_before")
                case = msgspec.structs.replace(case, earlier=before)
            verdict = checked(await self._said(seat, case))
            if isinstance(verdict, Grade) and verdict.target not in _own(case):
                return f"it graded {verdict.target[:100]!r}, which is not the call that it was asked about"
            return verdict
        except OverBudget:
            return Skipped(why="budget")
        except TimeoutError:
            return f"no verdict within {seat.options.timeout_s:g} s; raise graders.{seat.metric}.timeout_s"
        except LedgerError:
            raise
        except Exception as exc:  # noqa: BLE001 (a grader may be a stranger's; it must touch neither calls nor others)
            return str(exc) if isinstance(exc, GraderFailed) else f"{type(exc).__name__}: {exc}"[:500]

    async def _said(self, seat: Seat, case: Case) -> Verdict:
        grader, limit_s = seat.grader, seat.options.timeout_s
        if isinstance(grader, Judge):
            async with seat.turn, asyncio.timeout(limit_s):  # one question at a time, so that a budget holds
                # It was read before the wait; a question would bring a forgotten user's words back, as a new call.
                if await asyncio.to_thread(retention.forgotten, self._db, case.call.scope, case.call.id):
                    return Skipped(why="forgotten")
                asked = Noting(partial(self._asking[seat.metric].ask, case.call.scope))
                try:
                    verdict = await grader.judge(case, asked)
                except GraderFailed:
                    await self._judged(case.call.scope, asked, failed=True)
                    raise
            await self._judged(case.call.scope, asked, failed=False)
            return verdict
        return await apart(partial(grader.grade, case), limit_s, seat.left)

    async def _judged(self, scope: Scope, asked: Noting, *, failed: bool) -> None:
        """Say of a judge's calls whether their verdicts could be read, where a policy chose who was asked."""
        for call, readable in asked.readable(failed=failed):
            told = await asyncio.to_thread(partial(said_of, self._ledger, scope, call, readable=readable))
            if told is not None:
                await self._say(scope, told)

    async def _fed_back(self, seat: Seat, trace: CallTrace, grade: Grade, dry: bool) -> Given:
        """The grade as feedback on the call, through the door that all feedback takes."""
        call = trace.call
        target = grade.target or call.id
        value, labels = float(grade.value), 0
        if isinstance(seat.grader, Judge):
            value, labels = await asyncio.to_thread(self.measuring.calibrated, call.scope, seat, value)
        kept = target != call.id and await asyncio.to_thread(self._kept, seat, call.scope, target)
        told = Given(
            grader=seat.metric,
            call=target,
            value=value,
            raw=float(grade.value),
            why=grade.reason,
            new=not dry and not kept,
            cost_nusd=grade.cost_nusd,
        )
        if not told.new:
            return told
        said = FeedbackRequest(
            id=seat.grade_id(call.scope, target),
            target=target,
            kind="rating",
            source=seat.grader.source,
            metric=seat.metric,
            value=value,
            comment=grade.reason,
        )
        about = {"grader": seat.id, "raw": float(grade.value), "cost_nusd": grade.cost_nusd, "labels": labels}
        await self._say(call.scope, said, about)
        seat.given += 1
        return told

    def _kept(self, seat: Seat, scope: Scope, call: str) -> bool:
        """Whether the grader's word on a call is in the ledger."""
        trace = self._ledger.trace(scope, call)
        return trace is None or any(said.id == seat.grade_id(scope, call) for said in trace.feedback)


def _own(case: Case) -> set[str]:
    """The calls that a grader may speak of when it is asked about this one."""
    return {"", case.call.id, *(one.call for one in case.earlier)}
