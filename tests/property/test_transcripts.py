"""Whatever the bytes, a transcript is either refused by name or holds its promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.content.analysis import chapters, key_quotes, time_link
from windlass.content.parse import parse
from windlass.content.transcript import Transcript
from windlass.errors import TranscriptError
from windlass.stats import timecode
from windlass.stats.sentences import LONG_WORDS, sentences

NAMES = st.sampled_from(["a.md", "a.vtt", "a.srt", "a.json", "a.txt", "a", "", "\x00\ud800.md"])
FRAGMENTS = st.sampled_from(
    ["WEBVTT", "---", "title: [", "speakers: *x", "# ", "## Part", "Host: 00:00:05", "Guest:", "Host 1:02",
     "Host: 99:99:99", "1", "2", "00:01.000 --> 00:02.000", "00:00:03,000 --> 00:00:04,000",
     "99:99:99,000 --> 00:00:00,000", "<v Host>", "</v>", "<c>", "&#27;", "{\\an8}", "[a](b)", "![", '{"segments": [',
     '{"text": "a"}', "]}", "NaN", "\x1b[31m", "\x9b", "\u202e", "\ufeff", "Hello there.", "Ann: yes.", "e.g. this",
     "...", "NOTE", "STYLE", ""]
)  # fmt: skip
NEAR_MISSES = st.lists(st.one_of(FRAGMENTS, st.text(max_size=12)), max_size=30).flatmap(
    lambda parts: st.sampled_from(["\n", "\n\n", " ", "\r\n"]).map(lambda joint: joint.join(parts))
)
FORBIDDEN = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)}
THOROUGH = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(transcript: Transcript) -> None:
    """The promises of `Transcript`."""
    assert transcript.turns
    assert transcript.title
    for turn in transcript.turns:
        assert turn.text
        assert turn.text == " ".join(turn.text.split())
        assert 0.0 <= turn.start_s < timecode.LIMIT_S
        assert turn.end_s >= turn.start_s
        assert transcript.timed or turn.end_s == 0.0
    assert all(0 <= heading.turn < len(transcript.turns) for heading in transcript.headings)
    shown = [transcript.title, transcript.date, transcript.media, *transcript.speakers, *transcript.tags]
    shown += [heading.title for heading in transcript.headings]
    shown += [part for turn in transcript.turns for part in (turn.speaker, turn.text)]
    assert not FORBIDDEN & {ord(character) for text in shown for character in text}


def check_analysis(transcript: Transcript) -> None:
    """The promises of chapters and key quotes."""
    found = chapters(transcript)
    covered = [turn for chapter in found for turn in range(chapter.first_turn, chapter.last_turn + 1)]
    assert covered == list(range(len(transcript.turns)))
    assert all(chapter.title and chapter.end_s >= chapter.start_s for chapter in found)
    for quote in key_quotes(transcript, found, 3):
        assert quote.text in transcript.turns[quote.turn].text


def read(name: str, data: bytes) -> Transcript | None:
    try:
        return parse(name, data, limit_bytes=100_000)
    except TranscriptError:
        return None


@THOROUGH
@given(NAMES, st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    transcript = read(name, data)
    if transcript is not None:
        check(transcript)


@THOROUGH
@given(NAMES, st.one_of(NEAR_MISSES, st.text(max_size=300)))
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    transcript = read(name, text.encode("utf-8", "replace"))
    if transcript is not None:
        check(transcript)
        check_analysis(transcript)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10))
SEGMENTS = st.lists(
    st.one_of(
        SCALARS,
        st.dictionaries(st.sampled_from(["text", "start", "end", "speaker", "x"]), SCALARS),
        st.fixed_dictionaries({"text": st.text(max_size=20), "start": SCALARS, "end": SCALARS}),
    ),
    max_size=8,
)


@THOROUGH
@given(st.one_of(SEGMENTS, st.fixed_dictionaries({"segments": SEGMENTS, "title": SCALARS, "tags": SCALARS})))
def test_any_json_is_read_or_refused(content: Any) -> None:
    transcript = read("a.json", json.dumps(content).encode())
    if transcript is not None:
        check(transcript)


WORDS = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
STAMPED = st.lists(
    st.tuples(st.sampled_from(["Host", "Guest"]), st.integers(0, 359_999), WORDS), min_size=1, max_size=12
)


@THOROUGH
@given(STAMPED)
def test_stamped_turns_come_back_as_they_were_written(turns: list[tuple[str, int, str]]) -> None:
    text = "\n\n".join(f"{speaker}: {timecode.format(start)}\n\n{words}" for speaker, start, words in turns)
    transcript = parse("a.md", text.encode())
    assert [(turn.speaker, turn.start_s, turn.text) for turn in transcript.turns] == turns
    for turn, after in zip(transcript.turns, transcript.turns[1:], strict=False):
        assert turn.end_s == max(turn.start_s, after.start_s)


TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(["word", "e.g.", "0.21.0", "No.", "why?", "and", "a,", "...", "”", "…", "。", "J."]),
        max_size=200,
    ).map(" ".join),
)


@THOROUGH
@given(TEXTS)
def test_sentence_spans_are_in_order_verbatim_and_lose_nothing(text: str) -> None:
    spans = sentences(text)
    at = 0
    for start, end in spans:
        assert at <= start < end <= len(text)
        assert not text[at:start].strip()
        assert text[start:end] == text[start:end].strip()
        assert len(text[start:end].split()) <= LONG_WORDS
        at = end
    assert not text[at:].strip()


@given(st.floats(0, 359_999.9))
def test_a_stamp_reads_back_to_its_whole_second(seconds: float) -> None:
    assert timecode.parse(timecode.format(seconds)) == int(seconds)


@given(st.text(max_size=20))
def test_a_stamp_is_a_time_or_refused(text: str) -> None:
    try:
        seconds = timecode.parse(text)
    except ValueError:
        return
    assert timecode.usable(seconds)


ADDRESSES = st.one_of(
    st.text(max_size=60),
    st.tuples(st.sampled_from(["https://", "http://youtu.be/", "javascript:"]), st.text(max_size=40)).map("".join),
)


@THOROUGH
@given(ADDRESSES, st.floats())
def test_a_time_link_is_empty_or_a_web_address_that_needs_no_quoting(media: str, start_s: float) -> None:
    link = time_link(media, start_s)
    assert link == "" or link.startswith(("http://", "https://"))
    assert not set(link) & set('"<>\\ \n\t\x00')


@pytest.mark.parametrize("size", [99_999, 100_001])
def test_the_limit_holds_to_the_byte(size: int) -> None:
    assert (read("a.txt", b"a" * size) is None) == (size > 100_000)
