"""How far the ledger is exported, and whose turn it is: rows of `heads`, so that they move and are saved with it.

The turn is one number: the time until which it is taken, in microseconds. Who takes or prolongs it writes a new one in
place of the one that was read, and whoever fails to do so has lost it. Clocks that differ by more than a turn make two
workers send the same spans, which are then the same; nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database

_CURSOR, _SENT, _REFUSED, _TURN = "traces", "traces.sent", "traces.refused", "traces.turn"
_H = schema.heads
_TAKE = sa.update(_H).where(_H.c.name == _TURN, _H.c.value == sa.bindparam("seen")).values(value=sa.bindparam("new"))
_MOVE = sa.update(_H).where(_H.c.name == sa.bindparam("which")).values(value=sa.bindparam("new"))
_ADD = sa.update(_H).where(_H.c.name == sa.bindparam("which")).values(value=_H.c.value + sa.bindparam("more"))


class Progress(NamedTuple):
    """The last place of the ledger that was exported, and how many spans were taken and refused, since ever."""

    cursor: int
    sent: int
    refused: int


class ExportTurn:
    """One worker's part in the export. clock: UTC seconds. turn_s: so long nobody goes on for a worker that died."""

    def __init__(self, db: Database, clock: Callable[[], float], turn_s: float = 20.0):
        self._db = db
        self._turn = int(turn_s * 1e6)
        self._clock = clock
        self._mine = 0

    def begin(self, head: int) -> None:
        """Where nothing was ever exported, begin after the place `head`: what is older is not sent."""
        rows = [{"name": name, "value": 0} for name in (_SENT, _REFUSED, _TURN)]
        with self._db.write() as connection:
            connection.execute(self._db.insert_new(_H, "name"), [{"name": _CURSOR, "value": head}, *rows])

    def progress(self) -> Progress:
        """How far it is, whoever did it."""
        with self._db.read() as connection:
            found = connection.execute(
                sa.select(_H.c.name, _H.c.value).where(_H.c.name.in_((_CURSOR, _SENT, _REFUSED)))
            )
            values = {name: int(value) for name, value in found}
        return Progress(values.get(_CURSOR, 0), values.get(_SENT, 0), values.get(_REFUSED, 0))

    def take(self) -> bool:
        """Take the turn, or keep it; False where another worker has it."""
        now, turn = int(self._clock() * 1e6), self._turn
        if turn // 2 < self._mine - now <= turn:
            return True
        with self._db.write() as connection:
            seen = int(connection.scalar(sa.select(_H.c.value).where(_H.c.name == _TURN)) or 0)
            # One that lies further ahead than any turn is of a clock that was wrong.
            if seen != self._mine and now < seen <= now + 2 * turn:
                return False
            new = now + turn + (now + turn == seen)
            taken = connection.execute(_TAKE, {"seen": seen, "new": new}).rowcount == 1
        self._mine = new if taken else 0
        return taken

    def move(self, cursor: int, *, sent: int, refused: int) -> bool:
        """Note what was done in this turn; False where another worker has taken it meanwhile."""
        with self._db.write() as connection:
            if connection.execute(_TAKE, {"seen": self._mine, "new": self._mine}).rowcount != 1:
                self._mine = 0
                return False
            connection.execute(_MOVE, {"which": _CURSOR, "new": cursor})
            for which, more in ((_SENT, sent), (_REFUSED, refused)):
                if more:
                    connection.execute(_ADD, {"which": which, "more": more})
            return True

    def leave(self) -> None:
        """Let another worker go on at once."""
        if self._mine:
            with self._db.write() as connection:
                connection.execute(_TAKE, {"seen": self._mine, "new": 0})
            self._mine = 0
