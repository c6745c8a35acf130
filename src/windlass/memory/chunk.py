"""Cutting what was said into passages of about the same length, in whole sentences."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import msgspec

from windlass.stats.sentences import sentences

WORDS = 110


class SegmentLike(Protocol):
    """What one speaker said in one go, from `start_s` seconds on."""

    @property
    def speaker(self) -> str: ...

    @property
    def start_s(self) -> float: ...

    @property
    def text(self) -> str: ...


class Passage(msgspec.Struct, frozen=True):
    """Sentences of the segments `first_segment` to `last_segment` (both included).

    `start_s` is the stamp of the segment in which it begins. In `text` every sentence stands word for word; before the
    first one stand the name of who says most of it, and a colon. Who says which sentence, the segments know.
    """

    ordinal: int
    first_segment: int
    last_segment: int
    start_s: float
    text: str


class _Sentence(NamedTuple):
    segment: int
    text: str
    words: int


def chunk(segments: Sequence[SegmentLike], words: int = WORDS, breaks: Collection[int] = ()) -> tuple[Passage, ...]:
    """The passages of consecutive segments: they hold every sentence once, in order.

    words: the aim; a passage ends at the sentence end nearest to it. breaks: segments that always begin a passage,
    for example those under a section heading.

    Measured with `benchmarks/retrieval.py`: breaks at headings take section hit@5 from 0.71 to 0.83, the speaker's name
    takes QMSum nDCG@10 from 0.54 to 0.57 (so does a name at every turn, which costs section hits). Overlap, ends at
    turns, windows of equal length and the item's title in the text changed nothing or made it worse.
    """
    spoken = _sentences(segments)
    # A break before a segment without words takes effect at the next words.
    borders = frozenset(bisect_left(spoken, number, key=lambda sentence: sentence.segment) for number in breaks)
    passages: list[Passage] = []
    start = 0
    while start < len(spoken):
        end = _end(spoken, start, words, borders)
        part = spoken[start:end]
        first, last = part[0].segment, part[-1].segment
        passages.append(Passage(len(passages), first, last, segments[first].start_s, _text(part, segments)))
        start = end
    return tuple(passages)


def _sentences(segments: Sequence[SegmentLike]) -> list[_Sentence]:
    return [
        _Sentence(number, segment.text[first:last], segment.text.count(" ", first, last) + 1)
        for number, segment in enumerate(segments)
        for first, last in sentences(segment.text)
    ]


def _end(spoken: Sequence[_Sentence], start: int, words: int, borders: frozenset[int]) -> int:
    """The sentence after the last one of the passage that begins at `start`."""
    held = spoken[start].words
    for place in range(start + 1, len(spoken)):
        if place in borders or held + spoken[place].words / 2 > words:
            return place
        held += spoken[place].words
    return len(spoken)


def _text(part: Sequence[_Sentence], segments: Sequence[SegmentLike]) -> str:
    said: Counter[str] = Counter()
    for sentence in part:
        said[segments[sentence.segment].speaker] += sentence.words
    ((speaker, _),) = said.most_common(1)
    spoken = " ".join(sentence.text for sentence in part)
    return f"{speaker}: {spoken}" if speaker else spoken
