"""Which sentences a text turns around: continuous LexRank (Erkan & Radev 2004, "LexRank: Graph-based Lexical
Centrality as Salience in Text Summarization", JAIR 22, section 3.3)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

DAMPING = 0.15
_TOLERANCE = 1e-9
_MAX_ROUNDS = 200


class Vectors(msgspec.Struct, frozen=True):
    """Sentences as unit tf-idf vectors, in coordinate form: `weights[i]` of `terms[i]` in `rows[i]`.

    rows, terms: (m,) int64, rows ascending; weights: (m,) float64; `count` sentences over `vocabulary` terms.
    """

    count: int
    vocabulary: int
    rows: NDArray[np.int64]
    terms: NDArray[np.int64]
    weights: NDArray[np.float64]

    def similarities(self, row: int) -> NDArray[np.float64]:
        """The idf-modified cosine (eq. 1 of the paper) of one sentence to each; shape (count,)."""
        query = np.zeros(self.vocabulary)
        own = slice(*np.searchsorted(self.rows, [row, row + 1]))
        query[self.terms[own]] = self.weights[own]
        return self.times(query)

    def times(self, by_term: NDArray[np.float64]) -> NDArray[np.float64]:
        """X v: from values by term (vocabulary,) to values by sentence (count,)."""
        return np.bincount(self.rows, self.weights * by_term[self.terms], self.count).astype(np.float64, copy=False)

    def transposed_times(self, by_row: NDArray[np.float64]) -> NDArray[np.float64]:
        """X' u: from values by sentence (count,) to values by term (vocabulary,)."""
        return np.bincount(self.terms, self.weights * by_row[self.rows], self.vocabulary).astype(np.float64, copy=False)


def vectors(sentences: Sequence[Sequence[str]]) -> Vectors:
    """Unit tf-idf vectors of sentences given as content words; idf = log(sentences / sentences with the term)."""
    numbers: dict[str, int] = {}
    rows: list[int] = []
    terms: list[int] = []
    counts: list[int] = []
    for row, words in enumerate(sentences):
        for word, count in Counter(words).items():
            rows.append(row)
            terms.append(numbers.setdefault(word, len(numbers)))
            counts.append(count)
    at_rows, at_terms = np.array(rows, dtype=np.int64), np.array(terms, dtype=np.int64)
    holding = np.bincount(at_terms, minlength=len(numbers))
    weights = np.array(counts, dtype=np.float64) * np.log(len(sentences) / np.maximum(holding, 1))[at_terms]
    norms = np.sqrt(np.bincount(at_rows, weights**2, len(sentences)))
    weights = np.divide(weights, norms[at_rows], out=np.zeros_like(weights), where=norms[at_rows] > 0)
    return Vectors(len(sentences), len(numbers), at_rows, at_terms, weights)


def centrality(matrix: Vectors) -> NDArray[np.float64]:
    """The LexRank of each sentence times their number, so that 1.0 is average; shape (count,).

    The stationary distribution of a walk that jumps to any sentence with probability 0.15 and else goes to a similar
    one with probability proportional to the cosine. The cosine matrix is X X', so each step of the power method
    multiplies by X' and X and never builds it: linear in the number of words.
    """
    if not matrix.count:
        return np.zeros(0)
    degree = matrix.times(matrix.transposed_times(np.ones(matrix.count)))
    # A sentence without any weight is similar to none, not even to itself; its walker jumps.
    linked = degree > 1e-12
    rank = np.full(matrix.count, 1 / matrix.count)
    for _ in range(_MAX_ROUNDS):
        flow = np.divide(rank, degree, out=np.zeros_like(rank), where=linked)
        walked = matrix.times(matrix.transposed_times(flow)) + math.fsum(rank[~linked]) / matrix.count
        following = DAMPING / matrix.count + (1 - DAMPING) * walked
        if float(np.abs(following - rank).sum()) < _TOLERANCE:
            rank = following
            break
        rank = following
    return rank * matrix.count
