"""Markdown transcripts, read through `parse` as every caller does."""

from __future__ import annotations

import pytest

from windlass.content.parse import parse
from windlass.content.transcript import Heading, Transcript, Turn

HEAD = """---
title: 'Locks: a talk'
date: 2024-02-19
media: https://example.org/locks.mp3
speakers: [Host, Guest]
tags:
  - canals
  - canals
---
"""


def read(text: str, name: str = "talk.md") -> Transcript:
    return parse(name, text.encode())


def test_reads_front_matter_turns_and_headings() -> None:
    transcript = read(
        HEAD + "## Intro\n\nHost: 00:00:04\n\nOne line.\nAnother  line.\n\n## Gates\n\nGuest: 00:01:00\n\nTwo.\n"
    )
    assert transcript == Transcript(
        title="Locks: a talk",
        date="2024-02-19",
        media="https://example.org/locks.mp3",
        speakers=("Host", "Guest"),
        tags=("canals",),
        timed=True,
        turns=(Turn("Host", 4.0, 60.0, "One line. Another line."), Turn("Guest", 60.0, 60.4, "Two.")),
        headings=(Heading("Intro", 0, 4.0), Heading("Gates", 1, 60.0)),
        warnings=(),
    )


def test_stamps_that_go_backwards_are_kept_and_no_turn_ends_before_it_starts() -> None:
    transcript = read("Host: 00:25:10\n\na\n\nGuest: 00:15:18\n\nb\n\nHost: 00:25:20\n\nc\n")
    assert [(turn.start_s, turn.end_s) for turn in transcript.turns] == [(1510, 1510), (918, 1520), (1520, 1520.4)]


@pytest.mark.parametrize(
    "stamp",
    ["Guest:00:01:02", "Guest : 00:01:02", "Guest: 00:01:02:", "Guest 00:01:02", "**Guest:** 00:01:02", "Guest: 01:02",
     "Guest: [00:01:02]", "Guest: (01:02)", "Guest: 00:01:02.5", "  Guest: 00:01:02  "],
)  # fmt: skip
def test_odd_forms_of_a_stamp_begin_a_turn(stamp: str) -> None:
    transcript = read(f"Guest: 00:00:05\n\nfirst\n\n{stamp}\nsecond\n")
    assert [(turn.speaker, int(turn.start_s), turn.text) for turn in transcript.turns] == [
        ("Guest", 5, "first"),
        ("Guest", 62, "second"),
    ]


@pytest.mark.parametrize(
    "line",
    ["It was written at 10:30", "The ratio was 3:1", "He came home at last and said to us: 10:30", "Unknown 00:01:02",
     "12: 10:30", "See you at ten. Or: 10:30 then", "Nobody:"],
)  # fmt: skip
def test_words_with_a_time_in_them_stay_words(line: str) -> None:
    transcript = read(f"Host: 00:00:05\n\nBefore.\n{line}\nAfter.\n")
    assert [turn.text for turn in transcript.turns] == [f"Before. {line} After."]


def test_a_known_speaker_without_a_stamp_begins_a_turn_that_keeps_the_time_before_it() -> None:
    transcript = read("Host: 00:00:10\n\na\n\nGuest:\n\nb\n\nHost: 00:00:30\n\nc\n\nGuest: 00:00:40\n\nd\n")
    assert transcript.turns[1] == Turn("Guest", 10.0, 30.0, "b")
    assert transcript.warnings == ("turns without a usable time, each keeps the time before it: 1",)


@pytest.mark.parametrize("stamp", ["99:99:99", "00:75:00", "100:00:00", "1:2:3:4"])
def test_a_stamp_that_is_no_time_counts_as_none(stamp: str) -> None:
    transcript = read(f"Host: 00:00:10\n\na\n\nGuest: {stamp}\n\nb\n\nHost: 00:00:30\n\nc\n")
    assert transcript.turns[1] == Turn("Guest", 10.0, 30.0, "b")
    assert "without a usable time" in transcript.warnings[0]


def test_a_heading_inside_a_turn_cuts_it() -> None:
    transcript = read("Host: 00:00:10\n\na\n\n## New\n\nb\n\nGuest: 00:00:30\n\nc\n")
    assert transcript.turns[:2] == (Turn("Host", 10.0, 30.0, "a"), Turn("Host", 10.0, 30.0, "b"))
    assert transcript.headings == (Heading("New", 1, 10.0),)


def test_a_heading_between_stamp_and_words_stands_before_the_turn() -> None:
    transcript = read("Host: 00:00:10\n\n## New\n\na\n")
    assert transcript.turns == (Turn("Host", 10.0, 10.4, "a"),)
    assert transcript.headings == (Heading("New", 0, 10.0),)
    assert transcript.warnings == ()


def test_a_heading_after_the_last_turn_is_left_out_and_two_may_share_a_turn() -> None:
    transcript = read("## A\n### B #\n\nHost: 00:00:01\n\nwords\n\n## Credits\n")
    assert [heading.title for heading in transcript.headings] == ["A", "B"]


@pytest.mark.parametrize(
    ("source", "title"),
    [("OP\\_RETURN", "OP_RETURN"), ("New `bitcoin` command", "New bitcoin command"), ("**C#**", "C#"),
     ("[Words](https://example.org)", "Words"), ("\x1b[31mRed\x1b[0m", "Red")],
)  # fmt: skip
def test_headings_are_shown_as_a_reader_sees_them(source: str, title: str) -> None:
    assert read(f"## {source}\n\nHost: 00:00:01\n\nwords\n").headings[0].title == title


def test_a_turn_without_words_is_left_out_and_still_ends_the_one_before() -> None:
    transcript = read("Host: 00:00:01\n\na\n\nGuest: 00:00:05\n\nHost: 00:00:09\n\nb\n")
    assert transcript.turns == (Turn("Host", 1.0, 5.0, "a"), Turn("Host", 9.0, 9.4, "b"))
    assert transcript.warnings == ("turns left out because they have no words: 1",)


def test_words_before_the_first_turn_belong_to_nobody() -> None:
    transcript = read("A note by the editor.\n\nHost: 00:00:07\n\na\n")
    assert transcript.turns[0] == Turn("", 0.0, 7.0, "A note by the editor.")


@pytest.mark.parametrize(
    ("text", "title"),
    [("# The title\n\nHost: 00:00:01\n\na\n", "The title"), ("Host: 00:00:01\n\na\n", "talk"),
     ("---\ntitle: ''\n---\n# Second\nHost: 00:00:01\n\na\n", "Second")],
)  # fmt: skip
def test_the_title_falls_back_to_the_first_heading_and_then_the_file_name(text: str, title: str) -> None:
    transcript = read(text)
    assert transcript.title == title
    assert transcript.headings == ()


def test_broken_front_matter_is_read_line_by_line_with_a_warning() -> None:
    transcript = read(
        "---\ntitle: Locks: a talk\ndate: 2024-02-19\nspeakers: [Host, Guest]\n---\nHost: 00:00:01\n\na\n"
    )
    assert (transcript.title, transcript.date, transcript.speakers) == (
        "Locks: a talk",
        "2024-02-19",
        ("Host", "Guest"),
    )
    assert "not valid YAML" in transcript.warnings[0]
    assert "line 2" in transcript.warnings[0]


@pytest.mark.parametrize(
    "block",
    [
        "[" * 8_000,
        "a: &x [*x]",
        "- a\n- b",
        "just words",
        "a: b: c",
        "x" * 20_000,
        "&a a: &b [*a, *a]\n? [q]: r",
        "\x00",
        "%YAML 9",
    ],
)
def test_hostile_front_matter_costs_a_warning_at_most(block: str) -> None:
    transcript = read(f"---\n{block}\n---\nHost: 00:00:01\n\nwords\n")
    assert [turn.text for turn in transcript.turns] == ["words"]


def test_front_matter_makes_words_only() -> None:
    transcript = read(
        "---\ntitle: !!python/object/apply:os.system ['true']\ndate: 2024-13-45\nmedia: 7\n"
        "tags: [1, true, [x], {a: b}]\nspeakers: Host, Guest\n---\nHost: 00:00:01\n\nwords\n"
    )
    assert transcript.title == "talk"
    assert transcript.date == "2024-13-45"
    assert transcript.tags == ("1", "true")
    assert transcript.speakers == ("Host", "Guest")


def test_a_rule_without_an_end_is_no_front_matter() -> None:
    assert read("---\ntitle: x\n\nwords\n").turns[0].text == "--- title: x"


def test_without_stamps_the_text_is_read_as_paragraphs_under_its_headings() -> None:
    transcript = read("# Notes\n\nFirst one.\n\n## Part\n\nSecond [one](https://example.org).\n")
    assert not transcript.timed
    assert transcript.turns == (Turn("", 0.0, 0.0, "First one."), Turn("", 0.0, 0.0, "Second one."))
    assert transcript.headings == (Heading("Part", 1, 0.0),)


def test_crlf_and_a_byte_order_mark_change_nothing() -> None:
    text = HEAD + "## Intro\n\nHost: 00:00:04\n\nOne.\nTwo.\n"
    assert parse("talk.md", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()) == read(text)
