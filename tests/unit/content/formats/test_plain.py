from __future__ import annotations

from windlass.content.formats.plain import PARAGRAPH_WORDS
from windlass.content.parse import parse
from windlass.content.transcript import Turn


def test_paragraphs_are_turns_without_times() -> None:
    transcript = parse("notes/knots.txt", b"First line,\nsecond line.\n\n\nNext paragraph.\n")
    assert transcript.title == "knots"
    assert not transcript.timed
    assert transcript.turns == (
        Turn("", 0.0, 0.0, "First line, second line."),
        Turn("", 0.0, 0.0, "Next paragraph."),
    )
    assert transcript.warnings == ()


def test_names_that_come_twice_are_speakers() -> None:
    transcript = parse("a.txt", b"Host: Hello.\nGuest 2: Hi.\nStill me.\nHost: Note: be brief.\nGuest 2: Yes.\n")
    assert [(turn.speaker, turn.text) for turn in transcript.turns] == [
        ("Host", "Hello."),
        ("Guest 2", "Hi. Still me."),
        ("Host", "Note: be brief."),
        ("Guest 2", "Yes."),
    ]
    assert transcript.speakers == ("Host", "Guest 2")


def test_long_paragraphs_are_cut_at_sentence_ends() -> None:
    text = "This sentence has six words here. " * 100
    transcript = parse("a.txt", text.encode())
    assert all(len(turn.text.split()) <= PARAGRAPH_WORDS for turn in transcript.turns)
    assert all(turn.text.endswith("here.") for turn in transcript.turns)
    assert " ".join(turn.text for turn in transcript.turns) == text.strip()


def test_markup_and_hashes_are_words_in_plain_text() -> None:
    text = "# not a heading <b>[link](https://example.org)</b>"
    assert parse("a.txt", text.encode()).turns[0].text == text
