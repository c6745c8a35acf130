"""`exact`: the reply is the expected answer, letter for letter once both are written the same way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from windlass.improve.grading.grader import NO_EXPECTED, Case, GraderFailed, On, Verdict, norm, said

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MOST_ANSWERS = 1_000


@dataclass(frozen=True, slots=True)
class ExactOptions:
    """How the two are compared.

    match: `whole`: the reply is the answer; `contains`: it stands in the reply as whole words; `last_line`: the last
    line that is not empty is it. after: what precedes the answer in a reply, such as `Answer:`; the last one counts,
    and without it in the reply the grade is 0. articles, punctuation: whether these count.
    """

    match: Literal["whole", "contains", "last_line"] = "whole"
    after: str = ""
    articles: bool = True
    punctuation: bool = False


class Exact:
    """Compares with `expected`: a text, a number, a truth, or a list of which one must fit. Costs nothing."""

    name: ClassVar[str] = "exact"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "qa"
    on: ClassVar[On] = "reply"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: ExactOptions):
        self._options = options

    def grade(self, case: Case) -> Verdict:
        """1 where one of the expected answers fits, else 0."""
        wanted = [self._plain(text) for text in texts(case.expected)]
        if not wanted:
            return NO_EXPECTED
        if not any(wanted):
            raise GraderFailed("nothing but punctuation is expected; set punctuation = true for such answers")
        given = self._given(case.reply)
        if given is None:
            return said(0.0, f"no {self._options.after!r} in the reply")
        given = self._plain(given)
        fits = any(_within(one, given) if self._options.match == "contains" else one == given for one in wanted if one)
        return said(float(fits), "the expected answer" if fits else "another answer than the expected one")

    def _given(self, reply: str) -> str | None:
        """The part of the reply that is the answer."""
        if after := self._options.after:
            _, found, reply = reply.rpartition(after)
            if not found:
                return None
        if self._options.match == "last_line":
            return next((line for line in reversed(reply.splitlines()) if line.strip()), "")
        return reply

    def _plain(self, text: str) -> str:
        text = norm(text)
        if not self._options.punctuation:
            text = "".join(c for c in text if c.isalnum() or c.isspace() or c in "-+%/.")
            text = " ".join(word.rstrip(".-/").lstrip("./") for word in text.split())
        if not self._options.articles:
            text = _ARTICLES.sub(" ", text)
        return " ".join(text.split())


def texts(expected: Any) -> list[str]:
    """The expected answers as texts; none where there is nothing to compare with."""
    given = expected if isinstance(expected, list | tuple) else [expected]
    found = []
    for one in given[:_MOST_ANSWERS]:
        if isinstance(one, bool):
            found.append("true" if one else "false")
        elif isinstance(one, str | int | float):
            found.append(str(one))
    return found


def _within(words: str, text: str) -> bool:
    """Whether `words` stand in `text`, not as part of longer ones."""
    return f" {words} " in f" {text} "
