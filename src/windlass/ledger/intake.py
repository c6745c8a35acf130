"""What is appended, on its way into the tables: the rows of each item, and of what was said nothing personal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, cast

import msgspec
import sqlalchemy as sa

from windlass.ledger import rows, schema
from windlass.ledger.ledger import Body, Item, Spend, StoredReply
from windlass.records import Decision, Feedback, LedgerRecord
from windlass.stats.redaction import Redaction

Pending: TypeAlias = tuple[sa.Table, rows.Row]
"""A row and where it goes."""
SPENT: Final = ("name", "grp", "since", "nusd", "outcome")
"""The order in which the writer is told what a call used up of a budget."""
REPLY: Final = ("call", "user", "at", "expires_at", "data", "tenant", "workspace", "caller", "digest", "owner")
"""The order in which a stored reply is given to the database."""


def pending(items: Sequence[Item], redaction: Redaction | None = None) -> tuple[Pending, ...]:
    """The rows of `items`; a decision brings its context along. RecordInvalid for what no table holds."""
    found: list[Pending] = []
    for item in items if redaction is None else [_cleared(item, redaction) for item in items]:
        # By identity: asking three kinds of a msgspec struct that is none of them took as long as making its row.
        if type(item) is Body:
            found.append((schema.bodies, rows.body_row(item)))
        elif type(item) is Spend:
            found.append((schema.spend, [item.limit, item.group, item.since, item.nusd, item.outcome]))
        elif type(item) is StoredReply:
            found.append((schema.replies, [getattr(item, name) for name in REPLY]))
        else:
            record = cast(LedgerRecord, item)
            found.append((rows.TABLES[type(record)], rows.to_row(record)))
            if type(record) is Decision and record.context:
                found.append((schema.contexts, rows.context_row(record)))
    return tuple(found)


def _cleared(item: Item, redaction: Redaction) -> Item:
    """`item` with nothing personal in what was said."""
    if isinstance(item, Body) and item.data:
        return msgspec.structs.replace(item, data=redaction.body(item.data))
    if isinstance(item, Feedback) and item.comment:
        return msgspec.structs.replace(item, comment=redaction.text(item.comment))
    return item
