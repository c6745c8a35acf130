from __future__ import annotations

import pytest

from windlass.content.formats import clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m text", "red text"),
        ("\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\", "click"),
        ("\x1b]0;new window title\x07words", "words"),
        ("\x9b31mred", "red"),
        ("a\x00b\x07c\x7fd", "abcd"),
        ("safe\u202etxt.exe\u202c", "safetxt.exe"),
        ("a\u2066b\u2069c", "abc"),
        ("a\ud800b", "ab"),
        ("hi\U000e0068\U000e0069", "hi"),
        ("a\ufeffb", "ab"),
        ("  many \t white\n\nspaces\u2028and\u00a0kinds ", "many white spaces and kinds"),
        ("family 👩‍👧 stays", "family 👩‍👧 stays"),
        ("שלום <b>bold</b> & co", "שלום <b>bold</b> & co"),
        ("", ""),
    ],
)
def test_a_line_shows_what_was_said_and_nothing_else(text: str, expected: str) -> None:
    assert clean.line(text) == expected


def test_a_line_is_cut_at_its_limit() -> None:
    assert clean.line("abc def", 4) == "abc"


def test_counts_what_it_removes_and_keeps_line_breaks() -> None:
    assert clean.without_controls("one\n\x1b[1mtwo\x1b[0m\r\n\x00") == ("one\ntwo\r\n", 3)
    assert clean.without_controls("plain\ntext") == ("plain\ntext", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see [the paper](https://example.org/a) now", "see the paper now"),
        ("([user](https://example.org/user)).", "(user)."),
        ("[a](https://example.org/x_(y)) b", "a b"),
        ('[a](https://example.org "a title") b', "a b"),
        ("![a chart](chart.png)", "a chart"),
        ("[`OP_RETURN`](https://example.org)", "`OP_RETURN`"),
        ("[a](javascript:alert)", "a"),
        ("[removed sponsor segment]", "[removed sponsor segment]"),
        ("[a] (b)", "[a] (b)"),
        ("[a](unclosed", "[a](unclosed"),
    ],
)
def test_links_keep_their_words(text: str, expected: str) -> None:
    assert clean.visible_links(text) == expected
