"""Regular expressions of somebody else's, admitted only where no text can make them take long."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

MOST_CHARS: Final = 500
MOST_WORK: Final = 2_048
"""Ways to match from one place, times the characters of a match: an upper bound of the steps for each place."""

_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_REFERENCES: Final = ("GROUPREF", "GROUPREF_EXISTS", "GROUPREF_IGNORE")
_INNER: Final[dict[str, Callable[[Any], Any]]] = {
    "SUBPATTERN": itemgetter(-1),
    "ATOMIC_GROUP": lambda argument: argument,
    "ASSERT": itemgetter(1),
    "ASSERT_NOT": itemgetter(1),
}


def bounded(pattern: str) -> re.Pattern[str]:
    """`pattern`, compiled. ValueError says what is wrong with it, and what would be right.

    Whatever repeats has an upper bound, so that the work of one place is bounded as well and that of a text is linear.
    """
    if len(pattern) > MOST_CHARS:
        raise ValueError(f"the pattern has {len(pattern)} characters; the most are {MOST_CHARS}")
    try:
        compiled = re.compile(pattern)
        tree: Any = importlib.import_module("re._parser").parse(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {exc}") from exc
    if compiled.match("") is not None or tree.getwidth()[0] == 0:
        raise ValueError(f"the pattern {pattern!r} matches nothing at all; let it take at least one character")
    work = _ways(tree) * min(tree.getwidth()[1], MOST_WORK)
    if work > MOST_WORK:
        raise ValueError(f"the pattern {pattern!r} may take too long; narrow what repeats, such as {{1,8}} for + and *")
    return compiled


def _ways(tree: Any) -> int:
    """In how many ways the pattern may match from one place, at most; more than `MOST_WORK` is not told apart."""
    ways = 1
    for operation, argument in tree:
        ways = min(ways * _ways_of(str(operation), argument), MOST_WORK + 1)
    return ways


def _ways_of(operation: str, argument: Any) -> int:
    if operation in _REPEATS:
        return _repeated(*argument)
    if operation in _REFERENCES:
        return MOST_WORK + 1
    if operation == "BRANCH":
        return sum(_ways(one) for one in argument[1])
    inner = _INNER.get(operation)
    return 1 if inner is None else _ways(inner(argument))


def _repeated(least: int, most: int, inner: Any) -> int:
    if int(most) > MOST_WORK:
        return MOST_WORK + 1
    each = _ways(inner)
    ways: int = sum(each ** min(times, 12) for times in range(least, most + 1))
    return min(ways, MOST_WORK + 1)
