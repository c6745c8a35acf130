"""The words that tell what a passage is about."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# Longer runs of letters are no words; cut, they cannot fill the cache either.
_WORD = re.compile(r"\w{1,64}(?:['’.-]\w{1,64}){0,4}")
_FUNCTION_WORDS = """
    a about above absolutely actually after again ago ah all almost already alright also although always am an and
    another any anybody anymore anyone anything anyway anyways are around as ask at away back basically be because been
    before being below best better between big bit both but by call called came can case certain certainly come comes
    completely correct could couple course did different do does doing done down each easily either else end enough
    especially essentially etc even ever every everybody everyone everything exactly example fact fair far few fine
    first for from fun funny further gets get getting give given go goes going gone gonna good got gotta great guess guy
    had happen happened happening happens hard has have having he hello hence her here hey hi him his hmm hopefully how
    however i idea if important in indeed instead interesting into is issue it its itself just keep kind kinda knew know
    known last later least less let like likely literally little long look lot made mainly make makes making many may
    maybe me mean means mention mentioned might mine mine mm more most mostly much must my myself name need never new
    next nice no nobody none nope nor not nothing now obviously of off often oh ok okay old on once one only onto or
    other others otherwise our ours out over own part people perfect perhaps place play point possible possibly pretty
    probably problem put question quite rather re read real really reason remember right said same saw say saying says
    second see seem seems seen sense several she should show similar simply since so some somebody somehow someone
    something sometimes somewhat somewhere soon sort start started still stuff such suppose sure take taken takes taking
    talk talked talking tell than thank thanks that the their them themselves then there these they thing think thinking
    third this those though thought three through time to today together told too took totally toward tried true try
    trying turn two uh um under unless until up upon us use used useful uses using usually very wait want wanted wants
    was way we week well went were what whatever when where whether which while who whole whom whose why will wise wish
    with within without word words work works worked would wow wrong yeah year years yep yes yet you your yours yourself
    zero
"""
_STOP = frozenset(_FUNCTION_WORDS.split())
_CONTRACTION = re.compile(r"'(?:s|d|m|re|ve|ll|t)$")


class Term(NamedTuple):
    """A content word: `stem` joins its forms, `shown` is the form that was written."""

    stem: str
    shown: str


def terms(text: str) -> list[Term]:
    """The content words of `text` in order: no function words or fillers, no single letters, plurals joined.

    >>> [term.stem for term in terms("The nodes' blocks are what a node stores.")]
    ['node', 'block', 'node', 'store']
    """
    return [term for term in map(_term, _WORD.findall(text)) if term is not None]


@lru_cache(maxsize=16_384)
def _term(shown: str) -> Term | None:
    """A word as a term; None where it tells nothing. Kept, because a talk says the same words again and again."""
    word = shown.lower().replace("’", "'")
    base = _CONTRACTION.sub("", word)
    stem = _singular(base)
    if len(base) < 2 or base in _STOP or stem in _STOP or word.endswith("n't"):
        return None
    return Term(stem, shown[: len(base)])


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
