from __future__ import annotations

import pytest

from windlass.content.parse import parse
from windlass.content.transcript import Turn
from windlass.errors import TranscriptError


def vtt(*cues: str) -> tuple[Turn, ...]:
    return parse("talk.vtt", ("WEBVTT\n\n" + "\n\n".join(cues) + "\n").encode()).turns


def srt(*cues: str) -> tuple[Turn, ...]:
    return parse("talk.srt", "\n\n".join(f"{n}\n{cue}" for n, cue in enumerate(cues, 1)).encode()).turns


def test_voices_name_the_speakers_and_markup_goes() -> None:
    assert vtt(
        "00:01.000 --> 00:05.500 align:start\n<v Host>A <i>fine</i> day.\nSecond line.</v>",
        "00:05.500 --> 00:09.000\n<v.loud Guest Name>Yes, <00:07.000>it &amp; you.",
        "00:09.000 --> 00:10.000\nA bell rings.",
    ) == (
        Turn("Host", 1.0, 5.5, "A fine day. Second line."),
        Turn("Guest Name", 5.5, 9.0, "Yes, it & you."),
        Turn("", 9.0, 10.0, "A bell rings."),
    )


def test_two_voices_in_one_cue_are_two_turns() -> None:
    turns = vtt("00:01.000 --> 00:05.000\n<v Host>Hello?</v>\n<v Guest>Hello!</v>")
    assert [(turn.speaker, turn.text) for turn in turns] == [("Host", "Hello?"), ("Guest", "Hello!")]


def test_markup_that_no_format_defines_stays_as_text() -> None:
    text = '<script>alert("x")</script> a < b > c'
    assert vtt(f"00:01.000 --> 00:02.000\n{text}")[0].text == text
    assert srt(f"00:00:01,000 --> 00:00:02,000\n<b>{text}</b>")[0].text == text


def test_character_references_become_characters_and_their_controls_go() -> None:
    assert vtt("00:01.000 --> 00:02.000\n&lt;b&gt; &#27;red &#x202e;x")[0].text == "<b> red x"


def test_an_endless_character_reference_stays_as_text() -> None:
    assert vtt(f"00:01.000 --> 00:02.000\n&#{'9' * 5_000};")[0].text.startswith("&#999")


def test_cues_of_one_speaker_join_up_to_sixty_words_and_thirty_seconds() -> None:
    cues = [f"00:{n:02d}.000 --> 00:{n + 1:02d}.000\n<v Host>{'word ' * 10}" for n in range(12)]
    assert [len(turn.text.split()) for turn in vtt(*cues)] == [60, 60]
    slow = [f"{n:02d}:00.000 --> {n:02d}:20.000\n<v Host>word" for n in range(3)]
    assert [(turn.start_s, turn.end_s) for turn in vtt(*slow)] == [(0, 20), (60, 80), (120, 140)]


def test_joined_cues_keep_the_first_start_and_the_last_end() -> None:
    assert vtt("00:01.000 --> 00:02.000\n<v A>one", "00:02.500 --> 00:04.000\n<v A>two") == (
        Turn("A", 1.0, 4.0, "one two"),
    )


def test_an_end_before_its_start_becomes_the_start() -> None:
    assert vtt("00:05.000 --> 00:02.000\nwords") == (Turn("", 5.0, 5.0, "words"),)


def test_cues_that_go_backwards_are_kept_apart() -> None:
    turns = vtt("00:10.000 --> 00:11.000\na", "00:05.000 --> 00:06.000\nb")
    assert [turn.start_s for turn in turns] == [10.0, 5.0]


def test_names_before_the_words_hold_until_the_next_name() -> None:
    turns = srt(
        "00:00:01,000 --> 00:00:02,000\nAnn Lee: One.",
        "00:00:02,000 --> 00:00:03,000\nTwo.",
        "00:00:03,000 --> 00:00:04,000\nBob: Three.",
        "00:00:04,000 --> 00:00:05,000\nAnn Lee: Four: and more.",
        "00:00:05,000 --> 00:00:06,000\nBob: Five.",
    )
    assert [(turn.speaker, turn.text) for turn in turns] == [
        ("Ann Lee", "One. Two."),
        ("Bob", "Three."),
        ("Ann Lee", "Four: and more."),
        ("Bob", "Five."),
    ]


def test_where_every_cue_names_its_speaker_a_nameless_cue_has_none() -> None:
    turns = srt(
        "00:00:01,000 --> 00:00:02,000\nAnn: One.",
        "00:00:02,000 --> 00:00:03,000\nAnn: Two.",
        "00:00:03,000 --> 00:00:04,000\nA gull cries.",
    )
    assert [(turn.speaker, turn.text) for turn in turns] == [("Ann", "One. Two."), ("", "A gull cries.")]


@pytest.mark.parametrize("words", ["Note: take care.", "so there is one rule: wait.", "https://example.org"])
def test_a_single_word_with_a_colon_is_no_speaker(words: str) -> None:
    assert srt(f"00:00:01,000 --> 00:00:02,000\n{words}") == (Turn("", 1.0, 2.0, words),)


def test_scrolling_captions_lose_their_repetitions() -> None:
    turns = vtt(
        "00:00.000 --> 00:02.000\n \nfirst<00:00:01.000><c> line</c>",
        "00:02.000 --> 00:02.010\nfirst line\n ",
        "00:02.010 --> 00:04.000\nfirst line\nsecond<00:00:03.000><c> line</c>",
    )
    assert [turn.text for turn in turns] == ["first line second line"]


def test_repeated_words_of_ordinary_captions_stay() -> None:
    assert vtt("00:00.000 --> 00:01.000\nNo.", "00:01.000 --> 00:02.000\nNo.")[0].text == "No. No."


@pytest.mark.parametrize("times", ["00:99.000 --> 00:99.000", "xx --> yy", "--> 00:01.000"])
def test_a_cue_with_unreadable_times_is_left_out_with_a_warning(times: str) -> None:
    transcript = parse("a.vtt", f"WEBVTT\n\n00:01.000 --> 00:02.000\ngood\n\n{times}\nbad\n".encode())
    assert [turn.text for turn in transcript.turns] == ["good"]
    assert transcript.warnings == ("cues left out because their times or words cannot be read: 1",)


def test_a_time_beyond_a_hundred_hours_is_no_time() -> None:
    turns = srt("00:00:01,000 --> 00:00:02,000\na", "99:99:99,000 --> 99:99:99,500\nb")
    assert [(turn.text, turn.start_s) for turn in turns] == [("a", 1.0), ("b", 1.0)]


@pytest.mark.parametrize("name", ["a.vtt", "a.srt"])
@pytest.mark.parametrize("text", ["just words\n", "12\nwords\n", "<html><body>no</body></html>"])
def test_what_is_not_of_the_format_is_refused_with_the_remedy(name: str, text: str) -> None:
    with pytest.raises(TranscriptError, match=rf"{name}: not .*must begin with"):
        parse(name, text.encode())


def test_captions_without_cues_are_refused() -> None:
    with pytest.raises(TranscriptError, match="no spoken words"):
        parse("a.vtt", b"WEBVTT\n\nNOTE nothing here\n")
