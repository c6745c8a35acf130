"""Own patterns: what could take long is refused before any text is read."""

from __future__ import annotations

import pytest

from windlass.stats.patterns import bounded


@pytest.mark.parametrize(
    "pattern", [r"EMP-\d{6}", r"\b[A-Z]{2}\d{6,8}[A-D]?\b", r"(?:red|green)-\d{1,8}", r"(?i)case \d{4}"]
)
def test_what_is_bounded_is_admitted(pattern: str) -> None:
    assert bounded(pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "no regular expression"),
        ("(a+)+$", "too long"),
        ("(a|a){1,30}b", "too long"),
        (r"\d+", "too long"),
        (r"\d++", "too long"),
        (r".*x", "too long"),
        (r"\w{1,64}\w{1,64}x", "too long"),
        (r"(a)\1b", "too long"),
        ("", "nothing"),
        ("a?", "nothing"),
        (r"\b", "nothing"),
        ("a" * 501, "501 characters"),
    ],
)
def test_what_is_wrong_or_may_take_long_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bounded(pattern)
