"""Answers of this process, kept so that a reload, a thumb or the way back never asks a second time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from windlass.content.ask import Asked
from windlass.records import Scope

MAX_KEPT = 500


@dataclass
class Answered:
    """One answer and what was last said of it in this process: `up`, `down` or ''."""

    asked: Asked
    rating: str = ""
    corrected: bool = False


class Answers:
    """The newest answers by owner and id; the oldest go first."""

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[Scope, str], Answered] = OrderedDict()

    def keep(self, scope: Scope, asked: Asked) -> None:
        """Remember an answer."""
        self._kept[scope, asked.id] = Answered(asked)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def find(self, scope: Scope, answer: str) -> Answered | None:
        """The answer with this id, if it is the scope's and still here."""
        return self._kept.get((scope, answer))
