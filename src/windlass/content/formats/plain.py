"""Text without stamps: paragraphs, perhaps with the speaker's name before them."""

from __future__ import annotations

from windlass.content.formats import names
from windlass.content.formats.draft import Draft, Piece
from windlass.stats.sentences import sentences

PARAGRAPH_WORDS = 120


def read(text: str, draft: Draft | None = None) -> Draft:
    """One piece a paragraph (paragraphs stand between empty lines), longer ones cut at sentence ends at 120 words.

    A line that begins with the name of a speaker (`Host: ...`) begins a paragraph of that speaker.
    """
    draft = draft or Draft()
    lines = text.split("\n")
    speakers = names.named(lines)
    speaker, paragraph = "", list[str]()
    for line in [*lines, ""]:
        name, words = names.split(line.strip(), speakers)
        if name or not words:
            draft.pieces.extend(_cut(speaker, " ".join(paragraph)))
            speaker, paragraph = name, []
        if words:
            paragraph.append(words)
    return draft


def _cut(speaker: str, text: str) -> list[Piece]:
    """A paragraph as pieces of whole sentences, each of at most 120 words where the sentences allow."""
    pieces: list[Piece] = []
    first, words = 0, 0
    for start, end in sentences(text):
        count = text.count(" ", start, end) + 1
        if words and words + count > PARAGRAPH_WORDS:
            pieces.append(Piece(speaker, text[first:start]))
            first, words = start, 0
        words += count
    return [*pieces, Piece(speaker, text[first:])] if words else pieces
