"""What a transcript is, whatever file it came from. Read first in this room."""

from __future__ import annotations

import msgspec


class Turn(msgspec.Struct, frozen=True):
    """What one speaker said from `start_s` to `end_s` (seconds from the start of the recording).

    `text` holds the words as written, lines joined by single spaces; `speaker` is '' where the file names none.
    `start_s` is the stamp of the source, even where stamps go backwards; `end_s` is never before it.
    """

    speaker: str
    start_s: float
    end_s: float
    text: str


class Heading(msgspec.Struct, frozen=True):
    """A section heading that stands before the turn with index `turn`."""

    title: str
    turn: int
    start_s: float


class Transcript(msgspec.Struct, frozen=True):
    """One recording in words. Without stamps in the file `timed` is False and every time 0.0.

    `date` is ISO 8601 where the file gives one, else as written or ''; `media` is the link that the file names, not
    checked (`analysis.time_link` does); `warnings` say in plain words what had to be mended or left out.
    """

    title: str
    date: str
    media: str
    speakers: tuple[str, ...]
    tags: tuple[str, ...]
    timed: bool
    turns: tuple[Turn, ...]
    headings: tuple[Heading, ...]
    warnings: tuple[str, ...]
