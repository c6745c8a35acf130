"""`citation`: the quotes in a reply stand, letter for letter, in the passages that the prompt offered.

By the same verification that `windlass ask` shows no unverified quote with (`content.ask.verify`); those answers carry
`citation_verified` already and are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from windlass.content.ask import Source, verify
from windlass.content.store import Item, Segment
from windlass.gateway import prompt
from windlass.gateway.prompt import Excerpt
from windlass.improve.grading.grader import Case, On, Skipped, Verdict, said

ASKED: Final = "answer_"
"""Calls that `ask` makes have a parent of this kind."""
MOST_QUOTES: Final = 1_000


@dataclass(frozen=True, slots=True)
class CitationOptions:
    """needed: a reply without any quote is 0; else nothing is said of it."""

    needed: bool = True


class Citation:
    """The share of quotes that hold. Costs nothing."""

    name: ClassVar[str] = "citation"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "qa"
    on: ClassVar[On] = "reply"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: CitationOptions):
        self._needed = options.needed

    def grade(self, case: Case) -> Verdict:
        """In [0, 1]; nothing where the prompt offers no passages."""
        if case.call.parent.startswith(ASKED):
            return Skipped(why="graded_by_ask")
        offered = prompt.read(case.messages).passages if case.messages else ()
        if not offered:
            return Skipped(why="no_passages")
        quoted = prompt.quotes(case.reply)[:MOST_QUOTES]
        if not quoted:
            return said(0.0, "no quote in the reply") if self._needed else Skipped(why="no_quotes")
        _, dropped = verify(quoted, [_source(one, place) for place, one in enumerate(offered)], len(quoted))
        held = len(quoted) - dropped
        return said(held / len(quoted), f"{held} of {len(quoted)} quotes stand in their passages")


def _source(offered: Excerpt, place: int) -> Source:
    """A passage of the prompt as verification knows passages: one segment of one item."""
    item = Item(id=offered.id, title=offered.title, date="", media="", speakers=(), tags=(), timed=False)
    segment = Segment(ordinal=place, speaker=offered.speaker, start_s=0.0, end_s=0.0, text=offered.text)
    return Source(offered, item, segment)
