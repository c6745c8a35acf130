"""Bytes of a file to a `Transcript`: what is refused, how it is decoded, which format reads it."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath
from typing import Literal

from windlass.content.formats import captions, clean, markdown, plain, segments
from windlass.content.formats.draft import Draft, finish
from windlass.content.transcript import Transcript
from windlass.errors import TranscriptError

LIMIT_BYTES = 32 * 1024 * 1024
_BINARY_SHARE = 0.02

Format = Literal["vtt", "srt", "json", "markdown", "plain"]

_ENDINGS: dict[str, Format] = {
    ".vtt": "vtt",
    ".srt": "srt",
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
}
_SRT_HEAD = re.compile(r"\s*[0-9]+[ \t]*\n[ \t]*[0-9]+:[0-9:]+[,.][0-9]+[ \t]*-->")
_JSON_HEAD = re.compile(r"\s*(?:\{\s*\"|\[\s*\{)")


def parse(name: str, data: bytes, *, limit_bytes: int = LIMIT_BYTES) -> Transcript:
    """Read a transcript: Markdown, WebVTT, SRT, JSON segments or plain text.

    The ending of `name` chooses the format; without a telling one the content does. What can be mended is, and
    `warnings` says so; the rule of times stands in `formats/draft.py`.

    Raises TranscriptError, with the value and the remedy, for a file that is empty, larger than `limit_bytes`,
    binary, not UTF-8 (UTF-16 needs its byte order mark), not of the format it claims, or without words.
    """
    label = clean.line(name, 200) or "unnamed"
    text, removed = clean.without_controls(_decode(label, data, limit_bytes))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    draft = _read(label, text)
    if removed:
        draft.warnings.append(f"control characters removed: {removed}")
    return finish(label, draft)


def _read(name: str, text: str) -> Draft:
    kind = _ENDINGS.get(PurePosixPath(name.lower()).suffix) or _guess(text)
    match "vtt" if text.startswith("WEBVTT") else kind:
        case "vtt":
            return captions.read_vtt(name, text)
        case "srt":
            return captions.read_srt(name, text)
        case "json":
            return segments.read(name, text)
        case "markdown":
            return markdown.read(text)
        case _:
            return plain.read(text)


def _guess(text: str) -> Format:
    """The format of a file whose ending says nothing."""
    if _SRT_HEAD.match(text):
        return "srt"
    if _JSON_HEAD.match(text) and text.rstrip().endswith(("}", "]")):
        return "json"
    return "markdown" if text.startswith("---\n") or markdown.stamped(text) else "plain"


def _decode(name: str, data: bytes, limit_bytes: int) -> str:
    """The text of the bytes, or the reason why there is none."""
    if len(data) > limit_bytes:
        raise TranscriptError(
            f"{name}: {len(data):,} bytes, more than {limit_bytes:,}; split the file or check that it is a transcript"
        )
    if not data.strip():
        raise TranscriptError(f"{name}: the file is empty; give a transcript with words in it")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if wide else "UTF-8"
        found = data[error.start : error.start + 4]
        raise TranscriptError(
            f"{name}: not {encoding} at byte {error.start} ({found!r}); save it as UTF-8 text"
        ) from error
    head = text[:65_536]
    unprintable = sum(head.count(chr(code)) for code in (*range(7), *range(14, 27)))
    if unprintable > max(8, _BINARY_SHARE * len(head)):
        raise TranscriptError(
            f"{name}: looks binary ({unprintable} control characters in {len(head):,}); save it as UTF-8 text"
        )
    return text
