"""From texts to padded batches of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_CHARS = 16_384
"""What lies beyond cannot reach the vector of ordinary text (256 tokens), and would cost a second a megabyte."""

BATCH_TEXTS = 32
BATCH_TOKENS = 256
"""Padded tokens in one run: with more, activations leave the CPU's cache; 2,048 cost 40 % more CPU on long texts."""


def load_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, cutting at `max_tokens` and leaving the padding to `padded`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def clean(text: str) -> str:
    """`text` as the tokenizer can take it: at most MAX_CHARS long, lone surrogates replaced, split pairs joined.

    >>> clean("a\\ud83d\\ude00 \\ud83d")
    'a😀 \ufffd'
    """
    text = text[:MAX_CHARS]
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions of `lengths` in batches, shortest first, so that little is spent on padding.

    A batch holds at most BATCH_TEXTS texts and BATCH_TOKENS tokens with its padding, and at least one text.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == BATCH_TEXTS or (len(batch) + 1) * lengths[place] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and mask, both (n, t) int64; t is the longest row, the mask is 1 where there is a token."""
    shape = len(rows), max(map(len, rows))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
