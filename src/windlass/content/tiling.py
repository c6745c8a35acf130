"""Where the subject of a conversation changes: TextTiling (Hearst 1997, "TextTiling: Segmenting Text into
Multi-paragraph Subtopic Passages", Computational Linguistics 23(1), sections 5.1 to 5.3)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

SEQUENCE_TERMS = 20
BLOCK_SEQUENCES = 10
_SMOOTHING = 3


def borders(turns: Sequence[Sequence[str]]) -> list[int]:
    """The indices of the turns that begin a new subject, in order, without the first turn.

    turns: the content words of each turn. As in the paper, a gap between sequences of 20 words is scored by the cosine
    of the word counts of the 10 sequences on either side; its depth is the sum of the climbs to the nearest peaks; gaps
    deeper than mean - sd/2 become borders, the deepest first. Two differences: subjects are at least one block (about
    three minutes of talk) long, where the paper asks for three sequences, and borders move to the nearest turn instead
    of the nearest paragraph.
    """
    words = [word for turn in turns for word in turn]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    told = np.array([numbers[word] for word in words], dtype=np.int64)
    sequences = [told[at : at + SEQUENCE_TERMS] for at in range(0, len(told), SEQUENCE_TERMS)]
    depths = _depths(_smooth(_gap_scores(sequences, len(numbers))))
    if not depths.size:
        return []
    cutoff = float(depths.mean() - depths.std() / 2)
    # Gap g lies before sequence g, so candidates are 1 .. n-1.
    gaps = np.argsort(-depths, kind="stable") + 1
    free = np.ones(len(sequences) + 1, dtype=bool)
    chosen = []
    for gap in [0, len(sequences), *gaps[depths[gaps - 1] > max(cutoff, 0.0)].tolist()]:
        if free[gap]:
            chosen.append(gap)
            free[max(0, gap - BLOCK_SEQUENCES + 1) : gap + BLOCK_SEQUENCES] = False
    return _nearest_turns(turns, sorted(chosen[2:]))


def _gap_scores(sequences: Sequence[NDArray[np.int64]], vocabulary: int) -> NDArray[np.float64]:
    """Cosine between the word counts of the blocks on both sides of each gap; shape (sequences - 1,)."""
    left, right = np.zeros(vocabulary), np.zeros(vocabulary)
    for sequence in sequences[:BLOCK_SEQUENCES]:
        np.add.at(right, sequence, 1.0)
    scores = np.zeros(max(0, len(sequences) - 1))
    for gap in range(1, len(sequences)):
        np.add.at(left, sequences[gap - 1], 1.0)
        np.subtract.at(right, sequences[gap - 1], 1.0)
        if gap > BLOCK_SEQUENCES:
            np.subtract.at(left, sequences[gap - 1 - BLOCK_SEQUENCES], 1.0)
        if gap - 1 + BLOCK_SEQUENCES < len(sequences):
            np.add.at(right, sequences[gap - 1 + BLOCK_SEQUENCES], 1.0)
        scores[gap - 1] = (left @ right) / math.sqrt((left @ left) * (right @ right))
    return scores


def _smooth(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over three gaps, over fewer at the ends."""
    if scores.size < _SMOOTHING:
        return scores
    kernel = np.ones(_SMOOTHING)
    smoothed: NDArray[np.float64] = np.convolve(scores, kernel, "same") / np.convolve(
        np.ones_like(scores), kernel, "same"
    )
    return smoothed


def _depths(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """How deep each gap lies below the peaks beside it: (left peak - score) + (right peak - score)."""

    def peaks(values: list[float]) -> list[float]:
        """The height reached by walking back from each value for as long as it rises."""
        reached: list[float] = []
        for at, value in enumerate(values):
            rises = at > 0 and values[at - 1] >= value
            reached.append(reached[-1] if rises else value)
        return reached

    forward = scores.tolist()
    left = np.array(peaks(forward), dtype=np.float64)
    right = np.array(peaks(forward[::-1])[::-1], dtype=np.float64)
    return left + right - 2 * scores


def _nearest_turns(turns: Sequence[Sequence[str]], gaps: Sequence[int]) -> list[int]:
    """The turns whose beginnings lie nearest to the gaps; gaps that meet at one turn, or at the first, are one."""
    begins = [0, *accumulate(len(turn) for turn in turns)][:-1]
    found = set()
    for gap in gaps:
        word = gap * SEQUENCE_TERMS
        after = bisect_right(begins, word)
        near = [turn for turn in (after - 1, after) if turn < len(begins)]
        found.add(min(near, key=lambda turn: (abs(begins[turn] - word), turn)))
    return sorted(found - {0})
