"""The ledger on a database: typed append-only tables, one sequence, group commit."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from windlass.ledger import rows, schema
from windlass.ledger.commit import GroupCommit
from windlass.ledger.db import Database
from windlass.ledger.ledger import AllScopes, AnyScope, Body, CallTrace, Entry, Snapshot
from windlass.records import KINDS, Call, Decision, Feedback, LedgerRecord, Outcome, Record, RunEvent, Scope

SNAPSHOTS_KEPT = 5
_Pending = tuple[sa.Table, rows.Row]
R = TypeVar("R", bound=Record)


class SqlLedger:
    """A `Ledger` in a migrated `Database`. Appending validates in the caller; the writer thread only commits."""

    def __init__(self, db: Database):
        self._db = db
        self._listeners: list[Callable[[], object]] = []
        self._inserts: dict[sa.Table, Any] = {t: db.insert_new(t, "tenant", "workspace", "id") for t in _APPENDED}
        self._inserts[schema.contexts] = db.insert_new(schema.contexts, "tenant", "workspace", "decision")
        self._group = GroupCommit[_Pending](self._commit)

    async def append(self, *items: LedgerRecord | Body) -> int:
        return await asyncio.wrap_future(self._group.submit(_pending(items), durable=True))

    def post(self, *items: LedgerRecord | Body) -> None:
        self._group.submit(_pending(items), durable=False)

    def append_now(self, *items: LedgerRecord | Body) -> int:
        """`append` for a plain thread, such as a workflow step: block until committed."""
        return self._group.submit(_pending(items), durable=True).result()

    def on_commit(self, listener: Callable[[], object]) -> None:
        self._listeners = [*self._listeners, listener]

    def head(self) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(_HEAD) or 0)

    def read(self, scope: AnyScope, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        found: list[Entry] = []
        with self._db.read() as connection:
            for kind in KINDS.values():
                table = rows.TABLES[kind]
                query = _select(kind).where(table.c.seq > after, *_owner(table, scope)).order_by(table.c.seq)
                for row in connection.execute(query.limit(limit)).mappings():
                    found.append(Entry(row["seq"], rows.from_row(kind, dict(row))))
        found.sort(key=lambda entry: entry.seq)
        return found[:limit]

    def calls(self, scope: AnyScope, *, limit: int = 50, before: str = "") -> Sequence[CallTrace]:
        table = schema.calls
        query = _select(Call).where(*_owner(table, scope), *_older(table, scope, before)).order_by(table.c.seq.desc())
        with self._db.read() as connection:
            return _traces(connection, _records(connection, Call, query.limit(limit)))

    def decisions(self, scope: AnyScope, *, point: str = "", limit: int = 50, before: str = "") -> Sequence[Decision]:
        table = schema.decisions
        query = _select(Decision).where(*_owner(table, scope), *_older(table, scope, before))
        if point:
            query = query.where(table.c.point == point)
        with self._db.read() as connection:
            return _records(connection, Decision, query.order_by(table.c.seq.desc()).limit(limit))

    def trace(self, scope: AnyScope, call: str) -> CallTrace | None:
        table = schema.calls
        with self._db.read() as connection:
            found = _records(connection, Call, _select(Call).where(table.c.id == call, *_owner(table, scope)))
            return next(iter(_traces(connection, found)), None)

    def calls_beneath(self, scope: Scope, target: str) -> Sequence[str]:
        table = schema.calls
        found: dict[str, None] = {}
        with self._db.read() as connection:
            itself = sa.select(table.c.id).where(table.c.id == target, *_owner(table, scope))
            found |= dict.fromkeys(connection.scalars(itself))
            wave = [target]
            while wave:
                below = sa.select(table.c.id).where(table.c.parent.in_(wave), *_owner(table, scope))
                wave = [call for call in connection.scalars(below) if call not in found]
                found |= dict.fromkeys(wave)
        return tuple(found)

    def events(self, scope: AnyScope, run: str) -> Sequence[RunEvent]:
        table = schema.run_events
        query = _select(RunEvent).where(table.c.run == run, *_owner(table, scope)).order_by(table.c.seq)
        with self._db.read() as connection:
            return _records(connection, RunEvent, query)

    def bodies(self, scope: AnyScope, call: str) -> Sequence[Body]:
        table = schema.bodies
        query = sa.select(table).where(table.c.call == call, *_owner(table, scope)).order_by(table.c.role.desc())
        with self._db.read() as connection:
            return tuple(Body(**row) for row in connection.execute(query).mappings())

    def forget(self, scope: Scope, *, user: str) -> int:
        table, gone = schema.calls, 0
        theirs = sa.select(table.c.id).where(table.c.user == user, *_owner(table, scope))
        decided = sa.select(schema.decisions.c.id).where(
            schema.decisions.c.call.in_(theirs), *_owner(schema.decisions, scope)
        )
        with self._db.write() as connection:
            for side, condition in (
                (schema.bodies, schema.bodies.c.call.in_(theirs)),
                (schema.contexts, schema.contexts.c.decision.in_(decided)),
            ):
                gone += connection.execute(sa.delete(side).where(condition, *_owner(side, scope))).rowcount
        return gone

    def prune(self, now: float) -> int:
        with self._db.write() as connection:
            return connection.execute(sa.delete(schema.bodies).where(schema.bodies.c.expires_at <= now)).rowcount

    def save_snapshot(self, snapshot: Snapshot) -> None:
        table = schema.snapshots
        row = {name: getattr(snapshot, name) for name in snapshot.__struct_fields__}
        same = (table.c.projection == snapshot.projection, table.c.version == snapshot.version)
        kept = sa.select(table.c.cursor).where(*same).order_by(table.c.cursor.desc()).limit(SNAPSHOTS_KEPT)
        with self._db.write() as connection:
            connection.execute(self._db.replace(table, "projection", "version", "cursor"), row)
            connection.execute(sa.delete(table).where(*same, table.c.cursor.not_in(kept)))

    def snapshot(self, projection: str, version: int) -> Snapshot | None:
        table = schema.snapshots
        query = sa.select(table).where(table.c.projection == projection, table.c.version == version)
        with self._db.read() as connection:
            row = connection.execute(query.order_by(table.c.cursor.desc()).limit(1)).mappings().first()
        return Snapshot(**row) if row else None

    def close(self) -> None:
        self._group.close()

    def _commit(self, batch: Sequence[_Pending]) -> int:
        """One transaction: take `n` places in the sequence, insert by table in batches."""
        grouped: dict[sa.Table, list[rows.Row]] = defaultdict(list)
        placed = sum("seq" in table.c for table, _ in batch)
        with self._db.write() as connection:
            head = int(connection.scalar(_TAKE, {"n": placed}) or 0)
            place = head - placed
            for table, row in batch:
                if "seq" in table.c:
                    place += 1
                    row["seq"] = place
                grouped[table].append(row)
            for table, values in grouped.items():
                connection.execute(self._inserts[table], values)
        for listener in self._listeners:
            listener()
        return head


_APPENDED = (*rows.TABLES.values(), schema.bodies)
_HEAD = sa.select(schema.heads.c.value).where(schema.heads.c.name == "ledger")
_TAKE = (
    sa.update(schema.heads)
    .where(schema.heads.c.name == "ledger")
    .values(value=schema.heads.c.value + sa.bindparam("n"))
    .returning(schema.heads.c.value)
)


def _pending(items: Sequence[LedgerRecord | Body]) -> tuple[_Pending, ...]:
    """The rows of `items`; a decision brings its context along."""
    found: list[_Pending] = []
    for item in items:
        if isinstance(item, Body):
            found.append((schema.bodies, rows.body_row(item)))
            continue
        found.append((rows.TABLES[type(item)], rows.to_row(item)))
        if isinstance(item, Decision) and item.context:
            found.append((schema.contexts, rows.context_row(item)))
    return tuple(found)


def _owner(table: sa.Table, scope: AnyScope) -> tuple[sa.ColumnElement[bool], ...]:
    if isinstance(scope, AllScopes):
        return ()
    return table.c.tenant == scope.tenant, table.c.workspace == scope.workspace


def _older(table: sa.Table, scope: AnyScope, before: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Keyset paging: rows that stand before the row with id `before`."""
    if not before:
        return ()
    place = sa.select(table.c.seq).where(table.c.id == before, *_owner(table, scope)).scalar_subquery()
    return (table.c.seq < place,)


def _select(kind: type[Record]) -> sa.Select[Any]:
    table = rows.TABLES[kind]
    if kind is not Decision:
        return sa.select(table)
    side = schema.contexts
    same = sa.and_(
        side.c.tenant == table.c.tenant, side.c.workspace == table.c.workspace, side.c.decision == table.c.id
    )
    return sa.select(table, side.c.data.label("context")).join_from(table, side, same, isouter=True)


def _records(connection: sa.Connection, kind: type[R], query: sa.Select[Any]) -> tuple[R, ...]:
    found = (rows.from_row(kind, dict(row)) for row in connection.execute(query).mappings())
    return tuple(found)


def _traces(connection: sa.Connection, calls: Sequence[Call]) -> tuple[CallTrace, ...]:
    """Each call with its decisions, outcome and feedback: three queries, however many calls."""
    ids = [call.id for call in calls]
    targets = ids + [call.parent for call in calls if call.parent]
    decided = _records(connection, Decision, _in_order(Decision, "call", ids))
    ended = _records(connection, Outcome, _in_order(Outcome, "call", ids))
    said = _records(connection, Feedback, _in_order(Feedback, "target", targets))
    return tuple(
        CallTrace(
            call=call,
            decisions=tuple(d for d in decided if (d.call, d.scope) == (call.id, call.scope)),
            outcome=next((o for o in ended if (o.call, o.scope) == (call.id, call.scope)), None),
            feedback=tuple(f for f in said if f.target in (call.id, call.parent) and f.scope == call.scope),
        )
        for call in calls
    )


def _in_order(kind: type[Record], column: str, values: Sequence[str]) -> sa.Select[Any]:
    table = rows.TABLES[kind]
    return _select(kind).where(table.c[column].in_(values)).order_by(table.c.seq)
