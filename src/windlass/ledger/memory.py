"""A ledger in a list: the public test double, held to the same contract as the databases."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from windlass.errors import ErrorCategory, LedgerError
from windlass.ledger import rows
from windlass.ledger.ledger import (
    EVERY_CALL,
    EVERY_DECISION,
    EVERY_FEEDBACK,
    SEARCHED,
    AllScopes,
    AnyScope,
    Body,
    CallFilter,
    CallTrace,
    DecisionFilter,
    Entry,
    FeedbackFilter,
    Item,
    Snapshot,
    Spend,
    StoredReply,
)
from windlass.ledger.retention import BASE, SNAPSHOTS_KEPT
from windlass.records import (
    Call,
    Decision,
    Erasure,
    Feedback,
    LedgerRecord,
    Outcome,
    Record,
    RunEvent,
    Scope,
    user_digest,
)

R = TypeVar("R", bound=Record)


class MemoryLedger:
    """A `Ledger` that forgets everything with its process."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._bodies: dict[tuple[Scope, str], Body] = {}
        self._known: set[tuple[type, Scope, str]] = set()
        self._snapshots: dict[tuple[str, int, int], Snapshot] = {}
        self._listeners: list[Callable[[], object]] = []
        self._sequence = itertools.count(1)
        self._closed = False
        self._lock = threading.RLock()

    async def append(self, *items: Item) -> int:
        return self.append_now(*items)

    def keep(self, *items: Item) -> asyncio.Future[int] | None:
        return asyncio.ensure_future(self.append(*items))

    def post(self, *items: Item) -> None:
        self.append_now(*items)

    def append_now(self, *items: Item) -> int:
        with self._lock:
            if self._closed:
                raise LedgerError("the ledger is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
            for item in items:
                if not isinstance(item, Body | Spend | StoredReply):
                    rows.to_row(item)
                if isinstance(item, Decision):
                    rows.context_row(item)
            for item in items:
                self._keep(item)
            head = self.head()
        for listener in self._listeners:
            listener()
        return head

    def on_commit(self, listener: Callable[[], object]) -> None:
        self._listeners.append(listener)

    def head(self) -> int:
        return self._entries[-1].seq if self._entries else 0

    def read(self, scope: AnyScope, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        found = (entry for entry in self._entries if entry.seq > after and _in(entry.record, scope))
        return list(itertools.islice(found, limit))

    def calls(
        self, scope: AnyScope, *, limit: int = 50, before: str = "", back_to: str = "", wanted: CallFilter = EVERY_CALL
    ) -> Sequence[CallTrace]:
        older = _older(self._of(Call, scope), before, back_to)
        return tuple(itertools.islice(filter(wanted.fits, map(self._trace, older)), limit))

    def decisions(
        self,
        scope: AnyScope,
        *,
        point: str = "",
        limit: int = 50,
        before: str = "",
        wanted: DecisionFilter = EVERY_DECISION,
    ) -> Sequence[Decision]:
        wanted = msgspec.structs.replace(wanted, point=point or wanted.point)
        older = _older(self._of(Decision, scope), before)
        return tuple(itertools.islice(filter(wanted.fits, older), limit))

    def feedback(
        self,
        scope: AnyScope,
        *,
        limit: int = 50,
        before: str = "",
        back_to: str = "",
        wanted: FeedbackFilter = EVERY_FEEDBACK,
    ) -> Sequence[Feedback]:
        older = _older(self._of(Feedback, scope), before, back_to)
        return tuple(itertools.islice(filter(wanted.fits, older), limit))

    def reach(
        self, scope: AnyScope, wanted: CallFilter | FeedbackFilter, *, before: str = "", records: int = SEARCHED
    ) -> Call | Feedback | None:
        if not wanted.text:
            return None
        found: list[Call] | list[Feedback]
        if isinstance(wanted, CallFilter):
            found = [call for call in _older(self._of(Call, scope), before) if wanted.user in ("", call.user)]
        else:
            said = _older(self._of(Feedback, scope), before)
            found = [one for one in said if wanted.target in ("", one.target)]
        return found[records - 1] if len(found) >= records else None

    def trace(self, scope: AnyScope, call: str) -> CallTrace | None:
        return next((self._trace(found) for found in self._of(Call, scope) if found.id == call), None)

    def calls_beneath(self, scope: Scope, target: str) -> Sequence[str]:
        calls = self._of(Call, scope)
        found: dict[str, None] = {}
        found.update({call.id: None for call in calls if call.id == target})
        wave = {target}
        while wave:
            wave = {call.id for call in calls if call.parent in wave and call.id not in found}
            found.update(dict.fromkeys(call.id for call in calls if call.id in wave))
        return tuple(found)

    def events(self, scope: AnyScope, run: str) -> Sequence[RunEvent]:
        return tuple(event for event in self._of(RunEvent, scope) if event.run == run)

    def bodies(self, scope: AnyScope, call: str) -> Sequence[Body]:
        found = [body for body in self._bodies.values() if body.call == call and _in(body, scope)]
        return tuple(sorted(found, key=lambda body: body.role, reverse=True))

    def erase(self, erasure: Erasure) -> int:
        theirs = self._calls_before(erasure)
        ids = self._made_for(theirs, erasure.scope)
        above = ids | self._only_above(theirs, erasure.scope)
        gone = [key for key, body in self._bodies.items() if body.call in above and body.scope == erasure.scope]
        decided = {made.id for made in self._of(Decision, erasure.scope) if made.call in above}
        above |= decided | {ended.id for ended in self._of(Outcome, erasure.scope) if ended.call in above}
        for key in gone:
            del self._bodies[key]
        changed = 0
        for at, (seq, record) in enumerate(self._entries):
            cleared = _cleared(record, ids, above) if record.scope == erasure.scope else record
            changed += cleared != record
            self._entries[at] = Entry(seq, cleared)
        return len(gone) + changed

    def _calls_before(self, erasure: Erasure) -> list[Call]:
        """The calls of the erasure's user that stand before it."""
        place = next((seq for seq, record in self._entries if record == erasure), 0)
        calls = [record for seq, record in self._entries if seq < place and isinstance(record, Call)]
        mine = [call for call in calls if call.scope == erasure.scope and call.user]
        return [call for call in mine if user_digest(call.scope, call.user) == erasure.user]

    def _made_for(self, theirs: Sequence[Call], scope: Scope) -> set[str]:
        """The ids of `theirs`, and of all that was called for them in nobody's name."""
        calls = self._of(Call, scope)
        ids = wave = {call.id for call in theirs}
        while wave:
            wave = {call.id for call in calls if call.parent in wave and not call.user} - ids
            ids = ids | wave
        return ids

    def _only_above(self, theirs: Sequence[Call], scope: Scope) -> set[str]:
        """What `theirs` were called for, without the calls of other users."""
        users = {call.user for call in theirs} | {""}
        others = {call.id for call in self._of(Call, scope) if call.user not in users}
        return {call.parent for call in theirs if call.parent} - others

    def prune(self, now: float) -> int:
        gone = [key for key, body in self._bodies.items() if body.expires_at <= now]
        for key in gone:
            del self._bodies[key]
        return len(gone)

    def has_contexts(self, before: float) -> bool:
        name = f"decision_{int(before * 1000):012x}"
        return any(made.context and made.id < name for _, made in self._entries if isinstance(made, Decision))

    def prune_contexts(self, before: float) -> int:
        gone = 0
        for place, (seq, record) in enumerate(self._entries):
            old = isinstance(record, Decision) and record.id < f"decision_{int(before * 1000):012x}"
            if old and isinstance(record, Decision) and record.context:
                self._entries[place] = Entry(seq, msgspec.structs.replace(record, context={}))
                gone += 1
        return gone

    def save_snapshot(self, snapshot: Snapshot) -> None:
        kept = self.snapshots(snapshot.projection, snapshot.version)
        base = max((old.cursor for old in kept if old.note == BASE), default=0)
        noted = any(old.cursor == snapshot.cursor and old.note for old in kept)
        if snapshot.cursor < base or (noted and snapshot.note != BASE):
            return
        self._snapshots[snapshot.projection, snapshot.version, snapshot.cursor] = snapshot
        routine = [old for old in self.snapshots(snapshot.projection, snapshot.version) if not old.note]
        for old in routine[:-SNAPSHOTS_KEPT]:
            del self._snapshots[old.projection, old.version, old.cursor]

    def rewrite_snapshot(self, snapshot: Snapshot) -> None:
        kept = self._snapshots[snapshot.projection, snapshot.version, snapshot.cursor]
        self._snapshots[kept.projection, kept.version, kept.cursor] = msgspec.structs.replace(
            kept, state=snapshot.state
        )

    def snapshot(
        self, projection: str, version: int, *, cursor: int | None = None, note: str | None = None
    ) -> Snapshot | None:
        fitting = [
            kept
            for kept in self.snapshots(projection, version)
            if cursor in (None, kept.cursor) and note in (None, kept.note)
        ]
        return self._snapshots[projection, version, fitting[-1].cursor] if fitting else None

    def snapshots(self, projection: str, version: int) -> Sequence[Snapshot]:
        found = (kept for kept in self._snapshots.values() if (kept.projection, kept.version) == (projection, version))
        bare = (msgspec.structs.replace(kept, state=b"") for kept in found)
        return sorted(bare, key=lambda kept: kept.cursor)

    def close(self) -> None:
        self._closed = True

    def _keep(self, item: Item) -> None:
        if isinstance(item, Spend | StoredReply):
            return  # only a database outlives the process that counts, or holds the place of a reply
        key = (type(item), item.scope, item.id)
        if key in self._known:
            return
        self._known.add(key)
        if isinstance(item, Body):
            self._bodies[item.scope, item.id] = item
        else:
            self._entries.append(Entry(next(self._sequence), item))

    def _of(self, kind: type[R], scope: AnyScope) -> list[R]:
        return [entry.record for entry in self._entries if isinstance(entry.record, kind) and _in(entry.record, scope)]

    def _trace(self, call: Call) -> CallTrace:
        ended = (outcome for outcome in self._of(Outcome, call.scope) if outcome.call == call.id)
        return CallTrace(
            call=call,
            decisions=tuple(d for d in self._of(Decision, call.scope) if d.call == call.id),
            outcome=next(ended, None),
            feedback=tuple(f for f in self._of(Feedback, call.scope) if f.target in (call.id, call.parent)),
        )


def _cleared(record: LedgerRecord, calls: set[str], above: set[str]) -> LedgerRecord:
    """`record` without what a forgotten user, who made `calls`, left in it."""
    match record:
        case Call() if record.id in calls:
            return msgspec.structs.replace(record, user="")
        case Decision() if record.call in above:
            return msgspec.structs.replace(record, context={})
        case Feedback() if record.target in above:
            return msgspec.structs.replace(record, comment="")
        case _:
            return record


def _in(record: Record, scope: AnyScope) -> bool:
    return isinstance(scope, AllScopes) or record.scope == scope


def _older(records: Sequence[R], before: str, back_to: str = "") -> Iterable[R]:
    """Newest first; after the record with id `before` and down to that with id `back_to`, nothing where there is no
    such record."""
    newest = list(reversed(records))
    ids = [record.id for record in newest]
    if (before and before not in ids) or (back_to and back_to not in ids):
        return ()
    first = ids.index(before) + 1 if before else 0
    return newest[first : ids.index(back_to) + 1 if back_to else None]
