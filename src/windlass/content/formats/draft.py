"""What a format reader fills in, and how it becomes a `Transcript`: times, titles and warnings by one rule for all.

The rule of times: a time that cannot be used (missing, not a number, negative, minutes past 59, beyond 100 hours) is
no time. A turn without one keeps the time before it and lasts until the next time; a warning counts such turns.
Times that go backwards are kept. A turn ends where its file says, else at the next stamp, never before it starts; the
last one is estimated at 2.5 words a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from windlass.content.formats import clean
from windlass.content.transcript import Heading, Transcript, Turn
from windlass.errors import TranscriptError

WORDS_PER_S = 2.5
TITLE_CHARACTERS = 300
SPEAKER_CHARACTERS = 80
JOINED_WORDS = 60
JOINED_S = 30.0


@dataclass(slots=True)
class Piece:
    """A turn as its file gives it; times are usable seconds or None."""

    speaker: str
    text: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(slots=True)
class Draft:
    """Everything a reader found. `headings` are (title, index of the piece that follows)."""

    title: str = ""
    date: str = ""
    media: str = ""
    speakers: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    headings: list[tuple[str, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def finish(name: str, draft: Draft) -> Transcript:
    """The transcript of a draft. `name` is the file's; its stem is the last resort for a title.

    Raises TranscriptError when no words are left.
    """
    warnings = list(draft.warnings)
    turns, kept = _turns(draft.pieces, warnings)
    if not turns:
        raise TranscriptError(f"{name}: no spoken words found; give a file with at least one turn of text")
    seen = dict.fromkeys(turn.speaker for turn in turns if turn.speaker)
    speakers = [clean.line(speaker, SPEAKER_CHARACTERS) for speaker in draft.speakers]
    return Transcript(
        title=clean.line(draft.title, TITLE_CHARACTERS) or _stem(name),
        date=clean.line(draft.date, 40),
        media=clean.line(draft.media, 2_000),
        speakers=tuple(dict.fromkeys(speaker for speaker in speakers if speaker)) or tuple(seen),
        tags=tuple(dict.fromkeys(filter(None, (clean.line(tag, SPEAKER_CHARACTERS) for tag in draft.tags)))),
        timed=any(piece.start_s is not None for piece in draft.pieces),
        turns=tuple(turns),
        headings=tuple(_headings(draft.headings, turns, kept)),
        warnings=tuple(warnings),
    )


def join(cues: list[Piece]) -> list[Piece]:
    """Consecutive cues of one speaker as turns of at most 60 words and 30 s, so that a quote stays near its time."""
    turns: list[Piece] = []
    words = 0
    for cue in cues:
        count = len(cue.text.split())
        last = turns[-1] if turns else None
        if last is not None and words + count <= JOINED_WORDS and _continues(last, cue):
            last.text = f"{last.text} {cue.text}"
            last.end_s = cue.end_s
            words += count
        else:
            turns.append(Piece(cue.speaker, cue.text, cue.start_s, cue.end_s))
            words = count
    return turns


def _continues(turn: Piece, cue: Piece) -> bool:
    """Whether the cue has the same speaker and, where both have times, begins 0 to 30 s after the turn began."""
    if turn.speaker != cue.speaker:
        return False
    if turn.start_s is None or cue.start_s is None:
        return turn.start_s is cue.start_s
    return 0.0 <= cue.start_s - turn.start_s <= JOINED_S


def _turns(pieces: list[Piece], warnings: list[str]) -> tuple[list[Turn], list[int]]:
    """The turns that have words, and for each piece (and the end) the index of the next turn at or after it."""
    ends = _next_stamps(pieces)
    turns: list[Turn] = []
    kept: list[int] = []
    unstamped = 0
    timed = any(piece.start_s is not None for piece in pieces)
    start_s = 0.0
    for piece, next_s in zip(pieces, ends, strict=True):
        kept.append(len(turns))
        start_s = start_s if piece.start_s is None else piece.start_s
        text = clean.line(piece.text)
        if not text:
            continue
        unstamped += piece.start_s is None
        end_s = next_s if piece.end_s is None else piece.end_s
        if end_s is None:
            end_s = start_s + len(text.split()) / WORDS_PER_S
        end_s = max(start_s, end_s) if timed else 0.0
        turns.append(Turn(clean.line(piece.speaker, SPEAKER_CHARACTERS), start_s, end_s, text))
    if len(pieces) > len(turns):
        warnings.append(f"turns left out because they have no words: {len(pieces) - len(turns)}")
    if timed and unstamped:
        warnings.append(f"turns without a usable time, each keeps the time before it: {unstamped}")
    return turns, [*kept, len(turns)]


def _headings(found: list[tuple[str, int]], turns: list[Turn], kept: list[int]) -> list[Heading]:
    """The headings that have words and a turn behind them."""
    shown = [(clean.line(title, TITLE_CHARACTERS), kept[piece]) for title, piece in found]
    return [Heading(title, turn, turns[turn].start_s) for title, turn in shown if title and turn < len(turns)]


def _next_stamps(pieces: list[Piece]) -> list[float | None]:
    """For each piece the time of the first piece after it that has one; None after the last."""
    ends: list[float | None] = []
    next_s: float | None = None
    for piece in reversed(pieces):
        ends.append(next_s)
        next_s = next_s if piece.start_s is None else piece.start_s
    return ends[::-1]


def _stem(name: str) -> str:
    return clean.line(PurePosixPath(name.replace("\\", "/")).stem, TITLE_CHARACTERS) or "untitled"
