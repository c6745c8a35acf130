"""The first analysis of a transcript: its chapters, its key quotes, and links into the recording.

Everything here is a pure function of the transcript: the same file gives the same chapters and quotes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.content import lexrank, tiling
from windlass.content.terms import Term, terms
from windlass.content.transcript import Transcript
from windlass.stats.sentences import sentences

QUOTE_WORDS = range(8, 41)
SAME_THING_COSINE = 0.5
_TITLE_TERMS = 3
_LINK_CHARACTERS = 2_000
WELCOME = re.compile(
    r"intro|outro|preamble|opening|sponsor|farewell|closing|welcome|credits|housekeeping", re.IGNORECASE
)
_UNSAFE_IN_LINK = re.compile(r"[\s\x00-\x20\x7f\"<>\\^`{|}]")


class Chapter(msgspec.Struct, frozen=True):
    """The turns `first_turn` to `last_turn` (both included). `made` tells a title of ours from one of the source."""

    title: str
    start_s: float
    end_s: float
    first_turn: int
    last_turn: int
    made: bool


class KeyQuote(msgspec.Struct, frozen=True):
    """A sentence that stands for its chapter, word for word a part of turn `turn`, at that turn's stamp.

    `score` is its LexRank; 1.0 is the average sentence of the transcript.
    """

    text: str
    speaker: str
    start_s: float
    turn: int
    score: float


class _Spoken(msgspec.Struct, frozen=True):
    """A sentence, the turn and the chapter that it stands in."""

    text: str
    turn: int
    chapter: int


def chapters(transcript: Transcript) -> tuple[Chapter, ...]:
    """The chapters of a transcript: they cover every turn once, in order.

    From the section headings where the source has them (headings before the same turn are joined, turns before the
    first become a chapter "Opening" of ours); else where the vocabulary changes (`tiling`), titled by the three most
    distinctive terms.
    """
    return _by_heading(transcript) if transcript.headings else _by_subject(transcript)


def key_quotes(transcript: Transcript, chapters: Sequence[Chapter], k: int = 5) -> tuple[KeyQuote, ...]:
    """Up to `k` sentences of 8 to 40 words around which the conversation turns, best first.

    Ranked by LexRank. The best of each chapter come first, then others; a sentence whose cosine to a chosen one exceeds
    0.5 says the same thing and is passed over. Questions, sentences that trail off, and chapters whose title says that
    they are a welcome, a farewell or a sponsor's word give quotes only when nothing else does.
    """
    spoken = list(_sentences(transcript, chapters))
    matrix = lexrank.vectors([[term.stem for term in terms(sentence.text)] for sentence in spoken])
    scores = lexrank.centrality(matrix)
    chosen: list[int] = []
    likeness = np.zeros(len(spoken))
    for row in _preferred(spoken, scores, chapters):
        if len(chosen) >= k:
            break
        if likeness[row] <= SAME_THING_COSINE and all(spoken[row].text != spoken[other].text for other in chosen):
            chosen.append(row)
            likeness = np.maximum(likeness, matrix.similarities(row))
    chosen.sort(key=lambda row: (-scores[row], row))
    return tuple(_quote(transcript, spoken[row], float(scores[row])) for row in chosen)


def time_link(media: str, start_s: float) -> str:
    """A link that opens `media` at a time: `&t=430s` on YouTube, `?t=430` on youtu.be, else the fragment `#t=430` (W3C
    Media Fragments URI 1.0, section 4.2.1). '' for anything but a plain http or https address.

    >>> time_link("https://youtu.be/abc", 430.2)
    'https://youtu.be/abc?t=430'
    """
    parts = _web_address(media)
    if parts is None:
        return ""
    second = int(start_s) if math.isfinite(start_s) and start_s > 0 else 0
    host = (parts.hostname or "").removeprefix("www.").removeprefix("m.").removeprefix("music.")
    if host == "youtu.be":
        return _with_query(parts, "t", f"{second}")
    if host in ("youtube.com", "youtube-nocookie.com"):
        embedded = parts.path.startswith("/embed/")
        return _with_query(parts, "start" if embedded else "t", f"{second}" if embedded else f"{second}s")
    return parts._replace(fragment=f"t={second}").geturl()


def _web_address(media: str) -> SplitResult | None:
    """The parts of a plain http or https address; None for anything else."""
    if len(media) > _LINK_CHARACTERS or _UNSAFE_IN_LINK.search(media):
        return None
    try:
        parts = urlsplit(media)
        # The port is checked when it is read. A user in the address only serves to dress up another host.
        plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return None
    return parts if plain else None


def _with_query(parts: SplitResult, key: str, value: str) -> str:
    """The address with one query parameter set and no fragment."""
    others = [(name, old) for name, old in parse_qsl(parts.query, keep_blank_values=True) if name != key]
    return parts._replace(query=urlencode([*others, (key, value)]), fragment="").geturl()


def _by_heading(transcript: Transcript) -> tuple[Chapter, ...]:
    titles: dict[int, str] = {}
    for heading in transcript.headings:
        titles[heading.turn] = f"{titles[heading.turn]}: {heading.title}" if heading.turn in titles else heading.title
    firsts = sorted({0, *titles})
    return _spans(transcript, firsts, [titles.get(first) for first in firsts], ["Opening"] * len(firsts))


def _by_subject(transcript: Transcript) -> tuple[Chapter, ...]:
    names = {term.stem for speaker in transcript.speakers for term in terms(speaker)}
    spoken = [[term for term in terms(turn.text) if term.stem not in names] for turn in transcript.turns]
    firsts = [0, *tiling.borders([[term.stem for term in turn] for turn in spoken])]
    parts = [[term for turn in spoken[a:b] for term in turn] for a, b in pairwise([*firsts, len(spoken)])]
    return _spans(transcript, firsts, [None] * len(firsts), _distinctive_titles(parts))


def _spans(
    transcript: Transcript, firsts: Sequence[int], titles: Sequence[str | None], made: Sequence[str]
) -> tuple[Chapter, ...]:
    """Chapters that begin at the turns `firsts`; where `titles` has none, the one in `made` is ours."""
    found = []
    for number, (first, after) in enumerate(pairwise([*firsts, len(transcript.turns)])):
        start_s = transcript.turns[first].start_s
        end_s = max(start_s, transcript.turns[after - 1].end_s)
        title = titles[number]
        found.append(Chapter(title or made[number], start_s, end_s, first, after - 1, title is None))
    return tuple(found)


def _distinctive_titles(parts: Sequence[Sequence[Term]]) -> list[str]:
    """A title for each part, of the terms that tell it from the rest.

    A term scores p log(p / q), its share of the Kullback-Leibler divergence between the words of the part (p) and those
    of all other parts (q, with half a count added): often said here, seldom elsewhere.
    """
    everything = Counter(term.stem for part in parts for term in part)
    total = everything.total() + 0.5 * len(everything)
    forms = _commonest_forms(parts)
    titles = []
    for number, part in enumerate(parts, start=1):
        scores = {}
        for stem, count in Counter(term.stem for term in part).items():
            share = count / len(part)
            scores[stem] = share * math.log(share * (total - len(part)) / (everything[stem] - count + 0.5))
        best = sorted(scores, key=lambda stem: (-scores[stem], stem))[:_TITLE_TERMS]
        title = ", ".join(forms[stem] for stem in best)
        titles.append(title[:1].upper() + title[1:] if title else f"Part {number}")
    return titles


def _commonest_forms(parts: Sequence[Sequence[Term]]) -> dict[str, str]:
    """How each stem is written most often; the alphabet settles a tie."""
    counted = Counter(term for part in parts for term in part)
    rarest_first = sorted(counted, key=lambda term: (counted[term], term.shown))
    return {term.stem: term.shown for term in rarest_first}


def _sentences(transcript: Transcript, chapters: Sequence[Chapter]) -> Iterator[_Spoken]:
    """Every sentence of the transcript with the chapter of its turn; 0 where there are no chapters."""
    chapter = 0
    for number, turn in enumerate(transcript.turns):
        while chapter + 1 < len(chapters) and number >= chapters[chapter + 1].first_turn:
            chapter += 1
        for start, end in sentences(turn.text):
            yield _Spoken(turn.text[start:end], number, chapter)


def _preferred(spoken: Sequence[_Spoken], scores: NDArray[np.float64], chapters: Sequence[Chapter]) -> Iterator[int]:
    """The sentences of fitting length in the order in which they may be quoted; some come twice."""
    welcome = [WELCOME.search(chapter.title) is not None for chapter in chapters] or [False]
    fit = [row for row, sentence in enumerate(spoken) if len(sentence.text.split()) in QUOTE_WORDS]
    fit.sort(key=lambda row: (-scores[row], row))
    whole = [row for row in fit if _stands_alone(spoken[row].text) and not welcome[spoken[row].chapter]]
    leaders = {spoken[row].chapter: row for row in reversed(whole)}.values()
    yield from sorted(leaders, key=lambda row: (-scores[row], row))
    yield from whole
    yield from fit


def _stands_alone(text: str) -> bool:
    """Whether a sentence is whole and states something: it begins like one and ends with a full stop."""
    end = text.rstrip("\"'”’»)]`*")
    return not text[0].islower() and end.endswith((".", "!", "。", "！")) and not end.endswith("..")


def _quote(transcript: Transcript, sentence: _Spoken, score: float) -> KeyQuote:
    turn = transcript.turns[sentence.turn]
    return KeyQuote(sentence.text, turn.speaker, turn.start_s, sentence.turn, score)
