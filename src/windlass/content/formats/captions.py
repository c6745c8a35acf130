"""Captions: WebVTT and SRT, read with webvtt-py."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise

import webvtt

from windlass.content.formats import names
from windlass.content.formats.draft import Draft, Piece, join
from windlass.errors import TranscriptError
from windlass.stats import timecode

# Only the tags that the formats define are markup; any other `<...>` is what somebody wrote and stays as text.
_VTT_TAG = re.compile(r"</?(?:c|i|b|u|v|lang|ruby|rt)(?:[.\s][^<>]*+)?>|<[0-9:.]{9,16}>")
_SRT_TAG = re.compile(r"</?(?:b|i|u|font)(?:\s[^<>]*+)?>|\{\\an[1-9]\}", re.IGNORECASE)
_VOICE = re.compile(r"<v(?:\.[^\s<>]*+)?\s++([^<>]++)>")
_WORD_STAMP = re.compile(r"<[0-9:]{5,12}\.[0-9]{3}><c>")


def read_vtt(name: str, text: str) -> Draft:
    """The draft of a WebVTT file: speakers from voice tags (`<v Host>`) or names before the words (`Host: ...`).

    Captions that repeat the line before them while it scrolls (they carry a stamp before each word) lose the
    repetition. Raises TranscriptError when the file does not begin with WEBVTT.
    """
    try:
        captions = webvtt.WebVTT.from_string(text).captions
    except webvtt.errors.MalformedFileError as error:
        raise TranscriptError(f"{name}: not a WebVTT file; its first line must begin with WEBVTT") from error
    return _draft(captions, text, voices=True)


def read_srt(name: str, text: str) -> Draft:
    """The draft of an SRT file. Raises TranscriptError when it does not begin with a cue number and its times."""
    try:
        captions = webvtt.WebVTT.from_buffer([text.lstrip()], format="srt").captions
    except webvtt.errors.MalformedFileError as error:
        raise TranscriptError(
            f"{name}: not an SRT file; it must begin with a number and a line `00:00:01,000 --> 00:00:02,000`"
        ) from error
    return _draft(captions, text, voices=False)


def _draft(captions: list[webvtt.Caption], text: str, *, voices: bool) -> Draft:
    cues = _cues(captions, [list(_lines(caption, voices=voices)) for caption in captions])
    draft = Draft(pieces=join(_without_scrolling(cues) if _WORD_STAMP.search(text) else cues))
    lost = text.count("-->") - len(captions)
    if lost > 0:
        draft.warnings.append(f"cues left out because their times or words cannot be read: {lost}")
    return draft


def _cues(captions: list[webvtt.Caption], lines: list[list[tuple[str, str]]]) -> list[Piece]:
    """The lines of the captions with their speakers: the voice, else the name before the words."""
    prefixes = names.named(words for cue in lines for _, words in cue)
    every = _names_every_cue(lines, prefixes)
    cues: list[Piece] = []
    speaker = ""
    for caption, cue in zip(captions, lines, strict=True):
        speaker = "" if every else speaker
        for voice, words in cue:
            prefix, words = names.split(words, prefixes) if not voice else ("", words)
            speaker = prefix or speaker
            cues.append(Piece(voice or speaker, words, _seconds(caption.start_time), _seconds(caption.end_time)))
    return cues


def _names_every_cue(lines: list[list[tuple[str, str]]], prefixes: frozenset[str]) -> bool:
    """Whether one name begins two cues in a row.

    Such a file names the speaker of every cue, and a cue without a name has none; else a name holds until the next.
    """
    first = [names.split(cue[0][1], prefixes)[0] for cue in lines if cue]
    return any(name and name == following for name, following in pairwise(first))


def _lines(caption: webvtt.Caption, *, voices: bool) -> Iterator[tuple[str, str]]:
    """(voice or '', words) of a cue, one for each of its lines and voices."""
    parts = _VOICE.split(caption.raw_text) if voices else [caption.raw_text]
    for voice, words in zip(["", *parts[1::2]], parts[::2], strict=True):
        for line in words.split("\n"):
            shown = _unescaped(_VTT_TAG.sub("", line)) if voices else _SRT_TAG.sub("", line)
            if shown.strip():
                yield _unescaped(voice).strip(), shown.strip()


def _unescaped(text: str) -> str:
    """The text with `&amp;` and its like as characters; as it is where one has more digits than any character."""
    try:
        return html.unescape(text)
    except ValueError:
        return text


def _without_scrolling(cues: list[Piece]) -> list[Piece]:
    """The cues without lines that repeat the line before them."""
    kept: list[Piece] = []
    for cue in cues:
        if not kept or kept[-1].text != cue.text:
            kept.append(cue)
    return kept


def _seconds(stamp: webvtt.models.Timestamp) -> float | None:
    seconds = stamp.in_milliseconds() / 1000
    return seconds if timecode.usable(seconds) else None
