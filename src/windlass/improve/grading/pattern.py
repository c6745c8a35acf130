"""`regex`: a pattern is found in the reply, or must not be. The search runs in a child process, under a time limit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from windlass.errors import SettingsError
from windlass.improve.grading.grader import Case, On, Verdict, said
from windlass.improve.grading.sandbox import PatternProcess


@dataclass(frozen=True, slots=True)
class RegexOptions:
    """Which pattern (Python's `re`), and what it means to find it.

    pattern: it must be given. whole: the reply from end to end must fit. forbidden: finding it is 0 and not finding it
    1. ignore_case, multiline, dotall: the flags of those names. seconds: so long one search may take.
    """

    pattern: str = ""
    whole: bool = False
    forbidden: bool = False
    ignore_case: bool = False
    multiline: bool = False
    dotall: bool = False
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if not self.pattern:
            raise SettingsError("pattern is empty; give the regular expression to look for")
        if not (math.isfinite(self.seconds) and 0.0 < self.seconds <= 60.0):
            raise SettingsError(f"seconds is {self.seconds}; give a number above 0, at most 60")
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as exc:
            raise SettingsError(f"pattern {self.pattern[:100]!r} is no regular expression: {exc}") from exc


class Regex:
    """Searches the reply. Costs nothing but about 0.2 ms, and 0.1 s for the first."""

    name: ClassVar[str] = "regex"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "qa"
    on: ClassVar[On] = "reply"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: RegexOptions):
        self._options = options
        named = (options.ignore_case, re.IGNORECASE), (options.multiline, re.MULTILINE), (options.dotall, re.DOTALL)
        self._flags = sum(int(flag) for wanted, flag in named if wanted)
        self._process = PatternProcess(options.seconds)

    def grade(self, case: Case) -> Verdict:
        """1 or 0. GraderFailed where the search takes too long."""
        options = self._options
        found = self._process.search(options.pattern, self._flags, case.reply, whole=options.whole)
        return said(
            float(found is not options.forbidden), "the pattern is found" if found else "the pattern is not found"
        )
