"""The passages of a collection that are nearest to a question, by words and by meaning."""

from __future__ import annotations

import msgspec
import numpy as np

from windlass.memory.embedder import Embedder
from windlass.memory.index import Flat, Ids
from windlass.memory.matches import Scores
from windlass.memory.rows import Stored
from windlass.memory.store import Memory, View
from windlass.records import Scope

BM25_WEIGHT = 0.4
COSINE_WEIGHT = 0.6


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that was found, and why.

    `score` is what hits are ordered by; `bm25` is 0 where no term matched, `cosine` 0 where there are no vectors.
    `coverage` in [0, 1] is the share of the query's terms, weighted by their rarity, that the passage holds.
    """

    chunk: int
    item: str
    ordinal: int
    first_segment: int
    last_segment: int
    start_s: float
    text: str
    score: float
    bm25: float
    cosine: float
    coverage: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Hits, best first, and the evidence that there is something to find at all.

    `bm25`, `cosine` and `coverage` are the highest over all passages searched, raw, so that a caller can tell "not in
    memory". `lexical_only`: words alone decided, because a passage has no vector yet or nothing can embed.
    """

    hits: tuple[Hit, ...] = ()
    bm25: float = 0.0
    cosine: float = 0.0
    coverage: float = 0.0
    lexical_only: bool


class _Ranked(msgspec.Struct, frozen=True):
    """The candidates, aligned: id, score, raw BM25, raw cosine, coverage."""

    ids: Ids
    score: Scores
    bm25: Scores
    cosine: Scores
    coverage: Scores


def search(memory: Memory, scope: Scope, collection: str, query: str, k: int = 8, item: str | None = None) -> Results:
    """The at most `k` best passages for `query` in the collection, or in one item of it.

    The order is 0.4 z(BM25) + 0.6 z(cosine), z over all passages searched, BM25 0 where no term matches; equal ones by
    age. With words alone it is z(BM25), and only passages with a matching term are hits. A collection that does not
    exist has no hits. Raises CollectionMismatch, and what the embedder raises.
    """
    view = memory.view(scope, collection, query, item)
    if view is None or not view.size:
        return Results(lexical_only=memory.embedder is None)
    flat, embedder = view.flat, memory.embedder
    ranked = _by_words(view) if flat is None or embedder is None else _by_both(view, flat, embedder, query)
    best = np.argsort(-ranked.score, kind="stable")[: max(k, 0)]
    stored = {chunk.id: chunk for chunk in memory.chunks(scope, collection, ranked.ids[best].tolist())}
    return Results(
        # A passage that was removed since the view was taken is no hit.
        hits=tuple(_hit(stored[ranked.ids[at]], ranked, at) for at in best if ranked.ids[at] in stored),
        bm25=float(ranked.bm25.max(initial=0.0)),
        cosine=float(ranked.cosine.max(initial=-1.0)) if flat is not None else 0.0,
        coverage=float(ranked.coverage.max(initial=0.0)),
        lexical_only=flat is None,
    )


def _by_words(view: View) -> _Ranked:
    """The matching passages by z(BM25)."""
    ids, scores, coverage = view.matches
    mean = scores.sum() / view.size
    deviation = np.sqrt(max(float((scores**2).sum()) / view.size - mean**2, 0.0))
    return _Ranked(ids, _over(scores - mean, deviation), scores, np.zeros(len(ids)), coverage)


def _by_both(view: View, flat: Flat, embedder: Embedder, query: str) -> _Ranked:
    """All passages by the weighted sum of z(BM25) and z(cosine)."""
    ids, cosines = flat.cosines(embedder.embed([query])[0], view.among)
    matches = view.matches.among(ids)
    at = np.searchsorted(ids, matches.ids)
    bm25, coverage, cosine = np.zeros(len(ids)), np.zeros(len(ids)), cosines.astype(np.float64)
    bm25[at], coverage[at] = matches.scores, matches.coverage
    return _Ranked(ids, BM25_WEIGHT * _z(bm25) + COSINE_WEIGHT * _z(cosine), bm25, cosine, coverage)


def _z(values: Scores) -> Scores:
    """Standard scores; all 0 where nothing differs."""
    return _over(values - values.mean(), float(values.std()))


def _over(values: Scores, deviation: float) -> Scores:
    # A deviation that is only rounding would make noise the largest score of all.
    return values / deviation if deviation > 1e-9 else np.zeros_like(values)


def _hit(chunk: Stored, ranked: _Ranked, at: int) -> Hit:
    return Hit(
        chunk=chunk.id,
        item=chunk.item,
        ordinal=chunk.ordinal,
        first_segment=chunk.first_segment,
        last_segment=chunk.last_segment,
        start_s=chunk.start_s,
        text=chunk.text,
        score=float(ranked.score[at]),
        bm25=float(ranked.bm25[at]),
        cosine=float(ranked.cosine[at]),
        coverage=float(ranked.coverage[at]),
    )
