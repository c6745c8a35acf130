from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.content.parse import parse
from windlass.content.transcript import Transcript, Turn
from windlass.errors import TranscriptError


def read(content: Any) -> Transcript:
    return parse("talk.json", json.dumps(content).encode())


def test_reads_segments_and_what_stands_beside_them() -> None:
    transcript = read(
        {
            "title": "Buoys", "date": "2024-02-05", "media": "https://example.org/b.mp3",
            "tags": ["sea"], "language": "en",
            "segments": [
                {"id": 0, "start": 0.0, "end": 4.2, "speaker": "Host", "text": " Why? ", "avg_logprob": -0.2},
                {"start": 4.2, "end": 11, "speaker": "Guest", "text": "Because."},
            ],
        }
    )  # fmt: skip
    assert (transcript.title, transcript.date, transcript.media) == ("Buoys", "2024-02-05", "https://example.org/b.mp3")
    assert transcript.speakers == ("Host", "Guest")
    assert transcript.tags == ("sea",)
    assert transcript.turns == (Turn("Host", 0.0, 4.2, "Why?"), Turn("Guest", 4.2, 11.0, "Because."))


def test_reads_a_bare_list_and_joins_nameless_segments() -> None:
    transcript = read([{"start": n, "end": n + 1, "text": "five words in this one"} for n in range(20)])
    assert [(turn.start_s, turn.end_s) for turn in transcript.turns] == [(0, 12), (12, 20)]
    assert transcript.speakers == ()


def test_stamps_may_be_texts() -> None:
    assert read([{"start": "00:01:02", "end": "01:03.5", "text": "a"}]).turns == (Turn("", 62.0, 63.5, "a"),)


@pytest.mark.parametrize("start", [None, -1, 1e9, 10**400, True, "soon", "99:99:99", [], float("nan"), float("inf")])
def test_a_time_that_cannot_be_used_is_no_time(start: Any) -> None:
    transcript = read(
        [{"start": 5, "end": 6, "speaker": "A", "text": "a"}, {"start": start, "speaker": "B", "text": "b"}]
    )
    assert transcript.turns[1].start_s == 5.0
    assert transcript.turns[1].end_s >= 5.0
    assert transcript.warnings == ("turns without a usable time, each keeps the time before it: 1",)


def test_without_any_usable_time_the_transcript_is_not_timed() -> None:
    transcript = read([{"text": "a", "start": -1}, {"text": "b"}])
    assert not transcript.timed
    assert transcript.turns == (Turn("", 0.0, 0.0, "a b"),)
    assert transcript.warnings == ()


def test_a_not_a_number_in_an_unused_field_does_no_harm() -> None:
    assert parse("a.json", b'[{"start": 0, "end": 1, "text": "a", "avg_logprob": NaN}]').turns[0].end_s == 1.0


def test_segments_without_text_are_left_out_with_a_warning() -> None:
    transcript = read({"segments": [{"text": 3}, "words", {"start": 1}, None, {"start": 1, "end": 2, "text": "a"}]})
    assert transcript.turns == (Turn("", 1.0, 2.0, "a"),)
    assert transcript.warnings == ("segments left out because they have no text: 4",)


def test_escaped_controls_and_lone_surrogates_go() -> None:
    transcript = parse("a.json", rb'[{"speaker": "\u001b[1mAnn\u0000", "text": "a\ud800b \u202ec"}]')
    assert transcript.turns[0] == Turn("Ann", 0.0, 0.0, "ab c")
    transcript.turns[0].text.encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("7", "a number"),
        ('"words"', "a text"),
        ("null", "missing"),
        ("{}", "missing"),
        ('{"segments": {}}', "an object"),
        ('{"segments": true}', "true or false"),
        ('{"segments": 1.5}', "a number"),
        ('{"segments": ["a", 1]}', "none of 2 segments"),
        ("[]", "no spoken words"),
        ('{"segments": [{"text": "  "}]}', "no spoken words"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"text": "a", "start": ' + "9" * 5_000 + "}]", "endless numbers"),
    ],
)
def test_other_shapes_are_refused_with_what_was_found(text: str, reason: str) -> None:
    with pytest.raises(TranscriptError, match=reason):
        parse("talk.json", text.encode())
