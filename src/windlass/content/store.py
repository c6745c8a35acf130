"""Where content lives: items, their segments, chapters and key quotes, and the source bytes they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from windlass.content.analysis import Chapter, KeyQuote
from windlass.content.transcript import Transcript
from windlass.errors import InputError
from windlass.ledger.db import Database, metadata
from windlass.ledger.schema import owned
from windlass.records import Scope


def _part(name: str, *columns: sa.Column[object]) -> sa.Table:
    """A table of the numbered parts of an item."""
    return sa.Table(
        name,
        metadata,
        *owned(),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("tenant", "workspace", "item", "ordinal"),
    )


items = sa.Table(
    "items",
    metadata,
    *owned(),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("date", sa.Text, nullable=False),
    sa.Column("media", sa.Text, nullable=False),
    sa.Column("speakers", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("timed", sa.Boolean, nullable=False),
    sa.Column("warnings", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "id"),
)
sources = sa.Table(
    "sources",
    metadata,
    *owned(),
    sa.Column("item", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "item"),
)
segments = _part(
    "segments",
    sa.Column("speaker", sa.Text, nullable=False),
    sa.Column("start_s", sa.Double, nullable=False),
    sa.Column("end_s", sa.Double, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)
chapters = _part(
    "chapters",
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("start_s", sa.Double, nullable=False),
    sa.Column("end_s", sa.Double, nullable=False),
    sa.Column("first_segment", sa.Integer, nullable=False),
    sa.Column("last_segment", sa.Integer, nullable=False),
    sa.Column("made", sa.Boolean, nullable=False),
)
quotes = _part(
    "quotes",
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
    sa.Column("start_s", sa.Double, nullable=False),
    sa.Column("segment", sa.Integer, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of content as memory knows it."""

    id: str
    title: str
    date: str
    media: str
    speakers: tuple[str, ...]
    tags: tuple[str, ...]
    timed: bool
    warnings: tuple[str, ...] = ()


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """What one speaker said in one go; a quote is verified against it."""

    ordinal: int
    speaker: str
    start_s: float
    end_s: float
    text: str


class Contents:
    """Items by scope. Every write replaces what the item had before, in one transaction."""

    def __init__(self, db: Database):
        self._db = db

    def put_source(self, scope: Scope, item: str, name: str, data: bytes, at: float) -> None:
        """Keep the bytes an item comes from, so that its run can be recovered without the file."""
        row = {**_owner_row(scope), "item": item, "name": name, "at": at, "data": data}
        with self._db.write() as connection:
            connection.execute(self._db.replace(sources, "tenant", "workspace", "item"), row)

    def source(self, scope: Scope, item: str) -> tuple[str, bytes]:
        """Name and bytes of an item's source; InputError where the scope has none."""
        query = sa.select(sources.c.name, sources.c.data).where(*_owned_by(sources, scope), sources.c.item == item)
        with self._db.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise InputError(f"no source is kept for item {item}; ingest the file again")
        return str(row[0]), bytes(row[1])

    def put_item(self, scope: Scope, item: str, transcript: Transcript, at: float) -> None:
        """Store an item and its segments."""
        head = {
            **_owner_row(scope),
            "id": item,
            "at": at,
            "title": transcript.title,
            "date": transcript.date,
            "media": transcript.media,
            "speakers": _json(transcript.speakers),
            "tags": _json(transcript.tags),
            "timed": transcript.timed,
            "warnings": _json(transcript.warnings),
        }
        turns = [
            {"speaker": turn.speaker, "start_s": turn.start_s, "end_s": turn.end_s, "text": turn.text}
            for turn in transcript.turns
        ]
        with self._db.write() as connection:
            connection.execute(self._db.replace(items, "tenant", "workspace", "id"), head)
            _replace_parts(connection, segments, scope, item, turns)

    def put_analysis(self, scope: Scope, item: str, found: Sequence[Chapter], picked: Sequence[KeyQuote]) -> None:
        """Store an item's chapters and key quotes."""
        rows = [
            {
                "title": chapter.title,
                "start_s": chapter.start_s,
                "end_s": chapter.end_s,
                "first_segment": chapter.first_turn,
                "last_segment": chapter.last_turn,
                "made": chapter.made,
            }
            for chapter in found
        ]
        said = [
            {"text": q.text, "speaker": q.speaker, "start_s": q.start_s, "segment": q.turn, "score": q.score}
            for q in picked
        ]
        with self._db.write() as connection:
            _replace_parts(connection, chapters, scope, item, rows)
            _replace_parts(connection, quotes, scope, item, said)

    def items(self, scope: Scope, ids: Sequence[str] | None = None) -> dict[str, Item]:
        """Items by id, oldest first: all of the scope, or those of `ids` that it has."""
        query = sa.select(items).where(*_owned_by(items, scope)).order_by(items.c.at, items.c.id)
        if ids is not None:
            query = query.where(items.c.id.in_(ids))
        with self._db.read() as connection:
            return {row["id"]: _item(row) for row in connection.execute(query).mappings()}

    def segments(self, scope: Scope, item: str, first: int = 0, last: int | None = None) -> tuple[Segment, ...]:
        """The segments `first`..`last` (inclusive) of an item, in order."""
        query = sa.select(segments).where(
            *_owned_by(segments, scope), segments.c.item == item, segments.c.ordinal >= first
        )
        if last is not None:
            query = query.where(segments.c.ordinal <= last)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(segments.c.ordinal)).mappings()
            return tuple(Segment(**{name: row[name] for name in Segment.__struct_fields__}) for row in rows)

    def chapters(self, scope: Scope, item: str) -> tuple[Chapter, ...]:
        """An item's chapters, in order."""
        with self._db.read() as connection:
            rows = connection.execute(_parts(chapters, scope, item)).mappings()
            return tuple(
                Chapter(
                    title=row["title"],
                    start_s=row["start_s"],
                    end_s=row["end_s"],
                    first_turn=row["first_segment"],
                    last_turn=row["last_segment"],
                    made=row["made"],
                )
                for row in rows
            )

    def key_quotes(self, scope: Scope, item: str) -> tuple[KeyQuote, ...]:
        """An item's key quotes, best first."""
        with self._db.read() as connection:
            rows = connection.execute(_parts(quotes, scope, item)).mappings()
            return tuple(
                KeyQuote(
                    text=row["text"],
                    speaker=row["speaker"],
                    start_s=row["start_s"],
                    turn=row["segment"],
                    score=row["score"],
                )
                for row in rows
            )

    def headings(self, scope: Scope, ids: Sequence[str]) -> tuple[str, ...]:
        """The section headings that the items `ids` carry themselves, in order."""
        query = (
            sa.select(chapters.c.title)
            .where(*_owned_by(chapters, scope), chapters.c.item.in_(ids), chapters.c.made.is_(False))
            .order_by(chapters.c.item, chapters.c.ordinal)
        )
        with self._db.read() as connection:
            return tuple(connection.scalars(query))


def _replace_parts(
    connection: sa.Connection, table: sa.Table, scope: Scope, item: str, rows: Sequence[dict[str, Any]]
) -> None:
    connection.execute(sa.delete(table).where(*_owned_by(table, scope), table.c.item == item))
    if rows:
        owner = _owner_row(scope)
        connection.execute(
            sa.insert(table), [{**owner, "item": item, "ordinal": number, **row} for number, row in enumerate(rows)]
        )


def _parts(table: sa.Table, scope: Scope, item: str) -> sa.Select[Any]:
    return sa.select(table).where(*_owned_by(table, scope), table.c.item == item).order_by(table.c.ordinal)


def _item(row: sa.RowMapping) -> Item:
    return Item(
        id=row["id"],
        title=row["title"],
        date=row["date"],
        media=row["media"],
        speakers=tuple(msgspec.json.decode(row["speakers"])),
        tags=tuple(msgspec.json.decode(row["tags"])),
        timed=row["timed"],
        warnings=tuple(msgspec.json.decode(row["warnings"])),
    )


def _owner_row(scope: Scope) -> dict[str, Any]:
    return {"tenant": scope.tenant, "workspace": scope.workspace}


def _owned_by(table: sa.Table, scope: Scope) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.tenant == scope.tenant, table.c.workspace == scope.workspace


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
