"""What a search by words finds: the terms of a query, and the chunks that hold them with their BM25."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from windlass.memory.index import Ids
from windlass.stats.stopwords import STOP_WORDS

MAX_TERMS = 64
MAX_TERM_CHARACTERS = 128
MAX_QUERY_CHARACTERS = 16_384

Scores: TypeAlias = NDArray[np.float64]

_WORD = re.compile(r"\w+")


class Matches(NamedTuple):
    """The chunks that hold at least one term of a query.

    `ids` ascend; `scores` are BM25, higher is better; `coverage` in [0, 1] is the share of the query that the chunk
    holds, its terms weighted by their rarity (idf).
    """

    ids: Ids
    scores: Scores
    coverage: Scores

    def among(self, ids: Ids) -> Matches:
        """Only the matches in `ids`."""
        kept = np.isin(self.ids, ids)
        return Matches(self.ids[kept], self.scores[kept], self.coverage[kept])


def terms(query: str) -> tuple[str, ...]:
    """The at most 64 distinct words of `query` that are worth looking up: no function words, unless nothing else is.

    >>> terms("Why was Signet created?")
    ('signet', 'created')
    """
    text = unicodedata.normalize("NFC", query[:MAX_QUERY_CHARACTERS]).casefold()
    words = dict.fromkeys(word for word in _WORD.findall(text) if len(word) <= MAX_TERM_CHARACTERS)
    content = [word for word in words if word not in STOP_WORDS]
    return tuple((content or list(words))[:MAX_TERMS])


def rarity(holders: int, size: int) -> float:
    """The idf of BM25 for a term that `holders` of `size` chunks hold; a word of most chunks counts next to nothing."""
    return max(float(np.log((size - holders + 0.5) / (holders + 0.5))), 1e-6)


def joined(found: Sequence[tuple[Ids, Scores, float]]) -> Matches:
    """The matches of several terms as those of their disjunction."""
    if not found:
        return Matches(np.empty(0, np.int64), np.empty(0), np.empty(0))
    ids, inverse = np.unique(np.concatenate([ids for ids, _, _ in found]), return_inverse=True)
    scores, coverage = np.zeros(len(ids)), np.zeros(len(ids))
    np.add.at(scores, inverse, np.concatenate([scores for _, scores, _ in found]))
    np.add.at(coverage, inverse, np.concatenate([np.full(len(ids), idf) for ids, _, idf in found]))
    return Matches(ids, scores, coverage / sum(idf for _, _, idf in found))
