"""The basis keeps the directions in which prompts differ, at one scale, and its bytes are all of it."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.stats.basis import SIZE, Basis


def embeddings(rows=256, columns=384, seed=0):
    """Unit vectors near a few topics."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(12, columns))
    found = topics[rng.integers(12, size=rows)] + 0.7 * rng.normal(size=(rows, columns))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_numbers_have_mean_0_and_mean_squared_length_1():
    table = embeddings()
    numbers = Basis.fit(table).transform(table)
    assert numbers.shape == (256, SIZE)
    np.testing.assert_allclose(numbers.mean(axis=0), 0.0, atol=1e-6)
    assert (numbers**2).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-4)
    spread = numbers.var(axis=0)
    assert (np.diff(spread) <= 1e-9).all()
    assert spread[0] > 3 * spread[-1]


def test_what_is_alike_stays_alike():
    """Prompts of one topic that were not fitted on are nearer to each other than to others."""
    basis, rng = Basis.fit(embeddings()), np.random.default_rng(0)
    topics = rng.normal(size=(12, 384))
    pairs = [topic + 0.7 * np.random.default_rng(8).normal(size=(2, 384)) for topic in topics]
    near = [basis.transform(pair / np.linalg.norm(pair, axis=1, keepdims=True)) for pair in pairs]
    within = np.mean([np.linalg.norm(one - other) for one, other in near])
    across = np.mean([np.linalg.norm(near[i][0] - near[i - 1][1]) for i in range(12)])
    assert within < across


def test_bytes_are_all_of_it():
    basis = Basis.fit(embeddings(64, 40))
    again = Basis.from_bytes(basis.to_bytes())
    assert again.to_bytes() == basis.to_bytes()
    one = embeddings(1, 40, 5)[0]
    assert np.array_equal(again.transform(one), basis.transform(one))
    assert len(Basis.fit(embeddings()).to_bytes()) < 110_000


def test_the_order_of_the_prompts_does_not_matter():
    table = embeddings()
    one, other = Basis.fit(table), Basis.fit(table[::-1])
    np.testing.assert_allclose(one.transform(table[0]), other.transform(table[0]), atol=1e-4)


def test_few_rows_leave_the_last_numbers_0():
    numbers = Basis.fit(embeddings(10)).transform(embeddings(3, seed=4))
    assert numbers.shape == (3, SIZE)
    assert not numbers[:, 10:].any()
    assert not Basis.fit(np.ones((5, 8))).transform(np.zeros(8)).any()


@pytest.mark.parametrize("table", [np.zeros((1, 8)), np.zeros(8), np.full((4, 8), np.nan), np.full((4, 8), 1e9)])
def test_what_is_no_table_of_embeddings_is_refused(table):
    with pytest.raises(ValueError, match="at least two rows"):
        Basis.fit(table)


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x93\xa1x\xc4\x00\xc4\x00", Basis.fit(embeddings(64, 40)).to_bytes()[:-8]]
)
def test_other_bytes_are_refused(raw):
    with pytest.raises(ValueError, match="fit it again"):
        Basis.from_bytes(raw)


def test_parts_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="center"):
        Basis(np.zeros(3), np.zeros((SIZE, 4)))
    with pytest.raises(ValueError, match="finite"):
        Basis(np.full(3, np.inf), np.zeros((SIZE, 3)))
