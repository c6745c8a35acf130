"""Ranking: 0.4 z(BM25) + 0.6 z(cosine), words alone while a vector is missing, and what says "not in memory"."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.memory.chunk import Passage
from windlass.memory.retrieval import search
from windlass.memory.store import Memory
from windlass.records import Scope

US = Scope("us")
NAME = "talks"
TEXTS = {
    "fruit": ("red apple pie", "green pear tart", "apple pear crumble", "blue plum cake"),
    "ships": ("the anchor holds", "a windlass lifts the anchor", "a capstan turns"),
}


def filled(db, embedder, vectors: int = 100) -> Memory:
    memory = Memory(db, embedder)
    for item, texts in TEXTS.items():
        memory.put_text(US, NAME, item, [Passage(n, 2 * n, 2 * n + 1, 30.0 * n, text) for n, text in enumerate(texts)])
    if vectors:
        memory.put_vectors(US, NAME, memory.pending(US, NAME, vectors))
    return memory


def z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def test_the_score_is_the_weighted_sum_of_standard_scores(db, bag):
    results = search(filled(db, bag), US, NAME, "apple pear", k=99)
    assert (results.lexical_only, len(results.hits)) == (False, 7)
    bm25 = np.array([hit.bm25 for hit in results.hits])
    cosine = np.array([hit.cosine for hit in results.hits])
    assert [hit.score for hit in results.hits] == pytest.approx(0.4 * z(bm25) + 0.6 * z(cosine))
    assert results.hits[0].text == "apple pear crumble"
    assert sorted(bm25 == 0.0) == [False] * 3 + [True] * 4


def test_the_standard_scores_inside_an_item_are_over_its_passages(db, bag):
    results = search(filled(db, bag), US, NAME, "anchor", k=99, item="ships")
    assert {hit.item for hit in results.hits} == {"ships"}
    assert len(results.hits) == 3
    scores = np.array([[hit.bm25, hit.cosine] for hit in results.hits])
    assert [hit.score for hit in results.hits] == pytest.approx(0.4 * z(scores[:, 0]) + 0.6 * z(scores[:, 1]))


def test_a_hit_knows_where_it_stands(db, bag):
    hit = search(filled(db, bag), US, NAME, "plum cake", k=1).hits[0]
    assert (hit.item, hit.ordinal, hit.first_segment, hit.last_segment, hit.start_s) == ("fruit", 3, 6, 7, 90.0)
    assert hit.text == "blue plum cake"
    assert hit.coverage == pytest.approx(1.0)


def test_words_alone_decide_without_an_embedder(db):
    results = search(filled(db, None, vectors=0), US, NAME, "apple pear", k=99)
    assert results.lexical_only
    assert results.cosine == 0.0
    assert results.hits[0].text == "apple pear crumble"
    assert len(results.hits) == 3
    bm25 = np.array([hit.bm25 for hit in results.hits] + [0.0] * 4)
    assert [hit.score for hit in results.hits] == pytest.approx(z(bm25)[:3])


def test_words_alone_decide_while_a_vector_is_missing(db, bag):
    memory = filled(db, bag, vectors=5)
    bag.texts.clear()
    results = search(memory, US, NAME, "anchor", k=99)
    assert results.lexical_only
    assert {hit.text for hit in results.hits} == {"the anchor holds", "a windlass lifts the anchor"}
    assert bag.texts == []
    assert not search(memory, US, NAME, "apple", item="fruit").lexical_only
    memory.put_vectors(US, NAME, memory.pending(US, NAME, 9))
    assert not search(memory, US, NAME, "anchor").lexical_only


def test_the_evidence_is_the_best_of_all_passages(db, bag):
    memory = filled(db, bag)
    known = search(memory, US, NAME, "red apple pie", k=1)
    assert known.cosine == pytest.approx(1.0, abs=0.01)
    assert known.coverage == pytest.approx(1.0)
    assert known.bm25 == known.hits[0].bm25 > 0
    unknown = search(memory, US, NAME, "quantum chromodynamics lagrangian", k=1)
    assert (unknown.bm25, unknown.coverage) == (0.0, 0.0)
    assert unknown.cosine < 0.6
    half = search(memory, US, NAME, "apple lagrangian", k=1)
    assert 0 < half.coverage < 0.6


def test_one_passage_is_found_although_nothing_differs(db, bag):
    memory = Memory(db, bag)
    memory.put_text(US, NAME, "only", [Passage(0, 0, 0, 0.0, "one passage")])
    memory.put_vectors(US, NAME, memory.pending(US, NAME, 9))
    (hit,) = search(memory, US, NAME, "passage").hits
    assert hit.score == 0.0
    assert hit.bm25 > 0


def test_equal_passages_come_in_the_order_they_came_in(db, bag):
    memory = Memory(db, bag)
    memory.put_text(US, NAME, "same", [Passage(number, 0, 0, 0.0, "same words") for number in range(5)])
    assert [hit.ordinal for hit in search(memory, US, NAME, "words").hits] == [0, 1, 2, 3, 4]
    memory.put_vectors(US, NAME, memory.pending(US, NAME, 9))
    assert [hit.ordinal for hit in search(memory, US, NAME, "words").hits] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("query", ["", "   ", "?!", "🙂", "\x00", '"', "(" * 1_000, "the of and", "x" * 1_000_000])
def test_any_text_is_a_query(db, bag, query):
    hits = search(filled(db, bag), US, NAME, query, k=3).hits
    assert len(hits) == 3
    assert all(np.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize(("k", "expected"), [(-1, 0), (0, 0), (2, 2), (1_000, 7)])
def test_k_limits_the_hits(db, bag, k, expected):
    assert len(search(filled(db, bag), US, NAME, "apple", k=k).hits) == expected


def test_nothing_is_found_where_there_is_nothing(db, bag):
    memory = filled(db, bag)
    assert search(memory, US, "elsewhere", "apple").hits == ()
    assert search(memory, US, NAME, "apple", item="unknown").hits == ()
    assert not search(memory, US, NAME, "apple", item="unknown").lexical_only
    assert search(Memory(db, None), US, "elsewhere", "apple").lexical_only
    memory.collection(US, "empty")
    assert search(memory, US, "empty", "apple").hits == ()


def test_a_passage_removed_in_the_middle_of_a_search_is_no_hit(db, bag, monkeypatch):
    memory = filled(db, bag)
    view = memory.view
    monkeypatch.setattr(memory, "view", lambda *arguments: (view(*arguments), memory.remove(US, NAME, "ships"))[0])
    assert {hit.item for hit in search(memory, US, NAME, "anchor", k=99).hits} == {"fruit"}
