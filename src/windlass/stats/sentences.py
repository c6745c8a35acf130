"""Where the sentences of a text begin and end."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

LONG_WORDS = 60
_SHORTEST_PIECE_WORDS = 15

_WORD = re.compile(r"\S+")
# A sentence may end after . ! ? or an ellipsis with its closing quotes and brackets, before white space; the marks of
# Chinese and Japanese end one without white space. A run of marks is read once, from its beginning.
_STOP = re.compile(r"(?:(?<![.!?…])[.!?…]++[\"'”’»)\]*`_]*+(?=\s)|[。！？]++[」』”’）]*+)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:e\.g|i\.e|cf|vs|viz|approx|resp|incl|al|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Corp|Co|Fig|Eq|Sec|Ch|Vol"
    r"|Nr|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec|(?:[A-Za-z]\.)*[A-HJ-Z])\.$"
)
_OPENING = "\"'“‘«([*`_-—– "
_CLAUSE_END = re.compile(r"[,;:—–][\"'”’)\]]*$")
_CLAUSE_START = frozenset(
    ("and", "but", "so", "because", "which", "that", "or", "where", "when", "while", "then", "if")
)


def sentences(text: str) -> tuple[Span, ...]:
    """The character spans of the sentences of `text`, in order: `text[a:b]` is verbatim, without outer white space.

    Every character that is not white space lies in exactly one span. Decimal points and versions (0.21.0, v22.0),
    common abbreviations, initials and an ellipsis before a small letter do not end a sentence. A sentence of more
    than 60 words is cut at commas and other clause borders.

    >>> [text[a:b] for text in ["It is 0.21. Hooray!"] for a, b in sentences(text)]
    ['It is 0.21.', 'Hooray!']
    """
    spans: list[Span] = []
    for start, end in _whole(text):
        spans.extend(_pieces(text, start, end))
    return tuple(spans)


def _whole(text: str) -> Iterator[Span]:
    """Sentences of any length."""
    start = 0
    for stop in _STOP.finditer(text):
        if _ends(text, start, stop):
            yield from _trimmed(text, start, stop.end())
            start = stop.end()
    yield from _trimmed(text, start, len(text))


def _ends(text: str, start: int, stop: re.Match[str]) -> bool:
    """Whether the mark at `stop` ends the sentence that began at `start`."""
    mark = stop.group()
    if mark[0] in "。！？" or "!" in mark or "?" in mark:
        return True
    follower = _next_letter(text, stop.end())
    if follower.islower():
        return False
    if mark[0] == "." and not mark.startswith(".."):
        return _ABBREVIATION.search(text[max(start, stop.start() - 12) : stop.start() + 1]) is None
    return True


def _next_letter(text: str, at: int) -> str:
    """The first character after `at` that is neither white space nor an opening mark; '' at the end.

    Looks 16 characters ahead: more opening marks than that are no beginning of a sentence.
    """
    return text[at : at + 16].lstrip().lstrip(_OPENING)[:1]


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    """The span without white space at its ends; nothing when nothing is left."""
    part = text[start:end]
    body = part.strip()
    if body:
        first = start + len(part) - len(part.lstrip())
        yield first, first + len(body)


def _pieces(text: str, start: int, end: int) -> Iterator[Span]:
    """The span itself, or its parts of at most 60 words, cut at the latest clause border within reach."""
    words = [(match.start(), match.end()) for match in _WORD.finditer(text, start, end)]
    at = 0
    while len(words) - at > LONG_WORDS:
        cut = _cut(text, words, at)
        yield words[at][0], words[cut - 1][1]
        at = cut
    yield words[at][0], words[-1][1]


def _cut(text: str, words: list[Span], at: int) -> int:
    """Index of the word that begins the next piece of the words from `at` on."""
    last = min(at + LONG_WORDS, len(words) - _SHORTEST_PIECE_WORDS)
    reach = range(last, at + _SHORTEST_PIECE_WORDS, -1)
    for cut in reach:
        if _CLAUSE_END.search(text[words[cut - 1][0] : words[cut - 1][1]][-8:]):
            return cut
    for cut in reach:
        if text[words[cut][0] : words[cut][1]].lower() in _CLAUSE_START:
            return cut
    return last
