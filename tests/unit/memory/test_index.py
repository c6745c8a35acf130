"""What `Flat` adds to the contract of every index: bytes, precision, the raw cosines."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.errors import InputError
from windlass.memory.index import Flat, quantised


def unit(count: int, dimensions: int = 384, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_row_costs_a_byte_a_dimension_and_twelve():
    index = Flat(384)
    index.add(range(100), unit(100))
    rows = index._rows
    assert (rows.ids.nbytes + rows.data.nbytes + rows.norms.nbytes) / 100 == 384 + 12


def test_the_cosine_is_within_three_thousandths_of_float32():
    rows, query = unit(2_000), unit(1, seed=1)[0]
    index = Flat(384)
    index.add(range(2_000), rows)
    ids, cosines = index.cosines(query)
    assert ids.tolist() == list(range(2_000))
    assert np.abs(cosines - rows @ query).max() < 0.003


def test_the_order_of_adding_does_not_matter():
    rows = unit(50, 16)
    one, other = Flat(16), Flat(16)
    one.add(range(50), rows)
    for number in np.random.default_rng(3).permutation(50):
        other.add([number], rows[number : number + 1])
    assert one.search(rows[7], 50) == other.search(rows[7], 50)


def test_cosines_among_ids_that_are_not_there_are_none():
    index = Flat(16)
    index.add([4, 2], unit(2, 16))
    ids, cosines = index.cosines(unit(1, 16)[0], np.array([9, 4]))
    assert ids.tolist() == [4]
    assert cosines.shape == (1,)


def test_negative_k_finds_nothing():
    index = Flat(16)
    index.add([1], unit(1, 16))
    assert index.search(unit(1, 16)[0], -3) == []


@pytest.mark.parametrize(
    "vectors", [np.ones(16), np.ones((2, 15)), np.array([[np.nan] * 16]), np.array([[np.inf] * 16])]
)
def test_what_is_no_row_of_numbers_is_refused(vectors):
    with pytest.raises(InputError):
        quantised(vectors, 16, 127.0)


def test_quantised_rows_of_the_wrong_length_are_refused():
    with pytest.raises(InputError, match=r"\(ids, 16\)"):
        Flat(16).add_quantised(np.array([1]), np.ones((1, 12), np.int8))


def test_the_largest_component_of_a_row_becomes_the_scale():
    assert quantised(np.array([[0.1, -0.2, 0.0]]), 3, 127.0).tolist() == [[64, -127, 0]]
    assert quantised(np.array([[1e-44, 0.0, 0.0]]), 3, 127.0).tolist() == [[0, 0, 0]]
    assert quantised(np.array([[3e38, -3e38, 0.0]]), 3, 127.0).tolist() == [[127, -127, 0]]
