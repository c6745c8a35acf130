from __future__ import annotations

import time

import pytest

from windlass.stats.sentences import LONG_WORDS, sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It is 0.21.0 now. And v22.0 is next.", ["It is 0.21.0 now.", "And v22.0 is next."]),
        ("Use one, e.g. Tor, i.e. Onions. Done.", ["Use one, e.g. Tor, i.e. Onions.", "Done."]),
        ("Dr. Smith vs. Mr. Jones. They met.", ["Dr. Smith vs. Mr. Jones.", "They met."]),
        ("The U.S. Treasury said so.", ["The U.S. Treasury said so."]),
        ("J. Edgar came.", ["J. Edgar came."]),
        ("He was at... well, nobody knows.", ["He was at... well, nobody knows."]),
        ("He was at... Nobody knows.", ["He was at...", "Nobody knows."]),
        ("Well… Maybe… not.", ["Well…", "Maybe… not."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Really?! (Yes.) Good.", ["Really?!", "(Yes.)", "Good."]),
        ("Edit bitcoin.conf first. Then start.", ["Edit bitcoin.conf first.", "Then start."]),
        ("これは文です。次の文です。", ["これは文です。", "次の文です。"]),
        ("  two  spaces.   Next.  ", ["two  spaces.", "Next."]),
        ("No. Where is it?", ["No.", "Where is it?"]),
        ("", []),
        (" \n\t ", []),
        ("...", ["..."]),
    ],
)
def test_splits_where_a_reader_would(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_a_long_sentence_is_cut_at_a_comma() -> None:
    text = " ".join(["word"] * 49) + " here, " + " ".join(["more"] * 40) + "."
    first, second = split(text)
    assert first.endswith("here,")
    assert second.startswith("more")


def test_a_long_sentence_without_commas_is_cut_before_a_conjunction() -> None:
    text = " ".join(["word"] * 40) + " because " + " ".join(["more"] * 40) + "."
    first, second = split(text)
    assert first.split()[-1] == "word"
    assert second.startswith("because")


def test_speech_without_any_marks_is_cut_into_pieces_of_bounded_length() -> None:
    pieces = split("word " * 1_000)
    assert all(len(piece.split()) <= LONG_WORDS for piece in pieces)
    assert sum(len(piece.split()) for piece in pieces) == 1_000
    assert min(len(piece.split()) for piece in pieces) >= 10


@pytest.mark.parametrize(
    "text", ["." * 200_000 + "x", '."' * 100_000, "a. " * 70_000, "。" * 200_000, "(" * 200_000 + "."]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    sentences(text)
    assert time.process_time() - started < 10.0
