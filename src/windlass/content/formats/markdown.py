"""Markdown with a line `Speaker: HH:MM:SS` before each turn, headings between turns and YAML front matter."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from windlass.content.formats import clean, front_matter, plain
from windlass.content.formats.draft import Draft, Piece
from windlass.stats import timecode

_STAMPED = re.compile(
    r"[*_]*+(?P<name>[^:\n]{1,60}?)[*_ ]*+(?P<colon>:?)[*_ ]*+[(\[]?"
    r"(?P<stamp>[0-9]{1,4}(?::[0-9]{1,4}){1,3}(?:[.,][0-9]{1,3})?)[)\]]?[*_ ]*:?"
)
_BARE = re.compile(r"[*_]*+([^:\n]{1,60}?)[*_ ]*+:[*_]*+")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)")
_EMPHASIS = re.compile(r"\*\*|__|`")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_NAME_WORDS = 5
# What a line that begins a turn can end with: asked first, it spares most lines the patterns.
_STAMP_ENDS = tuple("0123456789:)]*_")
_STAMP_LINE_CHARACTERS = 100


@dataclass(slots=True)
class _Reading:
    """Where the walk through the lines stands: `lines` wait for their turn, which is `open` until it has its words."""

    draft: Draft
    names: frozenset[str]
    stamped: bool
    open: bool = False
    lines: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Give the lines read so far to the open turn; in a file without stamps they are paragraphs.

        Before the first turn they are a preamble of no speaker. A turn that goes on after a heading is cut there; its
        second part has the same speaker and no stamp of its own.
        """
        text = clean.visible_links(("\n", " ")[self.stamped].join(self.lines))
        self.lines.clear()
        pieces = self.draft.pieces
        if not self.stamped:
            plain.read(text, self.draft)
        elif self.open:
            pieces[-1].text = text
        elif text:
            pieces.append(Piece(pieces[-1].speaker, text) if pieces else Piece("", text, 0.0))
        self.open = False


def stamped(text: str) -> bool:
    """Whether the text holds at least one line `Speaker: HH:MM:SS`."""
    return any(_colon_stamp(line) is not None for line in map(str.strip, text.split("\n")))


def read(text: str) -> Draft:
    """The draft of a Markdown transcript.

    Lenient where the intent is plain: a stamp after a known speaker may lack its colon, blank or empty line or have a
    colon behind; a line with nothing but a known speaker and a colon begins a turn without a time. Known are the
    front matter's speakers and all that have a stamp. Links keep their words and lose their address. A file without
    any stamp is read as paragraphs.
    """
    draft = Draft()
    body = text[front_matter.read(text, draft) :]
    lines = [line.strip() for line in body.split("\n")]
    names = frozenset(match["name"].strip() for match in map(_colon_stamp, lines) if match)
    reading = _Reading(draft, names | frozenset(draft.speakers), stamped=bool(names))
    for line in lines:
        if line.startswith("#") or line.endswith(_STAMP_ENDS):
            _take(line, reading)
        elif line or not reading.stamped:
            reading.lines.append(line)
    reading.close()
    return draft


def _take(line: str, reading: _Reading) -> None:
    """One line of the body: a heading, the beginning of a turn, or words."""
    heading = _HEADING.fullmatch(line) if line.startswith("#") else None
    if heading is not None:
        title = _title(heading[2])
        if reading.open and not any(reading.lines):
            # The heading stands between the stamp and the words: it belongs before that turn.
            reading.draft.headings.append((title, len(reading.draft.pieces) - 1))
            return
        reading.close()
        if len(heading[1]) == 1 and not reading.draft.title and not reading.draft.pieces:
            reading.draft.title = title
        else:
            reading.draft.headings.append((title, len(reading.draft.pieces)))
        return
    turn = _turn(line, reading) if reading.stamped else None
    if turn is not None:
        reading.close()
        reading.draft.pieces.append(turn)
        reading.open = True
    elif line or not reading.stamped:
        reading.lines.append(line)


def _turn(line: str, reading: _Reading) -> Piece | None:
    """The turn that a line begins, still without words; None for any other line."""
    match = _stamp(line)
    if match is not None:
        name = match["name"].strip()
        if name in reading.names or (match["colon"] and _is_name(name)):
            return Piece(name, "", _seconds(match["stamp"]))
        return None
    bare = _BARE.fullmatch(line) if ":" in line[-4:] and len(line) <= _STAMP_LINE_CHARACTERS else None
    return Piece(bare[1].strip(), "") if bare and bare[1].strip() in reading.names else None


def _colon_stamp(line: str) -> re.Match[str] | None:
    """The match of a line `Speaker: HH:MM:SS` as it should be written."""
    match = _stamp(line)
    return match if match is not None and match["colon"] and _is_name(match["name"].strip()) else None


def _stamp(line: str) -> re.Match[str] | None:
    """The match of a line that ends in a stamp."""
    if not line.endswith(_STAMP_ENDS) or ":" not in line or len(line) > _STAMP_LINE_CHARACTERS:
        return None
    return _STAMPED.fullmatch(line)


def _is_name(text: str) -> bool:
    """Whether the words before a stamp can be a speaker: a few words with a letter, no sentence."""
    return len(text.split()) <= _NAME_WORDS and any(map(str.isalpha, text)) and not text.endswith((".", "?", "!", ","))


def _seconds(stamp: str) -> float | None:
    try:
        return timecode.parse(stamp)
    except ValueError:
        return None


def _title(text: str) -> str:
    """The words of a heading as a reader sees them."""
    words, _, last = text.rpartition(" ")
    closed = words if not last.strip("#") else text
    return _ESCAPE.sub(r"\1", _EMPHASIS.sub("", clean.visible_links(closed))).strip()
