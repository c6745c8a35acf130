"""Speakers who are named before their words: `Host: Welcome back.`"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_PREFIX = re.compile(r"(?:[-–—] ?)?([^\W\d_][\w.'’-]{0,30}(?: [\w.'’&()-]{1,30}){0,3}): +(?=\S)")


def named(lines: Iterable[str]) -> frozenset[str]:
    """The names that begin at least two of the lines, so that a single `Note: ...` is nobody.

    A name is one to four words, each with a capital letter or a number.
    """
    return frozenset(name for name, count in Counter(_name(line) for line in lines).items() if name and count > 1)


def split(line: str, names: frozenset[str]) -> tuple[str, str]:
    """(speaker, words) of a line; ('', line) when it does not begin with one of `names`."""
    match = _PREFIX.match(line)
    if match is None or match[1] not in names:
        return "", line
    return match[1], line[match.end() :]


def _name(line: str) -> str:
    match = _PREFIX.match(line)
    if match is None:
        return ""
    return match[1] if all(not word[0].islower() for word in match[1].split()) else ""
