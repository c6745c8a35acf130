"""Past calls become records: those that are new, in the order of their times, each with all that belongs to it.

A call, its outcome and its bodies are one append, so a kill leaves whole calls, and the next import goes on there. No
Decision, no Spend: nothing is taught to a policy, and no budget is used up by what was paid elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from windlass.gateway.history import past as pasts
from windlass.gateway.history.past import Past, PastWord
from windlass.gateway.history.store import Present
from windlass.gateway.options import GatewayOptions
from windlass.ledger import retention
from windlass.ledger.db import Database
from windlass.ledger.ledger import Item, Ledger
from windlass.records import USER_CHARS, Feedback, Scope, user_digest


class Intake(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch. Calls and feedback apart; skipped: why and how many."""

    imported: int = 0
    already: int = 0
    said: int = 0
    said_already: int = 0
    skipped: dict[str, int] = {}


class Taking:
    """Takes past calls into one scope. dry: look, and write nothing."""

    def __init__(self, db: Database, ledger: Ledger, options: GatewayOptions, scope: Scope, *, dry: bool = False):
        self._db = db
        self._ledger = ledger
        self._options = options
        self._scope = scope
        self._dry = dry
        self._present = Present(db, scope)

    async def take(self, calls: Sequence[Past], words: Sequence[PastWord], now: float) -> Intake:
        """Write what is new of `calls`, then of `words`. Committed when this returns; `now` in UTC seconds."""
        skipped: dict[str, int] = defaultdict(int)
        named = {pasts.call_id(self._scope, one): one for one in reversed(calls)}
        there = await asyncio.to_thread(self._present.calls, named)
        fresh = [one for name, one in named.items() if name not in there]
        wanted = await asyncio.to_thread(self._remembered, fresh)
        if len(wanted) < len(fresh):
            skipped["forgotten_user"] = len(fresh) - len(wanted)
        if not self._dry:
            await self._write(wanted, now)
        said, said_already = await self._say(words, skipped)
        return Intake(
            imported=len(wanted),
            already=len(calls) - len(fresh),
            said=said,
            said_already=said_already,
            skipped=dict(skipped),
        )

    def _remembered(self, calls: Sequence[Past]) -> list[Past]:
        """Without those of users who have been forgotten since."""
        users = {one.user for one in calls if one.user}
        digests = {user: user_digest(self._scope, user[:USER_CHARS]) for user in users}
        gone = self._present.forgotten(list(digests.values())) if digests else {}
        return [one for one in calls if not (one.user and one.at <= gone.get(digests[one.user], 0.0))]

    async def _write(self, calls: Sequence[Past], now: float) -> None:
        ordered = sorted(calls, key=lambda one: one.at)
        if ordered:
            await self._ledger.append(*(item for one in ordered for item in self._items(one, now)))

    def _items(self, one: Past, now: float) -> list[Item]:
        call = pasts.call_of(self._scope, one)
        keeps = self._options.keep_bodies
        bodies = pasts.bodies_of(call, one, now, self._options.body_retention_days) if keeps else ()
        return [call, pasts.outcome_of(call, one), *bodies]

    async def _say(self, words: Sequence[PastWord], skipped: dict[str, int]) -> tuple[int, int]:
        """(feedback that is new, feedback that was there)."""
        named = {pasts.word_id(self._scope, one): one for one in reversed(words)}
        there = await asyncio.to_thread(self._present.feedback, named)
        fresh = [one for name, one in named.items() if name not in there]
        if self._dry:
            return len(fresh), len(words) - len(fresh)
        groups = {(one.program, one.group): pasts.group_id(self._scope, one.program, one.group) for one in fresh}
        calls = await asyncio.to_thread(self._present.calls_of, set(groups.values()) - {""})
        items: list[Item] = []
        for one in fresh:
            group = groups[one.program, one.group]
            beneath = calls.get(group, {})
            # A score of a step that calls no model is told of the trace, and so of all calls in it.
            target = beneath.get(one.target) or (group if beneath else "")
            if target:
                items.append(await asyncio.to_thread(self._feedback, one, target))
            else:
                skipped["no_such_call"] += 1
        if items:
            await self._ledger.append(*items)
        return len(items), len(words) - len(fresh)

    def _feedback(self, one: PastWord, target: str) -> Feedback:
        """What is said of a forgotten user's call counts, but its words are dropped."""
        record = pasts.feedback_of(self._scope, one, target)
        silenced = one.comment and retention.forgotten(self._db, self._scope, target)
        return msgspec.structs.replace(record, comment="") if silenced else record
