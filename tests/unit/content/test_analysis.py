from __future__ import annotations

import math
import random
import time

import pytest

from windlass.content.analysis import QUOTE_WORDS, Chapter, chapters, key_quotes, time_link
from windlass.content.transcript import Heading, Transcript, Turn

SUBJECTS = {
    "locks": ["lock", "gate", "chamber", "sill", "canal", "paddle", "lifts", "fills", "drains", "boat"],
    "lamps": ["lamp", "lens", "beam", "keeper", "harbour", "oil", "flame", "mirror", "turns", "shines"],
    "knots": ["knot", "rope", "bowline", "hitch", "fibre", "strand", "splice", "tight", "loose", "holds"],
}


def talk(*subjects: str, sentences: int = 60) -> list[Turn]:
    """Two sentences a turn, each of ten words of the subject in seeded order, ten seconds apart."""
    turns: list[Turn] = []
    for subject in subjects:
        rng = random.Random(subject)
        for _ in range(sentences // 2):
            text = " ".join(f"{' '.join(rng.choices(SUBJECTS[subject], k=10)).capitalize()}." for _ in range(2))
            at = 10.0 * len(turns)
            turns.append(Turn("Host" if len(turns) % 2 else "Guest", at, at + 10.0, text))
    return turns


def transcript(turns: list[Turn], headings: tuple[Heading, ...] = ()) -> Transcript:
    return Transcript("t", "", "", ("Host", "Guest"), (), True, tuple(turns), headings, ())


def said(*texts: str) -> Transcript:
    return transcript([Turn("Host", 10.0 * n, 10.0 * n + 10, text) for n, text in enumerate(texts)])


def covers_every_turn_once(found: tuple[Chapter, ...], turns: int) -> bool:
    return [n for chapter in found for n in range(chapter.first_turn, chapter.last_turn + 1)] == list(range(turns))


def test_headings_are_the_chapters() -> None:
    found = chapters(transcript(talk("locks", sentences=12), (Heading("Gates", 0, 0.0), Heading("Sills", 4, 40.0))))
    assert found == (Chapter("Gates", 0.0, 40.0, 0, 3, False), Chapter("Sills", 40.0, 60.0, 4, 5, False))


def test_turns_before_the_first_heading_are_an_opening_of_ours() -> None:
    found = chapters(transcript(talk("locks", sentences=12), (Heading("Sills", 2, 20.0),)))
    assert [(chapter.title, chapter.made) for chapter in found] == [("Opening", True), ("Sills", False)]


def test_headings_before_the_same_turn_are_joined() -> None:
    found = chapters(transcript(talk("locks", sentences=4), (Heading("Problems", 0, 0.0), Heading("Miners", 0, 0.0))))
    assert [chapter.title for chapter in found] == ["Problems: Miners"]


def test_without_headings_chapters_follow_the_subject_and_say_so() -> None:
    found = chapters(transcript(talk("locks", "lamps", "knots", sentences=80)))
    assert covers_every_turn_once(found, 120)
    assert all(chapter.made for chapter in found)
    starts = [chapter.first_turn for chapter in found]
    assert min(abs(start - 40) for start in starts) <= 2
    assert min(abs(start - 80) for start in starts) <= 2
    for chapter in found:
        middle = (chapter.first_turn + chapter.last_turn) // 2
        subject = list(SUBJECTS.values())[middle // 40]
        assert all(word in [*subject, *(f"{form}s" for form in subject)] for word in chapter.title.lower().split(", "))


def test_chapters_of_stamps_that_go_backwards_do_not_end_before_they_start() -> None:
    turns = [Turn("Host", 50.0, 50.0, "One."), Turn("Guest", 20.0, 30.0, "Two.")]
    (found,) = chapters(transcript(turns))
    assert (found.start_s, found.end_s) == (50.0, 50.0)


@pytest.mark.parametrize("text", ["Hello.", "...", "the and of", "日本語"])
def test_the_smallest_transcript_has_one_chapter_with_a_title(text: str) -> None:
    (found,) = chapters(said(text))
    assert found.title
    assert (found.first_turn, found.last_turn) == (0, 0)


def test_key_quotes_are_verbatim_with_the_speaker_and_the_stamp_of_their_turn() -> None:
    whole = transcript(talk("locks", "lamps", "knots"))
    quotes = key_quotes(whole, chapters(whole), 5)
    assert len(quotes) == 5
    for quote in quotes:
        turn = whole.turns[quote.turn]
        assert quote.text in turn.text
        assert (quote.speaker, quote.start_s) == (turn.speaker, turn.start_s)
        assert len(quote.text.split()) in QUOTE_WORDS
    assert [quote.score for quote in quotes] == sorted((quote.score for quote in quotes), reverse=True)


def test_each_chapter_gives_one_quote_before_any_gives_two() -> None:
    turns = talk("locks", "lamps", "knots", sentences=20)
    whole = transcript(turns, tuple(Heading(str(n), n * 10, n * 100.0) for n in range(3)))
    assert sorted(quote.turn // 10 for quote in key_quotes(whole, chapters(whole), 3)) == [0, 1, 2]


def test_the_same_thing_is_not_quoted_twice() -> None:
    same = "The lock lifts the boat from the river to the canal."
    other = "Bakers bake their bread at night with flour and yeast."
    quotes = key_quotes(said(same, same, "The lock lifts a boat from the river to the canal.", other), (), 5)
    assert sorted(quote.text for quote in quotes)[0] == other
    assert len(quotes) == 2


def test_questions_and_unfinished_sentences_come_last() -> None:
    whole = said(
        "Does the lock lift the boat from the river to the canal?",
        "The lock lifts the boat to the canal and then...",
        "A keeper of the lamp cleans its lens every morning.",
    )
    assert key_quotes(whole, (), 1)[0].turn == 2
    assert len(key_quotes(whole, (), 5)) >= 2


def test_a_welcome_or_a_sponsor_is_quoted_only_when_nothing_else_is() -> None:
    turns = talk("locks", "lamps", sentences=20)
    whole = transcript(turns, (Heading("Intro & Sponsor Segment", 0, 0.0), Heading("Lamps", 10, 100.0)))
    (quote,) = key_quotes(whole, chapters(whole), 1)
    assert quote.turn >= 10
    only = transcript(turns, (Heading("Intro", 0, 0.0),))
    assert len(key_quotes(only, chapters(only), 1)) == 1


@pytest.mark.parametrize("k", [0, -1])
def test_asked_for_no_quotes_it_gives_none(k: int) -> None:
    assert key_quotes(transcript(talk("locks")), (), k) == ()


@pytest.mark.parametrize("text", ["Too short.", "...", "word " * 500])
def test_degenerate_transcripts_do_not_fail(text: str) -> None:
    whole = said(text)
    assert all(quote.text in whole.turns[0].text for quote in key_quotes(whole, chapters(whole), 5))


def test_the_same_transcript_gives_the_same_analysis() -> None:
    first, second = (transcript(talk("locks", "lamps", "knots")) for _ in range(2))
    assert chapters(first) == chapters(second)
    assert key_quotes(first, chapters(first)) == key_quotes(second, chapters(second))


def test_the_time_of_the_analysis_grows_with_the_length_and_not_with_its_square() -> None:
    rng = random.Random(5)
    # Squaring makes small numbers frequent, as words are.
    drawn = [" ".join(f"word{int(4_000 * rng.random() ** 2)}" for _ in range(15)) for _ in range(3_000)]

    def cost_s(sentences: int) -> float:
        whole = said(*(f"{sentence.capitalize()}." for sentence in drawn[:sentences]))
        started = time.process_time()
        assert len(key_quotes(whole, chapters(whole), 5)) == 5
        return time.process_time() - started

    short_s = min(cost_s(300) for _ in range(3))
    # Ten times the sentences: linear is 10, the square would be 100.
    assert min(cost_s(3_000) for _ in range(2)) < 35 * short_s


@pytest.mark.parametrize(
    ("media", "link"),
    [
        ("https://www.youtube.com/watch?v=abc", "https://www.youtube.com/watch?v=abc&t=430s"),
        ("https://youtube.com/watch?v=abc&t=5s&list=x", "https://youtube.com/watch?v=abc&list=x&t=430s"),
        ("https://m.youtube.com/watch?v=abc#top", "https://m.youtube.com/watch?v=abc&t=430s"),
        ("https://www.youtube.com/embed/abc", "https://www.youtube.com/embed/abc?start=430"),
        ("https://youtu.be/abc", "https://youtu.be/abc?t=430"),
        ("https://youtu.be/abc?t=9", "https://youtu.be/abc?t=430"),
        ("http://example.org/a.mp3", "http://example.org/a.mp3#t=430"),
        ("https://example.org/a?x=1#old", "https://example.org/a?x=1#t=430"),
        ("https://example.org:8443/a%20b.mp3", "https://example.org:8443/a%20b.mp3#t=430"),
        ("https://youtube.com.evil.example/watch", "https://youtube.com.evil.example/watch#t=430"),
        ("HTTPS://Example.org/a", "https://Example.org/a#t=430"),
    ],
)
def test_time_links(media: str, link: str) -> None:
    assert time_link(media, 430.9) == link


@pytest.mark.parametrize(
    "media",
    ["", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "ftp://example.org/a", "//example.org/a",
     "example.org/a.mp3", "https://", "https:///path", "http://[bad", "http://a:99999/", "http://a:b/",
     "java\nscript:x", 'https://example.org/"onmouseover=x', "https://example.org/<b>", "https://example.org/a b",
     "https:\\\\example.org", "https://youtube.com@evil.example/", " https://example.org", "https://example.org/\x00",
     "https://e.org/" + "a" * 3_000, "vbscript:x", "JaVaScRiPt:x"],
)  # fmt: skip
def test_no_link_for_anything_but_a_plain_web_address(media: str) -> None:
    assert time_link(media, 430.0) == ""


@pytest.mark.parametrize("start_s", [0.0, -5.0, math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_links_to_the_beginning(start_s: float) -> None:
    assert time_link("https://youtu.be/abc", start_s) == "https://youtu.be/abc?t=0"
