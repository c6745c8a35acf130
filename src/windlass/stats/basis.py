"""From the embedding of a prompt to the few numbers that the router looks at: principal components, not whitened.

`Basis.fit` takes the embeddings of the first prompts that were seen; what lies along their directions of largest
variance is kept, as it is, so that a direction in which prompts hardly differ can hardly matter (Jolliffe, "Principal
Component Analysis", 2nd ed., 2002, sections 2.1 and 3.5). One factor brings the mean squared length to 1, which is the
scale that the priors of the router are meant for.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

SIZE = 64
_LARGEST = 1e3

Floats = NDArray[np.float64]


class StoredBasis(msgspec.Struct, frozen=True, array_like=True):
    """Raw little-endian float32: the center (n,) and the directions (SIZE, n) with their factor."""

    kind: str
    center: bytes
    directions: bytes


class Basis:
    """center: (n,), what is subtracted from an embedding. directions: (SIZE, n), what it is multiplied by."""

    def __init__(self, center: Floats, directions: Floats) -> None:
        if center.ndim != 1 or directions.shape != (SIZE, len(center)):
            raise ValueError(f"center {center.shape} and directions {directions.shape}; give (n,) and ({SIZE}, n)")
        if not (np.isfinite(center).all() and np.isfinite(directions).all()):
            raise ValueError("a basis must be finite; fit it on embeddings that are")
        self.center = center
        self.directions = directions
        # An embedding is in single precision, and so is a basis as stored; so it is half as much to read.
        self._single = directions.astype(np.float32)
        self._origin: Floats = directions @ center

    @classmethod
    def fit(cls, embeddings: ArrayLike) -> Basis:
        """The basis of `embeddings: (m, n)`, m >= 2, in any order of rows the same up to rounding.

        With fewer rows or columns than `SIZE` the last numbers are always 0. ValueError for what is no such table.
        """
        table = np.asarray(embeddings, np.float64)
        if table.ndim != 2 or len(table) < 2 or not np.isfinite(table).all() or not np.abs(table).max() < _LARGEST:
            raise ValueError(f"embeddings of the shape {table.shape}; give at least two rows of finite numbers")
        center = table.mean(axis=0)
        _, lengths, found = np.linalg.svd(table - center, full_matrices=False)
        found, lengths = found[:SIZE], lengths[:SIZE]
        # The largest entry of each direction is positive: the sign is free, and a replay must find the same one.
        signs = np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])
        spread = float((lengths**2).sum()) / len(table)
        directions = np.zeros((SIZE, table.shape[1]))
        directions[: len(found)] = found * (signs / np.sqrt(spread) if spread > 1e-12 else signs * 0.0)[:, None]
        # Rounded at once to what is stored, so that a basis that was restored gives the same bits.
        return cls(_rounded(center), _rounded(directions))

    def transform(self, embedding: ArrayLike) -> Floats:
        """The SIZE numbers of `embedding: (n,)`, or of each row of (m, n)."""
        numbers: Floats = np.asarray(embedding, np.float32).dot(self._single.T).astype(np.float64) - self._origin
        return numbers

    def to_bytes(self) -> bytes:
        """All of it, about 100 kB for 384 dimensions."""
        return msgspec.msgpack.encode(StoredBasis("principal", _raw(self.center), _raw(self.directions)))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Basis:
        """What `to_bytes` returned; ValueError for other bytes."""
        try:
            stored = msgspec.msgpack.decode(raw, type=StoredBasis)
        except msgspec.MsgspecError as exc:
            raise ValueError(f"not a basis: {exc}; fit it again") from exc
        if stored.kind != "principal":
            raise ValueError(f"a basis of the kind {stored.kind!r}, this version knows 'principal'; fit it again")
        center = np.frombuffer(stored.center, "<f4").astype(np.float64)
        directions = np.frombuffer(stored.directions, "<f4").astype(np.float64)
        if len(directions) != SIZE * len(center):
            raise ValueError(f"a basis of {len(center)} dimensions with {len(directions)} numbers; fit it again")
        return cls(center, directions.reshape(SIZE, len(center)))


def _rounded(values: Floats) -> Floats:
    return values.astype("<f4").astype(np.float64)


def _raw(values: Floats) -> bytes:
    return values.astype("<f4").tobytes()
