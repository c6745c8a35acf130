"""What every vector index must do. `check_index` is the one suite that all of them are held to."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from windlass.errors import InputError
from windlass.memory.index import Floats, Index

DIMENSIONS = 64
COSINE_ERROR = 0.02
_ROWS = 1_500


def check_index(make: Callable[[int], Index], *, recall: float = 1.0) -> None:
    """Hold fresh indexes from `make(dimensions)` to the contract; AssertionError says which promise broke.

    recall: the least share of the 10 true neighbours that a search must find, over 50 queries; rows within the error
    of quantisation (cosine 0.02) count as equally near.
    """
    _nearest(make(DIMENSIONS), recall)
    for promise in (_empty, _replaces, _removes, _among, _ties, _refuses, _hostile, _threads):
        promise(make(DIMENSIONS))


def _vectors(count: int, seed: int = 0) -> Floats:
    drawn = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    unit: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _axis(place: int, sign: float = 1.0) -> Floats:
    row = np.zeros(DIMENSIONS, np.float32)
    row[place] = sign
    return row


def _nearest(index: Index, recall: float) -> None:
    rows, queries = _vectors(_ROWS), _vectors(50, seed=1)
    ids = [int(place) for place in np.random.default_rng(2).permutation(_ROWS) * 7 + 3]
    for start in range(0, _ROWS, 400):
        index.add(ids[start : start + 400], rows[start : start + 400])
    assert len(index) == _ROWS, f"{_ROWS} rows were added, the index has {len(index)}"
    place = {held: number for number, held in enumerate(ids)}
    found = 0
    for query in queries:
        true = rows @ query
        hits = index.search(query, 10)
        cosines = [cosine for _, cosine in hits]
        assert len(hits) == 10, f"a search for 10 of {_ROWS} gave {len(hits)}"
        assert cosines == sorted(cosines, reverse=True), "the nearest comes first"
        for held, cosine in hits:
            assert abs(cosine - true[place[held]]) <= COSINE_ERROR, f"cosine {cosine}, in truth {true[place[held]]}"
        tenth = float(np.sort(true)[-10])
        found += sum(true[place[held]] >= tenth - COSINE_ERROR for held, _ in hits)
        assert hits == index.search(query, 10), "the same search gives the same answer"
    assert found >= recall * 10 * len(queries), f"recall {found / 10 / len(queries):.3f}, wanted {recall}"


def _empty(index: Index) -> None:
    assert index.search(_axis(0), 5) == [], "an empty index finds nothing"
    index.add([], np.empty((0, DIMENSIONS), np.float32))
    index.remove([])
    assert len(index) == 0, "adding nothing adds nothing"
    index.add([1], _axis(0)[None])
    assert index.search(_axis(0), 0) == [], "k = 0 finds nothing"
    assert [held for held, _ in index.search(_axis(0), 99)] == [1], "k beyond the rows finds all of them"


def _replaces(index: Index) -> None:
    index.add([1, 2], np.stack([_axis(0), _axis(1)]))
    index.add([1], _axis(2)[None])
    assert len(index) == 2, "an id that comes again is replaced, not doubled"
    assert index.search(_axis(2), 1)[0][0] == 1, "the newer row counts"
    index.add([5, 5], np.stack([_axis(3), _axis(4)]))
    assert len(index) == 3, "an id that is given twice in one call is one row"
    assert index.search(_axis(4), 1)[0][0] == 5, "of an id given twice the last row counts"


def _removes(index: Index) -> None:
    index.add([1, 2, 3], np.stack([_axis(0), _axis(1), _axis(2)]))
    index.remove([2, 2, 77])
    assert len(index) == 2, "a removed id is gone, an unknown one no error"
    assert {held for held, _ in index.search(_axis(1), 9)} == {1, 3}, "a removed row is never found"
    index.add([2], _axis(1)[None])
    assert index.search(_axis(1), 1)[0][0] == 2, "a removed id can come back"


def _among(index: Index) -> None:
    rows = _vectors(300)
    index.add(list(range(300)), rows)
    some = list(range(0, 300, 7))
    hits = index.search(rows[1], 5, among=[*some, 999, some[0]])
    assert len(hits) == 5, "`among` leaves as many hits as it has ids"
    assert {held for held, _ in hits} <= set(some), "`among` keeps the search to its ids"
    assert index.search(rows[1], 5, among=[]) == [], "among nothing there is nothing"


def _ties(index: Index) -> None:
    index.add([9, 4, 7, 1], np.stack([_axis(0)] * 4))
    assert [held for held, _ in index.search(_axis(0), 4)] == [1, 4, 7, 9], "equal rows come by id"


def _refuses(index: Index) -> None:
    index.add([1], _axis(0)[None])
    row = _axis(1)
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("another dimension", lambda: index.add([2], np.ones((1, DIMENSIONS + 1), np.float32))),
        ("fewer ids than rows", lambda: index.add([2], np.stack([row, row]))),
        ("NaN in a row", lambda: index.add([2], (row * np.nan)[None])),
        ("infinity in a row", lambda: index.add([2], np.full((1, DIMENSIONS), np.inf, np.float32))),
        ("a query of another dimension", lambda: index.search(np.ones(DIMENSIONS - 1, np.float32), 1)),
        ("NaN in a query", lambda: index.search(row * np.nan, 1)),
    ]
    for what, attempt in wrong:
        try:
            attempt()
        except InputError:
            continue
        raise AssertionError(f"the index took {what}")
    assert len(index) == 1, "what was refused left nothing behind"


def _hostile(index: Index) -> None:
    index.add([1, 2, 3, 4], np.stack([_axis(0) * 0, _axis(0) * 1e-38, _axis(0) * 1e30, _axis(0, -1.0)]))
    found = dict(index.search(_axis(0), 9))
    assert all(np.isfinite(list(found.values()))), f"cosines are finite, not {found}"
    assert found[1] == 0.0, "a row of length zero has cosine 0"
    assert np.allclose([found[3], found[4]], [1.0, -1.0], atol=1e-5), "length does not change a cosine"
    assert {cosine for _, cosine in index.search(_axis(0) * 0, 9)} == {0.0}, "a query of length zero has cosine 0"


def _threads(index: Index) -> None:
    rows = _vectors(400)

    def write(part: int) -> None:
        ids = list(range(part * 100, part * 100 + 100))
        index.add(ids, rows[ids])
        index.remove(ids[:10])

    def read(_: int) -> None:
        for held, cosine in index.search(rows[0], 20):
            assert abs(cosine - rows[held] @ rows[0]) <= COSINE_ERROR, "a search beside a write reads torn rows"

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(write, part) for part in range(4)] + [threads.submit(read, n) for n in range(40)]
        for done in waiting:
            done.result()
    assert len(index) == 360, f"four writers left 360 rows, the index has {len(index)}"
