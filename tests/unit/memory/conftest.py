"""A migrated database and an embedder that needs no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from windlass.ledger.db import Database


class BagOfWords:
    """Texts that share words are near each other: each word is a random direction, a text their sum."""

    def __init__(self, name: str = "bag-of-words", dimensions: int = 64):
        self.name = name
        self.dimensions = dimensions
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.texts.extend(texts)
        rows = [sum((self._word(word) for word in text.lower().split()), self._word("")) for text in texts]
        stacked = np.array(rows, np.float32).reshape(-1, self.dimensions)
        return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=self.dimensions)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def bag() -> BagOfWords:
    return BagOfWords()
