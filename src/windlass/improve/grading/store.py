"""How far the ledger is graded, whose turn it is, and what judges have spent: rows of `heads`, which move and are saved
with the ledger.

The turn is a time in microseconds until which it is taken. Who takes or prolongs it writes a new one in place of the
one that was read, so of two workers one gets it. A batch that was graded but not noted is graded again, with the same
ids: nothing is left out and nothing counts twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database

DAY_S: Final = 86_400
_CURSOR, _TURN, _SPENT = "graders", "graders.turn", "graders.spent"
_HEADS = schema.heads


class GradingPlace:
    """One worker's part in grading. clock: UTC seconds. turn_s: so long nobody goes on for a worker that died."""

    def __init__(self, db: Database, clock: Callable[[], float], turn_s: float = 30.0):
        self._db = db
        self._clock = clock
        self._turn_us = int(turn_s * 1e6)
        self._mine = 0
        self._taking = threading.Lock()

    def begin(self, head: int) -> None:
        """Where nothing was ever graded, begin after the place `head`: what is older is graded when asked for."""
        with self._db.write() as connection:
            new = self._db.insert_new(_HEADS, "name")
            connection.execute(new, [{"name": _CURSOR, "value": head}, {"name": _TURN, "value": 0}])

    def cursor(self) -> int:
        """The last place of the ledger that was looked at, by whichever worker."""
        return self._value(_CURSOR)

    def take(self) -> bool:
        """Take the turn, or keep it; False where another worker has it. Thread-safe."""
        with self._taking:
            return self._taken()

    def _taken(self) -> bool:
        now = int(self._clock() * 1e6)
        seen = self._value(_TURN)
        # One that lies further ahead than any turn was written by a clock that was wrong.
        if seen != self._mine and now < seen <= now + 2 * self._turn_us:
            return False
        new = max(now + self._turn_us, seen + 1) if seen <= now + 2 * self._turn_us else now + self._turn_us
        taken = self._swap(_TURN, seen, new)
        self._mine = new if taken else 0
        return taken

    def move(self, seen: int, cursor: int) -> bool:
        """Note that all up to `cursor` was looked at, from `seen` on; False where another worker has done so."""
        return self._swap(_CURSOR, seen, cursor)

    def leave(self) -> None:
        """Let another worker go on at once."""
        with self._taking:
            if self._mine:
                self._swap(_TURN, self._mine, 0)
            self._mine = 0

    def spent_nusd(self, grader: str) -> int:
        """What a judge has spent in this UTC day, all workers together."""
        return self._value(self._day(grader))

    def spend(self, grader: str, nusd: int) -> None:
        """Add to what a judge has spent today; the rows of other days go."""
        today = self._day(grader)
        add = self._db.add(_HEADS, "name")
        with self._db.write() as connection:
            stale = _HEADS.c.name.startswith(f"{_SPENT}.{grader}.", autoescape=True), _HEADS.c.name != today
            connection.execute(sa.delete(_HEADS).where(*stale))
            connection.execute(add, {"name": today, "value": nusd})

    def _day(self, grader: str) -> str:
        return f"{_SPENT}.{grader}.{int(self._clock()) // DAY_S}"

    def _value(self, name: str) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(sa.select(_HEADS.c.value).where(_HEADS.c.name == name)) or 0)

    def _swap(self, name: str, seen: int, value: int) -> bool:
        """Write `value` where `seen` still stands."""
        mine = sa.update(_HEADS).where(_HEADS.c.name == name, _HEADS.c.value == seen).values(value=value)
        with self._db.write() as connection:
            return connection.execute(mine).rowcount == 1
