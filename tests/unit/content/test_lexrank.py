from __future__ import annotations

import numpy as np
import pytest

from windlass.content import lexrank

SENTENCES = [
    ["the", "lock", "holds", "the", "water", "of", "the", "canal"],
    ["the", "water", "of", "the", "lock", "lifts", "the", "boat"],
    ["the", "boat", "waits", "below", "the", "lock"],
    ["gates", "hold", "water"],
    ["bread", "is", "baked", "at", "night"],
    [],
]


def dense(sentences: list[list[str]]) -> np.ndarray:
    """The cosine matrix of the paper's eq. 1, written out."""
    vocabulary = sorted({word for words in sentences for word in words})
    counts = np.array([[words.count(word) for word in vocabulary] for words in sentences], dtype=float)
    idf = np.log(len(sentences) / np.maximum((counts > 0).sum(axis=0), 1))
    weighted = counts * idf
    norms = np.linalg.norm(weighted, axis=1, keepdims=True)
    unit = np.divide(weighted, norms, out=np.zeros_like(weighted), where=norms > 0)
    return unit @ unit.T


def test_similarities_are_the_idf_modified_cosine() -> None:
    matrix, expected = lexrank.vectors(SENTENCES), dense(SENTENCES)
    for row in range(len(SENTENCES)):
        np.testing.assert_allclose(matrix.similarities(row), expected[row], atol=1e-12)


def test_centrality_is_the_stationary_distribution_of_the_walk() -> None:
    cosine, n = dense(SENTENCES), len(SENTENCES)
    degree = cosine.sum(axis=1, keepdims=True)
    walk = np.where(degree > 0, np.divide(cosine, degree, out=np.zeros_like(cosine), where=degree > 0), 1 / n)
    values, left = np.linalg.eig((lexrank.DAMPING / n + (1 - lexrank.DAMPING) * walk).T)
    stationary = np.real(left[:, np.argmax(np.real(values))])
    expected = stationary / stationary.sum() * n
    np.testing.assert_allclose(lexrank.centrality(lexrank.vectors(SENTENCES)), expected, atol=1e-6)


def test_what_nobody_shares_ranks_below_what_many_share() -> None:
    scores = lexrank.centrality(lexrank.vectors(SENTENCES))
    assert np.argmax(scores) in (0, 1)
    assert scores[4] < scores[[0, 1]].min()
    assert scores.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("sentences", [[], [[]], [["a"]], [["a"], ["a"]], [[], [], []], [["a"], ["b"]]], ids=str)
def test_degenerate_texts_rank_all_sentences_alike(sentences: list[list[str]]) -> None:
    np.testing.assert_allclose(lexrank.centrality(lexrank.vectors(sentences)), np.ones(len(sentences)))
