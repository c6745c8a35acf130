"""`retry` and `edit`: what users do says something of a reply, without anybody being asked.

Who asks the same again soon was not served; who mends a reply shows how far it was from what was wanted. Both are weak
(a user may repeat a question for other reasons), so their feedback has the source `system`, and it only ever concerns
calls of the same user or parent, in the same tenant and workspace. Both compare words: a question that is put in quite
other words is not seen to be the same.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np

from windlass.errors import SettingsError
from windlass.improve.grading.cases import LOOK_BACK_S
from windlass.improve.grading.grader import Case, On, Skipped, Verdict, norm, said
from windlass.stats.stopwords import STOP_WORDS

MOST_WORDS: Final = 2_000
MOST_CHARS: Final = 200_000
LEAST_WORDS: Final = 3
"""Shorter questions are said again for other reasons: `continue`, `yes please`."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """window_s: so soon after the answer the question must come again. alike: so much of the words two questions must
    share (Dice) to count as one, in (0, 1]. value: the grade of the earlier answer where they are the same words; where
    they share fewer it is nearer to 0.5, which says nothing.
    """

    window_s: float = 120.0
    alike: float = 0.6
    value: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.window_s <= LOOK_BACK_S:
            raise SettingsError(f"window_s is {self.window_s}; give a number above 0, at most {LOOK_BACK_S:g}")
        if not 0.0 < self.alike <= 1.0:
            raise SettingsError(f"alike is {self.alike}; give a number above 0, at most 1")
        if not 0.0 <= self.value < 0.5:
            raise SettingsError(f"value is {self.value}; give a number from 0 to below 0.5")


class Retry:
    """A low grade for the answer before, where its question comes again soon after it. Costs nothing."""

    name: ClassVar[str] = "retry"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "system"
    on: ClassVar[On] = "next"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: RetryOptions):
        self._options = options

    def grade(self, case: Case) -> Verdict:
        """Of the newest call that had ended before this one began; nothing where that asked something else."""
        before = [one for one in case.earlier if one.ended <= case.call.at <= one.ended + self._options.window_s]
        if not before:
            return Skipped(why="nothing_before")
        if len(_WORD.findall(case.question[:MOST_CHARS])) < LEAST_WORDS:
            return Skipped(why="short_question")
        last = before[-1]
        shared = alike(last.question, case.question)
        if shared < self._options.alike:
            return Skipped(why="another_question")
        # From 0.5 (as little alike as counts) down to `value` (the same words).
        span = 1.0 - self._options.alike
        strength = (shared - self._options.alike) / span if span else 1.0
        value = 0.5 - (0.5 - self._options.value) * (0.5 + 0.5 * strength)
        return said(value, f"asked again {case.call.at - last.ended:.0f} s later, {shared:.2f} alike", target=last.call)


@dataclass(frozen=True, slots=True)
class EditOptions:
    """floor: similarity below which a correction counts as quite another text, so that the grade is 0, in [0, 1)."""

    floor: float = 0.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.floor) and 0.0 <= self.floor < 1.0):
            raise SettingsError(f"floor is {self.floor}; give a number from 0 to below 1")


class Edit:
    """How much of a reply was left standing by whoever corrected it: feedback of kind `correction` whose comment is the
    mended text. Costs nothing."""

    name: ClassVar[str] = "edit"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "system"
    on: ClassVar[On] = "correction"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: EditOptions):
        self._floor = options.floor

    def grade(self, case: Case) -> Verdict:
        """1 - distance / length, in words, stretched so that `floor` is 0."""
        if not case.correction.strip() or not case.reply.strip():
            return Skipped(why="no_text")
        kept = similarity(case.reply, case.correction)
        return said(max(0.0, (kept - self._floor) / (1.0 - self._floor)), f"{kept:.2f} of the words were left")


def alike(one: str, other: str) -> float:
    """How many words two questions share: the Dice coefficient of their words, without the commonest of English, each
    as often as it stands there. 1 for the same text, 0 where one of them has no words.

    L. R. Dice, Ecology 26, 1945.

    >>> alike("What is the boiling point of water?", "boiling point of water")
    1.0
    """
    if norm(one[:MOST_CHARS]) == norm(other[:MOST_CHARS]):
        return 1.0 if one.strip() else 0.0
    first, second = (_telling(text) for text in (one, other))
    both = first.total() + second.total()
    return 2.0 * (first & second).total() / both if first and second else 0.0


def similarity(one: str, other: str) -> float:
    """1 - Levenshtein distance over the length of the longer text, in words of the first `MOST_WORDS`.

    Rows of the table by Wagner and Fischer, Journal of the ACM 21, 1974; a row's insertions by a running minimum.
    """
    first, second = (_WORD.findall(norm(text[:MOST_CHARS]))[:MOST_WORDS] for text in (one, other))
    if not first or not second:
        return float(first == second)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(first + second))}
    across = np.array([numbers[word] for word in second])
    steps = np.arange(len(second) + 1)
    row = steps.copy()
    for word in first:
        changed = row[:-1] + (across != numbers[word])
        best = np.concatenate(([row[0] + 1], np.minimum(changed, row[1:] + 1)))
        row = np.minimum.accumulate(best - steps) + steps
    return 1.0 - float(row[-1]) / max(len(first), len(second))


def _telling(text: str) -> Counter[str]:
    """The words that say what a question is about; all of them where there are no others."""
    words = _WORD.findall(norm(text[:MOST_CHARS]))[:MOST_WORDS]
    return Counter([word for word in words if word not in STOP_WORDS] or words)
