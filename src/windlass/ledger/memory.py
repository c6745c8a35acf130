"""A ledger in a list: the public test double, held to the same contract as the databases."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from windlass.errors import ErrorCategory, LedgerError
from windlass.ledger import rows
from windlass.ledger.ledger import AllScopes, AnyScope, Body, CallTrace, Entry, Snapshot
from windlass.records import Call, Decision, Feedback, LedgerRecord, Outcome, Record, RunEvent, Scope

R = TypeVar("R", bound=Record)


class MemoryLedger:
    """A `Ledger` that forgets everything with its process."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._bodies: dict[tuple[Scope, str], Body] = {}
        self._known: set[tuple[type, Scope, str]] = set()
        self._snapshots: dict[tuple[str, int], Snapshot] = {}
        self._listeners: list[Callable[[], object]] = []
        self._sequence = itertools.count(1)
        self._closed = False
        self._lock = threading.RLock()

    async def append(self, *items: LedgerRecord | Body) -> int:
        return self.append_now(*items)

    def post(self, *items: LedgerRecord | Body) -> None:
        self.append_now(*items)

    def append_now(self, *items: LedgerRecord | Body) -> int:
        with self._lock:
            if self._closed:
                raise LedgerError("the ledger is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
            for item in items:
                if not isinstance(item, Body):
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

    def calls(self, scope: AnyScope, *, limit: int = 50, before: str = "") -> Sequence[CallTrace]:
        return tuple(self._trace(call) for call in _page(self._of(Call, scope), before, limit))

    def decisions(self, scope: AnyScope, *, point: str = "", limit: int = 50, before: str = "") -> Sequence[Decision]:
        found = [decision for decision in self._of(Decision, scope) if point in ("", decision.point)]
        return tuple(_page(found, before, limit))

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

    def forget(self, scope: Scope, *, user: str) -> int:
        theirs = {call.id for call in self._of(Call, scope) if call.user == user}
        gone = [key for key, body in self._bodies.items() if body.call in theirs and body.scope == scope]
        for key in gone:
            del self._bodies[key]
        count = len(gone)
        for place, entry in enumerate(self._entries):
            record = entry.record
            if isinstance(record, Decision) and record.call in theirs and record.scope == scope and record.context:
                self._entries[place] = Entry(entry.seq, msgspec.structs.replace(record, context={}))
                count += 1
        return count

    def prune(self, now: float) -> int:
        gone = [key for key, body in self._bodies.items() if body.expires_at <= now]
        for key in gone:
            del self._bodies[key]
        return len(gone)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        key = (snapshot.projection, snapshot.version)
        if key not in self._snapshots or self._snapshots[key].cursor <= snapshot.cursor:
            self._snapshots[key] = snapshot

    def snapshot(self, projection: str, version: int) -> Snapshot | None:
        return self._snapshots.get((projection, version))

    def close(self) -> None:
        self._closed = True

    def _keep(self, item: LedgerRecord | Body) -> None:
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


def _in(record: Record, scope: AnyScope) -> bool:
    return isinstance(scope, AllScopes) or record.scope == scope


def _page(records: Sequence[R], before: str, limit: int) -> Iterable[R]:
    """Newest first; after the record with id `before`, nothing where there is no such record."""
    newest = list(reversed(records))
    if before:
        places = [place for place, record in enumerate(newest) if record.id == before]
        newest = newest[places[0] + 1 :] if places else []
    return newest[:limit]
