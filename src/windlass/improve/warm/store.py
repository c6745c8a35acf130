"""Which model was asked what by a warm start, and how far the ledger was looked through for prompts.

A row is there before anybody is asked, and stays: so each prompt goes to each model at most once, whoever dies when.
What is spent, and held for answers that are on their way, is one number in `heads`, with which every row is committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database, metadata
from windlass.ledger.schema import owned
from windlass.records import USER_CHARS, Scope

_CURSOR, _SPENT = "warm", "warm.spent"
_HEADS = schema.heads
answers: Final = sa.Table(
    "warm_answers",
    metadata,
    *owned(),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("held_nusd", sa.BigInteger, nullable=False),
    sa.Column("cost_nusd", sa.BigInteger),
    sa.PrimaryKeyConstraint("tenant", "workspace", "prompt", "model"),
)
_KEYS = ("tenant", "workspace", "prompt", "model")


class WantedAnswer(NamedTuple):
    """An answer that is wanted: whose, to which prompt (its digest), of which model.

    source: the call that brought the prompt, which stands in the place of the digest once its user is forgotten.
    """

    scope: Scope
    prompt: str
    model: str
    source: str = ""


class AnswerCounts(NamedTuple):
    """How far one workspace is. prompts: that went out; answers: that came; open: asked, of which nothing is known.

    cost_nusd: of the answers; held_nusd: for those that are open.
    """

    prompts: int
    answers: int
    open: int
    cost_nusd: int
    held_nusd: int


class _OverBudget(Exception):
    """Undoes a claim."""


class WarmTable:
    """What was asked, on one database. All of it is safe to call from several threads and workers."""

    def __init__(self, db: Database):
        self._db = db

    def begin(self, head: int) -> None:
        """Where no prompt was ever looked for, begin after the place `head`."""
        with self._db.write() as connection:
            new = self._db.insert_new(_HEADS, "name")
            connection.execute(new, [{"name": _CURSOR, "value": head}, {"name": _SPENT, "value": 0}])

    def cursor(self) -> int:
        """The last place of the ledger that was looked at."""
        return self._head(_CURSOR)

    def move(self, cursor: int) -> None:
        """Note that all up to `cursor` was looked at; it never goes back."""
        mine = sa.update(_HEADS).where(_HEADS.c.name == _CURSOR, _HEADS.c.value < cursor).values(value=cursor)
        with self._db.write() as connection:
            connection.execute(mine)

    def spent_nusd(self) -> int:
        """What all tenants together have spent, with what is held for answers on their way."""
        return self._head(_SPENT)

    def claim(
        self, scope: Scope, prompt: str, source: str, held_nusd: Mapping[str, int], most_nusd: int, at: float
    ) -> tuple[str, ...] | None:
        """Take a prompt for these models, of which each may cost so much; () where it was taken before.

        source: the call that brought the prompt. None, and nothing taken, where that is more than the budget
        `most_nusd` has left.
        """
        if sum(held_nusd.values()) > most_nusd:
            return None  # also what no column can hold
        before = sa.select(answers.c.model).where(*_owned(scope), answers.c.prompt == prompt).limit(1)
        try:
            with self._db.write() as connection:
                if connection.scalar(before) is not None:
                    return ()
                new = [
                    model
                    for model, held in held_nusd.items()
                    if self._taken(connection, WantedAnswer(scope, prompt, model, source), held, at)
                ]
                self._spend(connection, sum(held_nusd[model] for model in new), most_nusd)
        except _OverBudget:
            return None
        return tuple(new)

    def settle(self, wanted: WantedAnswer, cost_nusd: int) -> None:
        """An answer came, and cost so much; what was held for it is free. The second time nothing changes."""
        self._end(wanted, sa.update(answers).values(cost_nusd=cost_nusd), cost_nusd)

    def release(self, wanted: WantedAnswer) -> None:
        """Nobody was asked: as if it had not been taken."""
        self._end(wanted, sa.delete(answers), 0)

    def unsettled(self) -> tuple[WantedAnswer, ...]:
        """Everything that is open, of all tenants: for a start, which looks what became of it."""
        columns = (answers.c[name] for name in (*_KEYS, "source"))
        query = sa.select(*columns).where(answers.c.cost_nusd.is_(None)).order_by(answers.c.at)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return tuple(WantedAnswer(Scope(row.tenant, row.workspace), row.prompt, row.model, row.source) for row in rows)

    def progress(self, scope: Scope) -> AnswerCounts:
        """How far a workspace is."""
        came = answers.c.cost_nusd.is_not(None)
        query = sa.select(
            sa.func.count(sa.distinct(answers.c.prompt)).label("prompts"),
            sa.func.count(answers.c.cost_nusd).label("answers"),
            sa.func.count().label("rows"),
            sa.func.coalesce(sa.func.sum(answers.c.cost_nusd), 0).label("cost"),
            sa.func.coalesce(sa.func.sum(sa.case((came, 0), else_=answers.c.held_nusd)), 0).label("held"),
        ).where(*_owned(scope))
        with self._db.read() as connection:
            row = connection.execute(query).one()
        return AnswerCounts(row.prompts, row.answers, row.rows - row.answers, int(row.cost), int(row.held))

    def forget(self, scope: Scope, user: str) -> None:
        """Put their calls' ids in the place of the digests of a user's prompts; what they cost stays."""
        calls = schema.calls
        own = (calls.c.tenant == scope.tenant, calls.c.workspace == scope.workspace)
        theirs = sa.select(calls.c.id).where(*own, calls.c.user == user[:USER_CHARS])
        mine = sa.update(answers).where(*_owned(scope), answers.c.source.in_(theirs))
        with self._db.write() as connection:
            connection.execute(mine.values(prompt=answers.c.source))

    def _taken(self, connection: sa.Connection, wanted: WantedAnswer, held: int, at: float) -> bool:
        """Write the row of an answer, unless it is there."""
        row = {**_named(wanted), "source": wanted.source, "at": at, "held_nusd": held, "cost_nusd": None}
        made = self._db.insert_new(answers, *_KEYS)
        return connection.execute(made, row, execution_options={"preserve_rowcount": True}).rowcount == 1

    def _end(self, wanted: WantedAnswer, ending: sa.Update | sa.Delete, cost_nusd: int) -> None:
        """Do `ending` to a row that is open, and count what it cost in the place of what was held."""
        mine = [
            *_owned(wanted.scope),
            answers.c.prompt.in_({wanted.prompt, wanted.source or wanted.prompt}),
            answers.c.model == wanted.model,
            answers.c.cost_nusd.is_(None),
        ]
        with self._db.write() as connection:
            held = connection.scalar(sa.select(answers.c.held_nusd).where(*mine))
            if held is not None and connection.execute(ending.where(*mine)).rowcount == 1:
                self._spend(connection, cost_nusd - held, None)

    @staticmethod
    def _spend(connection: sa.Connection, nusd: int, most_nusd: int | None) -> None:
        """Add to what is spent; _OverBudget where that would be more than `most_nusd`."""
        spent = sa.update(_HEADS).where(_HEADS.c.name == _SPENT)
        if most_nusd is not None:
            spent = spent.where(_HEADS.c.value + nusd <= most_nusd)
        if connection.execute(spent.values(value=_HEADS.c.value + nusd)).rowcount != 1:
            raise _OverBudget

    def _head(self, name: str) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(sa.select(_HEADS.c.value).where(_HEADS.c.name == name)) or 0)


def _named(wanted: WantedAnswer) -> dict[str, str]:
    scope = wanted.scope
    return dict(zip(_KEYS, (scope.tenant, scope.workspace, wanted.prompt, wanted.model), strict=True))


def _owned(scope: Scope) -> tuple[sa.ColumnElement[bool], ...]:
    return answers.c.tenant == scope.tenant, answers.c.workspace == scope.workspace
