"""Warm start: what a router would learn of in weeks by its own choices, it is told of at once, for money.

A fold over the ledger, off the path of every call: after a chat whose model was chosen among several, the same prompt
goes to all the others, once each. Their answers are calls of their own in the ledger, which graders look at as at any
other and the live policy learns from; no client sees them. It ends with the prompts or with the budget, whichever is
first, and goes on after a restart where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from windlass.errors import AccessError, LedgerError, ModelUnknown, RequestError
from windlass.gateway.route.options import RoutingOptions
from windlass.gateway.transit import Request
from windlass.improve.grading.cases import OWN_PARENT
from windlass.improve.warm.forced import InForce
from windlass.improve.warm.prompt import PARENT, AskedPrompt, parent_of, read
from windlass.improve.warm.store import WantedAnswer, WarmTable
from windlass.ledger import ids, retention
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, CallTrace, Ledger
from windlass.policies.loop import Loop
from windlass.records import Decision, Outcome, Scope

log = structlog.get_logger(__name__)
POINT: Final = "model"
EVERY_S: Final = 1.0
BACKOFF_S: Final = 5.0
READ: Final = 64
AT_ONCE: Final = 4
"""Answers that one process waits for side by side."""
LOOK_UP_S: Final = 600.0
"""So long it is looked for in the ledger what became of a call that ended without an answer."""
LATE_S: Final = 86_400.0
"""A prompt that is older is not asked again: what was live then may be so no more."""


class _AskedCall(NamedTuple):
    """A call that is asked again: its choice, its prompt, and whose it is."""

    made: Decision
    prompt: AskedPrompt
    user: str


class WarmStart:
    """Asks the other models what was asked of one. loop: the live policies; clock: UTC seconds.

    passed_over: since this process began, calls that were not asked again, and models that did not answer, by why.
    short: the last prompt did not fit into what is left of the budget.
    """

    def __init__(
        self,
        options: RoutingOptions,
        *,
        db: Database,
        ledger: Ledger,
        loop: Loop,
        in_force: Callable[[], InForce],
        clock: Callable[[], float],
    ):
        self.options = options
        self.table = WarmTable(db)
        self.passed_over: Counter[str] = Counter()
        self.short = False
        self._db = db
        self._ledger = ledger
        self._loop = loop
        self._in_force = in_force
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._done: set[Scope] = set()
        # What became of these is to be found in the ledger, where it may come late: until when it is looked for.
        self._open: dict[WantedAnswer, float] = {}

    @property
    def budget_nusd(self) -> int:
        """The most that all of it may spend."""
        return int(self.options.warm_start_budget_usd * 1e9)

    async def run(self) -> None:
        """Look at what ends, until cancelled. A ledger that cannot be read now is tried again."""
        begun = False
        while True:
            try:
                if not begun:
                    await asyncio.to_thread(self.begin)
                    begun = True
                began_s = time.monotonic()
                while await self.step():
                    # Calls come first in this process: it rests as long as it worked.
                    await asyncio.sleep(time.monotonic() - began_s)
                    began_s = time.monotonic()
                await asyncio.sleep(EVERY_S)
            except LedgerError as exc:
                log.error("warm_start_waits", reason=str(exc))
                await asyncio.sleep(BACKOFF_S)

    def begin(self) -> None:
        """Begin with what comes now where nothing was looked at before, and find out what became of what was asked."""
        self.table.begin(self._ledger.head())
        self._open |= dict.fromkeys(self.table.unsettled(), self._clock() + LOOK_UP_S)

    async def step(self) -> bool:
        """Look at the next entries of the ledger; whether there may be more to do now."""
        if self._open:
            await asyncio.to_thread(self._look_up)
        cursor = await asyncio.to_thread(self.table.cursor)
        entries = await asyncio.to_thread(lambda: self._ledger.read(ALL, after=cursor, limit=READ))
        for seq, record in entries:
            if isinstance(record, Outcome) and await self._looked(record):
                await asyncio.to_thread(self.table.move, seq)
        if entries:
            await asyncio.to_thread(self.table.move, entries[-1].seq)
        return len(entries) == READ

    async def _looked(self, outcome: Outcome) -> bool:
        """`look`, which no record that cannot be read may hold up."""
        try:
            return await self.look(outcome)
        except LedgerError:
            raise  # it is tried again
        except Exception as exc:  # noqa: BLE001 (what a stranger's record holds may raise anything)
            self.passed_over["failed"] += 1
            log.error("warm_start_failed", call=outcome.call, reason=f"{type(exc).__name__}: {exc}"[:500])
            return False

    async def look(self, outcome: Outcome) -> bool:
        """Ask the other models what that call asked, where it is one to learn from; whether any was asked."""
        if outcome.error or outcome.status >= 400 or ids.is_imported(outcome.call) or outcome.scope in self._done:
            return False
        if self._clock() - outcome.at > LATE_S:
            self.passed_over["late"] += 1
            return False
        found = await asyncio.to_thread(self._found, outcome)
        if isinstance(found, str):
            self.passed_over[found] += 1
            return False
        asked, models = found
        await asyncio.gather(*(self._asked(asked, model) for model in models))
        return True

    def _found(self, outcome: Outcome) -> tuple[_AskedCall, Sequence[str]] | str:
        """A choice, its prompt, and the models that are to answer it as well, now taken; or why there are none."""
        scope = outcome.scope
        if self.table.progress(scope).prompts >= self.options.warm_start_prompts:
            self._done.add(scope)
            return "done"
        trace = self._ledger.trace(scope, outcome.call)
        made = None if trace is None else self._chosen(trace)
        if trace is None or made is None:
            return "no_choice"
        bodies = {body.role: body.data for body in self._ledger.bodies(scope, outcome.call)}
        prompt = read(trace.call.endpoint, bodies["request"]) if "request" in bodies else "no_body"
        if isinstance(prompt, str):
            return prompt
        held = self._held(made, prompt)
        if not held:
            return "no_price"
        source, budget, now = outcome.call, self.budget_nusd, self._clock()
        models = self.table.claim(scope, prompt.digest, source, held, budget, now)
        self.short = models is None
        if models is None:
            return "budget"
        return (_AskedCall(made, prompt, trace.call.user), models) if models else "asked_before"

    def _chosen(self, trace: CallTrace) -> Decision | None:
        """The live choice among several that the policy in force made in a call of a client; None without one. What
        judges ask is no client's, and nobody grades it."""
        scope, policy = trace.call.scope, self._loop.ids.get(POINT)
        if trace.call.parent.startswith((PARENT, OWN_PARENT)) or self._loop.mode(POINT, scope) != "live":
            return None
        made = (one for one in trace.decisions if one.point == POINT and one.live and one.policy == policy)
        return next((one for one in made if len(one.actions) > 1 and one.context), None)

    def _held(self, made: Decision, prompt: AskedPrompt) -> dict[str, int]:
        """What each other model's answer may cost at most. All of them, or none where the price of one is unknown: what
        is told of some models alone is no comparison."""
        others = [model for model in made.actions if model != made.action]
        in_force = self._in_force()
        costs = {model: in_force.most_nusd(model, prompt) for model in others}
        known = {model: cost for model, cost in costs.items() if cost is not None}
        return known if len(known) == len(costs) else {}

    async def _asked(self, asked: _AskedCall, model: str) -> None:
        """Ask one model, and book what that cost."""
        made, prompt = asked.made, asked.prompt
        wanted = WantedAnswer(made.scope, prompt.digest, model, made.call)
        parent = parent_of(made.scope, prompt.digest, model)
        request = Request(prompt.body(model, asked.user), endpoint=prompt.endpoint, scope=made.scope, parent=parent)
        async with self._turns:
            try:
                # It was read before the wait; it would bring a forgotten user's words back, as a new call.
                if await asyncio.to_thread(retention.forgotten, self._db, made.scope, made.call):
                    await asyncio.to_thread(self.table.release, wanted)
                    return
                cost_nusd = await self._answered(request, made)
                await asyncio.to_thread(self.table.settle, wanted, cost_nusd)
            except (RequestError, AccessError, ModelUnknown) as exc:  # before anybody was asked
                self.passed_over["refused"] += 1
                log.warning("warm_start_refused", model=model, reason=str(exc))
                await asyncio.to_thread(self.table.release, wanted)
            except Exception as exc:  # a stranger's provider may raise anything; the others are asked
                self._open[wanted] = self._clock() + LOOK_UP_S
                if isinstance(exc, LedgerError):
                    raise
                self.passed_over["failed"] += 1
                log.warning("warm_start_failed", model=model, reason=f"{type(exc).__name__}: {exc}"[:500])

    async def _answered(self, request: Request, made: Decision) -> int:
        """What an answer cost, once all of it is there; nobody reads it but graders, from the ledger."""
        answer = await self._in_force().ask(request, made, self._ledger, self._clock)
        try:
            async for _ in answer.chunks:
                pass
        finally:
            await answer.chunks.aclose()
        outcome = answer.transit.outcome
        return 0 if outcome is None else outcome.cost_nusd

    def _look_up(self) -> None:
        """Book by the ledger what answers cost of which nothing else is known. Where nothing is there either, what they
        may have cost stays held, and nobody asks again."""
        for wanted, until in list(self._open.items()):
            scope, model = wanted.scope, wanted.model
            beneath = self._ledger.calls_beneath(scope, parent_of(scope, wanted.prompt, model))
            outcomes = [trace.outcome for call in beneath if (trace := self._ledger.trace(scope, call)) is not None]
            known = [outcome for outcome in outcomes if outcome is not None]
            for outcome in known:
                self.table.settle(wanted, outcome.cost_nusd)
            if known or self._clock() > until:
                del self._open[wanted]
