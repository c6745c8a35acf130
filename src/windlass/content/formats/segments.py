"""JSON segments, as speech recognition writes them."""

from __future__ import annotations

import json
from typing import Any

from windlass.content.formats.draft import Draft, Piece, join
from windlass.errors import TranscriptError
from windlass.stats import timecode

_SHAPE = '{"segments": [{"start": 0.0, "end": 2.5, "speaker": "Host", "text": "..."}]}'


def read(name: str, text: str) -> Draft:
    """The draft of `{"segments": [...]}` or of the bare list; `speaker` and `end` may be missing.

    Times are seconds or stamps (`"00:01:02"`); title, date, media, speakers and tags beside `segments` are used. A
    segment without text is left out with a warning. Raises TranscriptError for anything that is not of this shape.
    """
    content = _content(name, text)
    segments = content.get("segments") if isinstance(content, dict) else content
    if not isinstance(segments, list):
        raise TranscriptError(f"{name}: `segments` is {_kind(segments)}, not a list; write {_SHAPE}")
    draft = _head(content) if isinstance(content, dict) else Draft()
    spoken = [segment for segment in segments if isinstance(segment, dict) and isinstance(segment.get("text"), str)]
    if segments and not spoken:
        raise TranscriptError(f"{name}: none of {len(segments)} segments is an object with a `text`; write {_SHAPE}")
    if len(spoken) < len(segments):
        draft.warnings.append(f"segments left out because they have no text: {len(segments) - len(spoken)}")
    draft.pieces = join([_piece(segment) for segment in spoken])
    return draft


def _content(name: str, text: str) -> Any:
    """What the JSON says, whatever its shape."""
    try:
        # The standard library's reader, because recognisers write NaN for log-probabilities, which is not JSON.
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TranscriptError(f"{name}: not JSON ({error.msg} in line {error.lineno}); write {_SHAPE}") from error
    except (RecursionError, ValueError) as error:
        raise TranscriptError(f"{name}: JSON nested too deeply or with endless numbers; write {_SHAPE}") from error


def _head(content: dict[str, Any]) -> Draft:
    """What stands beside the segments."""

    def word(key: str) -> str:
        value = content.get(key)
        return value if isinstance(value, str) else ""

    def words(key: str) -> list[str]:
        value = content.get(key)
        return [part for part in value if isinstance(part, str)] if isinstance(value, list) else []

    return Draft(word("title"), word("date"), word("media"), words("speakers"), words("tags"))


def _piece(segment: dict[str, Any]) -> Piece:
    speaker = segment.get("speaker")
    start_s, end_s = _seconds(segment.get("start")), _seconds(segment.get("end"))
    return Piece(speaker if isinstance(speaker, str) else "", segment["text"].strip(), start_s, end_s)


def _seconds(value: object) -> float | None:
    """A usable time, or None."""
    if isinstance(value, str):
        try:
            return timecode.parse(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An int beyond every float compares exactly, but cannot be converted.
    return float(value) if 0 <= value < timecode.LIMIT_S else None


def _kind(value: object) -> str:
    names = {type(None): "missing", dict: "an object", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")
