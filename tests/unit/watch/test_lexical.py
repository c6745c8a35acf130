"""What lexical features say in words: only what sets a group apart, and nothing of rounding."""

from __future__ import annotations

from windlass.watch.lexical import Lexical, means

LONG = {"log_chars": 0.9, "messages": 0.05, "asks_why": 1.0, "cost_nusd:a": 5e6, "embedding": (1.0, 2.0)}
SHORT = {"log_chars": 0.2, "messages": 0.05 + 1e-17, "asks_why": 0.0, "objective:best": 1.0}


def test_what_sets_a_group_apart_is_told_the_largest_difference_first() -> None:
    usual = Lexical([LONG] * 3 + [SHORT] * 7)
    assert usual.words(means([LONG])) in ("long prompts, ask why", "ask why, long prompts")
    assert usual.words(means([SHORT])) == "short prompts", "that they do not ask why says little"
    assert usual.words(means([LONG] * 3 + [SHORT] * 7)) == ""


def test_prices_aims_and_vectors_are_no_features() -> None:
    assert set(means([LONG, SHORT])) == {"log_chars", "messages", "asks_why"}


def test_without_contexts_nothing_is_told() -> None:
    assert Lexical([]).words({}) == ""
    assert means([]) == {}
    assert Lexical([LONG, SHORT]).words({"log_chars": (1.0,), "unknown": 3.0}) == ""
