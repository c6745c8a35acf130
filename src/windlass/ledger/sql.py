"""The ledger on a database: typed append-only tables, one sequence, group commit."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import sqlalchemy as sa

from windlass.errors import LedgerError
from windlass.ledger import collection, folding, journal, retention, rows, schema, search
from windlass.ledger.commit import GroupCommit, Pace
from windlass.ledger.db import Database
from windlass.ledger.folded import Folded, FoldedDecision
from windlass.ledger.intake import Pending, pending
from windlass.ledger.journal import MOST_RECORD_BYTES, Journal
from windlass.ledger.ledger import (
    ALL,
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
)
from windlass.ledger.pages import LONG_PAGE, Pages
from windlass.ledger.writer import Writer
from windlass.records import KINDS, Call, Decision, Erasure, Feedback, Outcome, Record, RunEvent, Scope
from windlass.stats.redaction import Redaction

WATCH_S = 0.05
# Bodies together as large as this are redacted in a thread: 20 ms at the worst.
LARGE_BYTES = 16 * 1024
R = TypeVar("R", bound=Record)
T = TypeVar("T")
_entry: Callable[[tuple[int, Any]], Entry] = partial(tuple.__new__, Entry)
"""An Entry of (place, record); calling `Entry` or its `_make` takes twice as long."""


class SqlLedger:
    """A `Ledger` in a migrated `Database`. Appending validates in the caller; the writer thread only commits.

    name: of this process among the workers that share a database. redaction: what is taken out of bodies and comments.
    """

    def __init__(self, db: Database, name: str = "", redaction: Redaction | None = None):
        self._db = db
        self._redaction = redaction
        self._dense = db.dialect == "sqlite"
        self._pages = Pages()
        self._writer = Writer(db, name)
        self._listeners: list[Callable[[], object]] = []
        self._announced = 0
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="ledger-watch", daemon=True)
        self._journal = self._kept(db)
        self._group = GroupCommit[Pending](self._commit, self._journal)
        if self._journal is not None:
            db.settles.append(self._group.flush)
        if db.dialect != "sqlite":
            self._watcher.start()

    def _kept(self, db: Database) -> Journal | None:
        """Where calls stand until their commit: in a journal beside a file that need not survive power loss. What was
        left in others by now is in the tables."""
        if db.dialect != "sqlite":
            return None
        journal.adopt(db, self._writer.recover)
        path = db.url.database or ""
        return Journal(Path(path)) if db.durability == "normal" and path not in ("", ":memory:") else None

    async def append(self, *items: Item) -> int:
        if self._redacts(sum(len(item.data) for item in items if isinstance(item, Body))):
            taken = await asyncio.to_thread(self._rows, items)
        else:
            taken = self._rows(items)
        return await self._group.begin(taken)

    def keep(self, *items: Item) -> asyncio.Future[int] | None:
        said = sum(len(item.data) for item in items if isinstance(item, Body))
        if self._journal is not None and said < MOST_RECORD_BYTES and not self._redacts(said):
            taken = self._rows(items)
            return None if self._group.keep(taken, journal.record(taken)) else self._group.begin(taken)
        return asyncio.ensure_future(self.append(*items))

    def _redacts(self, said: int) -> bool:
        """Whether what was said, so many bytes, is redacted in a thread."""
        return self._redaction is not None and said > 0 and (said > LARGE_BYTES or self._redaction.slow)

    def post(self, *items: Item) -> None:
        self._group.submit(self._rows(items), durable=False)

    def append_now(self, *items: Item) -> int:
        """`append` for a plain thread, such as a workflow step: block until committed."""
        return self._group.submit(self._rows(items), durable=True).result()

    def _rows(self, items: Sequence[Item]) -> tuple[Pending, ...]:
        return pending(items, self._redaction)

    @property
    def pace(self) -> Pace:
        """How the writer of this process keeps up."""
        return self._group.pace

    def on_commit(self, listener: Callable[[], object]) -> None:
        self._listeners = [*self._listeners, listener]

    def head(self) -> int:
        with self._db.read() as connection:
            return self._writer.order.head(connection)

    def read(self, scope: AnyScope, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        return self._paged(scope, after, limit, self._between)

    def folded(
        self, scope: AllScopes, *, after: int, limit: int, contexts: Collection[str] | None = None
    ) -> Sequence[Folded]:
        """`read`, of each record what a fold looks at, see folding.py. contexts: the points whose live decisions come
        with theirs, None for all."""
        points = None if contexts is None else sorted(contexts)
        try:
            return self._paged(scope, after, limit, partial(self._folded_between, points))
        except (msgspec.DecodeError, LedgerError) as exc:
            if not folding.is_damage(exc):
                raise
            # One of the rows is damaged; this says which, and how.
            return folding.narrowed(self.read(scope, after=after, limit=limit))

    def _paged(self, scope: AnyScope, after: int, limit: int, between: Callable[..., list[T]]) -> list[T]:
        """What `between` reads of the next `limit` records."""
        with self._db.read() as connection:
            if self._dense and scope is ALL:
                # The places of one counter have few gaps, so the next `limit` of them hold nearly as many records.
                settled = self._writer.order.settled(connection)
                found = between(connection, scope, after, min(settled, after + limit))
                if found or settled <= after + limit:
                    return found
            if not self._dense:
                # Every worker asks this at every commit; planning it anew for all days took ten times its execution.
                connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            return between(connection, scope, after, self._last(connection, scope, after, limit))

    def _between(self, connection: sa.Connection, scope: AnyScope, after: int, until: int) -> list[Entry]:
        """All entries from after one place up to another."""
        found: list[Entry] = []
        everyone = isinstance(scope, AllScopes)
        asked = (after, until) if isinstance(scope, AllScopes) else (after, until, scope.tenant, scope.workspace)
        driver: Any = connection.connection.driver_connection
        with collection.resting():
            for kind in KINDS.values():
                given = driver.execute(_BETWEEN[self._db.dialect, everyone, kind], asked).fetchall()
                found += map(_entry, rows.from_rows(kind, _given(connection, kind, given)))
        found.sort(key=operator.itemgetter(0))
        return found

    def _folded_between(
        self, points: list[str] | None, connection: sa.Connection, scope: AllScopes, after: int, until: int
    ) -> list[Folded]:
        """The same, of each record what a fold looks at, and of live decisions at `points` their contexts."""
        found: list[Folded] = []
        driver: Any = connection.connection.driver_connection
        with collection.resting():

            def ask(question: str, *values: object) -> list[Any]:
                return cast(list[Any], driver.execute(question, (*values, after, until)).fetchall())

            def look_up(decided: Sequence[FoldedDecision]) -> dict[int, str]:
                if self._dense:
                    return dict(ask(folding.contexts(None if points is None else len(points)), *(points or ())))
                owned = [(row.id, row.form.tenant, row.form.workspace) for row in decided]
                return {decided[place].seq: text for place, text in _contexts(connection, owned).items()}

            long = self._dense and until - after >= LONG_PAGE
            for kind in KINDS.values():
                if kind is Decision and long:
                    found += self._pages.decisions(ask)
                elif kind is Outcome and long:
                    found += self._pages.outcomes(ask)
                else:
                    found += folding.fetched(kind, ask(folding.question(kind, self._db.dialect)))
            folding.give_contexts(found, points, look_up)
        found.sort(key=operator.attrgetter("seq"))
        return found

    def _last(self, connection: sa.Connection, scope: AnyScope, after: int, limit: int) -> int:
        """The place of the `limit`-th record after `after`, or the last settled one where there are fewer."""
        settled = self._writer.order.settled(connection)
        parts = [
            sa.select(table.c.seq)
            .where(table.c.seq > after, table.c.seq <= settled, *_owner(table, scope))
            .order_by(table.c.seq)
            .limit(limit)
            .subquery()
            for table in schema.SEQUENCED
        ]
        places = sa.union_all(*(sa.select(part.c.seq) for part in parts)).subquery()
        last = connection.scalar(sa.select(places.c.seq).order_by(places.c.seq).limit(1).offset(limit - 1))
        return settled if last is None else int(last)

    def calls(
        self, scope: AnyScope, *, limit: int = 50, before: str = "", back_to: str = "", wanted: CallFilter = EVERY_CALL
    ) -> Sequence[CallTrace]:
        query = self._page(Call, scope, before, back_to, search.of_calls(wanted, self._db.dialect))
        ended = search.of_outcomes(wanted)
        if not search.possible(wanted, before, back_to):
            return ()
        with self._db.read() as connection:
            if not self._dense:
                # Until a day has statistics, a plan kept from when it held little reads nearly all it holds by now:
                # 100 ms a page over 100,000 records, 25 ms planned anew. The other listings are no faster for it.
                connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
            if ended:
                owner = _owner(schema.outcomes, scope)
                query = query.where(schema.calls.c.seq.in_(search.ended(connection, query, (*owner, *ended), limit)))
            return _traces(connection, _records(connection, Call, query.limit(limit)))

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
        if not search.possible(wanted, before):
            return ()
        with self._db.read() as connection:
            query = self._page(Decision, scope, before, "", search.of_decisions(wanted))
            return _records(connection, Decision, query.limit(limit))

    def feedback(
        self,
        scope: AnyScope,
        *,
        limit: int = 50,
        before: str = "",
        back_to: str = "",
        wanted: FeedbackFilter = EVERY_FEEDBACK,
    ) -> Sequence[Feedback]:
        if not search.possible(wanted, before, back_to):
            return ()
        with self._db.read() as connection:
            query = self._page(Feedback, scope, before, back_to, search.of_feedback(wanted, self._db.dialect))
            return _records(connection, Feedback, query.limit(limit))

    def reach(
        self, scope: AnyScope, wanted: CallFilter | FeedbackFilter, *, before: str = "", records: int = SEARCHED
    ) -> Call | Feedback | None:
        if not wanted.text or not search.possible(wanted, before):
            return None
        kind: type[Call | Feedback] = Call if isinstance(wanted, CallFilter) else Feedback
        table = rows.TABLES[kind]
        with self._db.read() as connection:
            places = self._page(kind, scope, before, "", search.led_to(wanted)).with_only_columns(table.c.seq)
            place = connection.scalar(places.limit(1).offset(records - 1))
            return next(iter(_records(connection, kind, sa.select(table).where(table.c.seq == place))), None)

    def trace(self, scope: AnyScope, call: str) -> CallTrace | None:
        table = schema.calls
        with self._db.read() as connection:
            found = _records(connection, Call, sa.select(table).where(table.c.id == call, *_owner(table, scope)))
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
        query = sa.select(table).where(table.c.run == run, *_owner(table, scope)).order_by(table.c.seq)
        with self._db.read() as connection:
            return _records(connection, RunEvent, query)

    def bodies(self, scope: AnyScope, call: str) -> Sequence[Body]:
        table = schema.bodies
        query = sa.select(table).where(table.c.call == call, *_owner(table, scope)).order_by(table.c.role.desc())
        with self._db.read() as connection:
            return tuple(Body(**row) for row in connection.execute(query).mappings())

    def erase(self, erasure: Erasure) -> int:
        # Or the next process to start would bring back what one that is gone has left, or a power cut what was cut off.
        journal.adopt(self._db, self._writer.recover)
        journal.sync(self._db)
        return retention.erase(self._db, erasure)

    def prune(self, now: float) -> int:
        with self._db.write() as connection:
            connection.execute(sa.delete(schema.replies).where(schema.replies.c.expires_at <= now))
            return connection.execute(sa.delete(schema.bodies).where(schema.bodies.c.expires_at <= now)).rowcount

    def has_contexts(self, before: float) -> bool:
        return retention.has_contexts(self._db, before)

    def prune_contexts(self, before: float) -> int:
        return retention.prune_contexts(self._db, before)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        retention.save(self._db, snapshot)

    def rewrite_snapshot(self, snapshot: Snapshot) -> None:
        retention.rewrite(self._db, snapshot)

    def snapshot(
        self, projection: str, version: int, *, cursor: int | None = None, note: str | None = None
    ) -> Snapshot | None:
        return retention.find(self._db, projection, version, cursor, note)

    def snapshots(self, projection: str, version: int) -> Sequence[Snapshot]:
        return retention.kept(self._db, projection, version)

    def close(self) -> None:
        self._group.close()
        if self._journal is not None:
            self._db.settles.remove(self._group.flush)
            self._journal.close()
            self._journal = None
        self._closing.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def _page(
        self, kind: type[Record], scope: AnyScope, before: str, back_to: str, asked: Sequence[sa.ColumnElement[bool]]
    ) -> sa.Select[Any]:
        """The records of `kind` for which all of `asked` holds, newest first, from before the one with id `before` on
        and back to the one with id `back_to`."""
        table = rows.TABLES[kind]
        between = _between_ids(table, scope, before, back_to)
        found = _select(kind, self._db.dialect).where(*_owner(table, scope), *between, *asked)
        return found.order_by(table.c.seq.desc())

    def _commit(self, batch: Sequence[Pending]) -> int:
        head = self._writer.commit(batch)
        self._announced = max(self._announced, head)
        for listener in self._listeners:
            listener()
        return head

    def _watch(self) -> None:
        """Tell the listeners of what other processes committed: PostgreSQL's NOTIFY would make all commits wait for one
        another (it takes a lock over the whole server at commit), looking every 50 ms does not."""
        while not self._closing.wait(WATCH_S):
            try:
                head = self.head()
            except LedgerError:
                continue
            if head > self._announced:
                self._announced = head
                for listener in self._listeners:
                    listener()


def _owner(table: sa.Table, scope: AnyScope) -> tuple[sa.ColumnElement[bool], ...]:
    if isinstance(scope, AllScopes):
        return ()
    return table.c.tenant == scope.tenant, table.c.workspace == scope.workspace


def _between_ids(table: sa.Table, scope: AnyScope, before: str, back_to: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Keyset paging: rows that stand before the row with id `before`, and not before the one with id `back_to`."""

    def place(name: str) -> sa.ScalarSelect[Any]:
        return sa.select(table.c.seq).where(table.c.id == name, *_owner(table, scope)).scalar_subquery()

    older = (table.c.seq < place(before),) if before else ()
    return (*older, table.c.seq >= place(back_to)) if back_to else older


def _select(kind: type[Record], dialect: str) -> sa.Select[Any]:
    """All columns, for `_fetched`: on SQLite a decision's context is looked up beside each row."""
    table = rows.TABLES[kind]
    if kind is not Decision or dialect != "sqlite":
        return sa.select(table)
    side = schema.contexts
    same = sa.and_(
        side.c.tenant == table.c.tenant, side.c.workspace == table.c.workspace, side.c.decision == table.c.id
    )
    return sa.select(table, side.c.data.label("context")).join_from(table, side, same, isouter=True)


def _between(kind: type[Record], dialect: str, everyone: bool) -> str:
    """What `_select` asks, from after one place up to another, as text: followers ask it for every few records, and
    SQLAlchemy's part in it took as long as reading 50 of them."""
    table, mark = rows.TABLES[kind], "?" if dialect == "sqlite" else "%s"
    place = mark if dialect == "sqlite" else f"{mark}::bigint"
    columns = [f'"{table.name}"."{column.name}"' for column in table.c]
    source = f'"{table.name}"'
    if kind is Decision and dialect == "sqlite":
        columns.append("side.data")
        source += (
            ' LEFT JOIN contexts AS side ON side.tenant = "decisions".tenant '
            'AND side.workspace = "decisions".workspace AND side.decision = "decisions".id'
        )
    owner = "" if everyone else f'AND "{table.name}".tenant = {mark} AND "{table.name}".workspace = {mark} '
    chosen = f"SELECT {', '.join(columns)} FROM {source} "
    return f"{chosen}WHERE seq > {place} AND seq <= {place} {owner}ORDER BY seq"


_BETWEEN = {
    (dialect, everyone, kind): _between(kind, dialect, everyone)
    for dialect in ("sqlite", "postgresql")
    for everyone in (False, True)
    for kind in KINDS.values()
}


def _fetched(connection: sa.Connection, kind: type[R], query: sa.Select[Any]) -> list[tuple[int, R]]:
    """(place, record) of each row."""
    # Past SQLAlchemy's own rows, which cost more than the driver's.
    cursor = connection.execute(query).cursor
    return rows.from_rows(kind, _given(connection, kind, cursor.fetchall() if cursor is not None else ()))


def _given(connection: sa.Connection, kind: type[Record], found: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """The rows as `rows.from_rows` takes them: on PostgreSQL a decision's context is not yet beside it."""
    if kind is Decision and connection.dialect.name != "sqlite" and found:
        return _with_contexts(connection, found)
    return found


def _with_contexts(connection: sa.Connection, found: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The rows of decisions, each with its context. A join would be planned without statistics of a table that is cut
    into days, and then read all contexts that there are."""
    contexts = _contexts(connection, [row[1:4] for row in found])
    return [(*row, contexts.get(place)) for place, row in enumerate(found)]


def _contexts(connection: sa.Connection, owned: Sequence[Sequence[str]]) -> dict[int, str]:
    """The contexts of decisions, by their places in `owned`: id, tenant, workspace of each."""
    names, tenants, workspaces = (list(column) for column in zip(*owned, strict=True))
    asked = {"tenants": tenants, "workspaces": workspaces, "decisions": names}
    return {int(row.place) - 1: row.data for row in connection.execute(_CONTEXTS, asked)}


_CONTEXTS = sa.text(
    "SELECT asked.place, side.data "
    "FROM unnest(CAST(:tenants AS text[]), CAST(:workspaces AS text[]), CAST(:decisions AS text[])) "
    "WITH ORDINALITY AS asked (tenant, workspace, decision, place) "
    # The limit keeps the planner from turning the look-ups into a join.
    "CROSS JOIN LATERAL (SELECT data FROM contexts WHERE tenant = asked.tenant AND workspace = asked.workspace "
    "AND decision = asked.decision LIMIT 1) AS side"
)


def _records(connection: sa.Connection, kind: type[R], query: sa.Select[Any]) -> tuple[R, ...]:
    return tuple(record for _, record in _fetched(connection, kind, query))


def _traces(connection: sa.Connection, calls: Sequence[Call]) -> tuple[CallTrace, ...]:
    """Each call with its decisions, outcome and feedback: three queries, however many calls."""
    ids = [call.id for call in calls]
    targets = ids + [call.parent for call in calls if call.parent]
    decided = _about(connection, Decision, "call", ids, calls)
    ended = _about(connection, Outcome, "call", ids, calls)
    said = _about(connection, Feedback, "target", targets, calls)
    found: list[CallTrace] = []
    for call in calls:
        above = said[call.scope, call.parent] if call.parent and call.parent != call.id else []
        feedback = sorted(said[call.scope, call.id] + above)
        found.append(
            CallTrace(
                call=call,
                decisions=tuple(decision for _, decision in sorted(decided[call.scope, call.id])),
                outcome=min(ended[call.scope, call.id])[1] if ended[call.scope, call.id] else None,
                feedback=tuple(one for _, one in feedback),
            )
        )
    return tuple(found)


def _about(
    connection: sa.Connection, kind: type[R], column: str, values: Sequence[str], calls: Sequence[Call]
) -> dict[tuple[Scope, str], list[tuple[int, R]]]:
    """(place, record) of those whose `column` is one of `values`, by owner and value; `calls` tell where to search."""
    table = rows.TABLES[kind]
    owners = (table.c[name].in_({getattr(call, name) for call in calls}) for name in ("tenant", "workspace"))
    names = [call.id for call in calls]
    days = search.days(connection, table, names, 2) if column == "call" else ()
    query = _select(kind, connection.dialect.name).where(*owners, table.c[column].in_(values), *days)
    found: dict[tuple[Scope, str], list[tuple[int, R]]] = defaultdict(list)
    for place, record in _fetched(connection, kind, query):
        found[record.scope, getattr(record, column)].append((place, record))
    return found
