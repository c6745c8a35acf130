"""Every vector index keeps the contract, and the suite notices one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.memory.check import check_index
from windlass.memory.index import Flat


def test_flat_keeps_the_contract():
    check_index(Flat)


def test_a_coarse_flat_does_not():
    with pytest.raises(AssertionError, match="in truth"):
        check_index(lambda dimensions: Flat(dimensions, scale=3.0))


class _Forgetful(Flat):
    def search(self, query, k, among=None):
        return super().search(query, k, None)


class _Hoarder(Flat):
    def remove(self, ids):
        pass


class _Credulous(Flat):
    def add(self, ids, vectors):
        super().add(ids, np.nan_to_num(vectors))


@pytest.mark.parametrize(
    ("broken", "promise"),
    [(_Forgetful, "among"), (_Hoarder, "removed id is gone"), (_Credulous, "NaN in a row")],
)
def test_a_broken_promise_is_named(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_index(broken)
