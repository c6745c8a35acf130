"""Passages: whole sentences, about the wanted length, beginning where they should."""

from __future__ import annotations

import pytest

from windlass.content.transcript import Turn
from windlass.memory.chunk import chunk


def turn(text: str, speaker: str = "Host", start_s: float = 0.0) -> Turn:
    return Turn(speaker, start_s, start_s + 1, text)


def sentence(words: int, mark: str = "x") -> str:
    return " ".join([mark.capitalize(), *[mark] * (words - 1)]) + "."


def test_nothing_said_gives_no_passage():
    assert chunk([]) == ()
    assert chunk([turn(""), turn("   ")]) == ()


def test_one_word_is_one_passage():
    (passage,) = chunk([turn("Yes.", "Guest", 4.5)])
    assert (passage.ordinal, passage.first_segment, passage.last_segment, passage.start_s) == (0, 0, 0, 4.5)
    assert passage.text == "Guest: Yes."


def test_passages_end_at_the_sentence_end_nearest_to_the_aim():
    passages = chunk([turn(" ".join(sentence(10, mark) for mark in "abcdefghij"), "")], words=34)
    assert [len(passage.text.split()) for passage in passages] == [30, 30, 30, 10]


def test_a_turn_longer_than_the_aim_is_cut_and_keeps_its_stamp():
    passages = chunk([turn("Short."), turn(" ".join([sentence(20)] * 10), start_s=7.0)], words=60)
    assert len(passages) > 2
    assert all(passage.start_s == 7.0 and passage.first_segment == 1 for passage in passages[1:])


def test_a_passage_knows_the_segments_it_spans():
    passages = chunk([turn(sentence(10), start_s=float(number)) for number in range(6)], words=30)
    assert [(p.first_segment, p.last_segment, p.start_s) for p in passages] == [(0, 2, 0.0), (3, 5, 3.0)]


def test_a_break_begins_a_passage():
    turns = [turn(sentence(10), start_s=float(number)) for number in range(6)]
    assert [p.first_segment for p in chunk(turns, words=30, breaks=[1, 4])] == [0, 1, 4]


@pytest.mark.parametrize("breaks", [[0], [99], [-3], [1, 1]])
def test_a_break_where_nothing_can_begin_changes_nothing(breaks):
    turns = [turn(sentence(10)), turn("")]
    assert chunk(turns, breaks=breaks) == chunk(turns)


def test_a_break_before_a_silent_segment_takes_effect_at_the_next_words():
    turns = [turn("One."), turn(""), turn("Two."), turn("Three.")]
    assert [p.first_segment for p in chunk(turns, breaks=[1])] == [0, 2]


def test_who_says_most_of_a_passage_stands_before_it():
    turns = [turn("Why? How?", "Host"), turn("Because it was cheap.", "Guest"), turn("I see.", "Host"), turn("Hm.", "")]
    (passage,) = chunk([*turns, turn("And quick.", "Guest")])
    assert passage.text == "Guest: Why? How? Because it was cheap. I see. Hm. And quick."


def test_of_two_who_say_as_much_the_first_is_named():
    (passage,) = chunk([turn("One two.", "Host"), turn("Three four.", "Guest")])
    assert passage.text == "Host: One two. Three four."


def test_a_speaker_without_a_name_leaves_no_mark():
    (passage,) = chunk([turn("Nobody knows.", "")])
    assert passage.text == "Nobody knows."


def test_words_without_sentence_marks_are_cut_too():
    passages = chunk([turn(" ".join(["word"] * 1_000), "")])
    assert len(passages) > 5
    assert sum(len(passage.text.split()) for passage in passages) == 1_000
