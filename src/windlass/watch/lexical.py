"""What the lexical features of some prompts say in words, beside those of the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from windlass.records import ContextValue
from windlass.stats.features import Context, hidden

_USUAL: Final = 0.5
"""Deviations; by less two groups hardly differ."""
_TOLD: Final = 3
_LEAST: Final = 1e-6
"""A smaller deviation is rounding: all are the same."""
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "log_chars": ("short prompts", "long prompts"),
    "log_question_words": ("short questions", "long questions"),
    "messages": ("short conversations", "long conversations"),
    "passages": ("without passages", "with passages"),
    "mean_word_chars": ("short words", "long words"),
    "digits": ("few digits", "many digits"),
    "stream": ("answered whole", "streamed"),
    "asks_why": ("", "ask why"),
    "asks_how": ("", "ask how"),
    "asks_what": ("", "ask what"),
    "asks_who": ("", "ask who"),
    "asks_when": ("", "ask when"),
}
"""Of each lexical feature what little of it means, and much."""


class Lexical:
    """The plain features of some contexts, and what is usual of each."""

    def __init__(self, contexts: Iterable[Context]):
        self._usual = {name: (float(np.mean(each)), float(np.std(each))) for name, each in _columns(contexts).items()}

    def words(self, means: Mapping[str, ContextValue]) -> str:
        """How contexts with these means differ from all, what differs most first; "" where nothing does by half a
        deviation."""
        apart: Counter[str] = Counter()
        for name, told in _WORDS.items():
            mean, sd = self._usual.get(name, (0.0, 0.0))
            value = means.get(name)
            if sd < _LEAST or not isinstance(value, float):
                continue
            by = (value - mean) / sd
            if abs(by) >= _USUAL and (word := told[by > 0.0]):
                apart[word] = round(1_000 * abs(by))
        return ", ".join(word for word, _ in apart.most_common(_TOLD))


def means(contexts: Iterable[Context]) -> dict[str, ContextValue]:
    """The mean of each plain feature; neither prices nor what is asked for."""
    return {name: float(np.mean(each)) for name, each in _columns(contexts).items()}


def _columns(contexts: Iterable[Context]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for context in contexts:
        for name, value in context.items():
            if isinstance(value, float | int) and not hidden(name):
                found[name].append(float(value))
    return found
