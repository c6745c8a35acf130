"""Full-text search in PostgreSQL: a `tsvector` a chunk, and BM25 from its positions.

The words are cut here as FTS5's `unicode61` cuts them (letters and digits, without case and accents) and stemmed by the
server's Porter stemmer without stop words, so that both databases find the same chunks with the same scores: section
hit@5 0.829 and QMSum nDCG@10 0.580 on each (benchmarks/retrieval.py). What differs: the two stemmers on a few words (of
269 queries nine find other chunks: `useful` is `use` to one of them), a word counts at most 255 times in a chunk, and
words beyond the 16,383rd of a chunk are not indexed (PostgreSQL 15 manual, section 12.11).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from windlass.memory.index import Ids
from windlass.memory.matches import MAX_TERM_CHARACTERS, Matches, Scores, joined, rarity, terms

K1, B = 1.2, 0.75
"""Of BM25, those of FTS5."""
MAX_WORDS = 16_383
# A tsvector holds less than a megabyte; of each word it holds the bytes and, in the worst case, one position.
MAX_BYTES = 600_000
_RANKS = np.cumsum(1.0 / np.arange(1, 257) ** 2) / 1.64493406685
_BETWEEN = (_RANKS[1:] + _RANKS[:-1]) / 2
_WORD = re.compile(r"[^\W_]+")
_ACCENT = re.compile("[\u0300-\u036f]+")

_CREATE = sa.text("INSERT INTO search_sizes (collection, words) VALUES (:collection, 0)")
_DROP = tuple(
    sa.text(f"DELETE FROM {table} WHERE collection = :collection") for table in ("search_chunks", "search_sizes")
)
_ADD = sa.text(
    "INSERT INTO search_chunks (chunk, collection, length, words) "
    "VALUES (:chunk, :collection, :length, to_tsvector('windlass', :words))"
)
_REMOVE = sa.text("DELETE FROM search_chunks WHERE collection = :collection AND chunk = ANY(:chunks) RETURNING length")
_GROW = sa.text("UPDATE search_sizes SET words = words + :words WHERE collection = :collection")
_SIZE = sa.text("SELECT words FROM search_sizes WHERE collection = :collection")
_LEXEMES = sa.text(
    "SELECT asked.place, w.lexeme, w.positions "
    "FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS asked(words, place)"
    ", unnest(to_tsvector('windlass', asked.words)) AS w"
)
_HOLDERS = sa.text(
    "SELECT asked.place, array_agg(s.chunk), array_agg(s.length), array_agg(ts_rank('{1,1,1,1}', s.words, asked.word)) "
    "FROM unnest(CAST(:queries AS tsquery[])) WITH ORDINALITY AS asked(word, place) "
    "JOIN search_chunks AS s ON s.collection = :collection AND s.words @@ asked.word GROUP BY asked.place"
)
_PHRASE = sa.text(
    "SELECT s.chunk, s.length, w.lexeme, w.positions FROM search_chunks AS s, unnest(s.words) AS w "
    "WHERE s.collection = :collection AND s.words @@ CAST(:phrase AS tsquery) AND w.lexeme = ANY(:lexemes)"
)


class _Terms(NamedTuple):
    """The chunks that hold one term: how often, and how many words each has."""

    ids: Ids
    times: Scores
    lengths: Scores


_NONE = _Terms(np.empty(0, np.int64), np.empty(0), np.empty(0))


class TsVector:
    """Chunks by their words in the tables of migration 0003, with BM25 as FTS5 computes it."""

    def create(self, connection: sa.Connection, collection: int) -> None:
        connection.execute(_CREATE, {"collection": collection})

    def drop(self, connection: sa.Connection, collection: int) -> None:
        for statement in _DROP:
            connection.execute(statement, {"collection": collection})

    def add(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        if not rows:
            return
        cut = [(chunk, words_of(text)) for chunk, text in rows]
        new = [
            {"chunk": chunk, "collection": collection, "length": len(words), "words": " ".join(words)}
            for chunk, words in cut
        ]
        connection.execute(_ADD, new)
        connection.execute(_GROW, {"collection": collection, "words": sum(len(words) for _, words in cut)})

    def remove(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        """Take the chunks out. Their words are on disk until `retention.scrub` rewrites the table."""
        if not rows:
            return
        gone = connection.execute(_REMOVE, {"collection": collection, "chunks": [chunk for chunk, _ in rows]})
        connection.execute(_GROW, {"collection": collection, "words": -sum(gone.scalars())})

    def match(self, connection: sa.Connection, collection: int, query: str, size: int) -> Matches:
        """All terms of one word in one statement, and one more for each that the index knows as several."""
        asked = terms(query)
        spelled = _lexemes(connection, asked)
        single = _holders(connection, collection, {parts[0] for parts in spelled.values() if len(parts) == 1})
        words = connection.scalar(_SIZE, {"collection": collection}) or 0
        mean_length = words / size if words and size else 1.0
        found: list[tuple[Ids, Scores, float]] = []
        for term in asked:
            parts = spelled.get(term, ())
            held = _phrase(connection, collection, parts) if len(parts) > 1 else single.get("".join(parts), _NONE)
            idf = rarity(len(held.ids), size)
            found.append((held.ids, idf * _weight(held, mean_length), idf))
        return joined(found)


def words_of(text: str) -> list[str]:
    """The words of `text` as they are indexed: without case, accents and what is no letter or digit.

    >>> words_of("Caf\u00e9 op_return: 42!")
    ['cafe', 'op', 'return', '42']
    """
    kept: list[str] = []
    room = MAX_BYTES
    for word in _WORD.findall(_folded(text)):
        room -= len(word.encode("utf-8", "ignore")) + 8
        if room < 0 or len(kept) == MAX_WORDS:
            break
        if len(word) <= MAX_TERM_CHARACTERS:
            kept.append(word)
    return kept


def _folded(text: str) -> str:
    text = text.casefold()
    return text if text.isascii() else unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", text)))


def _lexemes(connection: sa.Connection, asked: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What the index calls each term: mostly one lexeme, several in order for such as `op_return`, or none."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    if asked:
        texts = [" ".join(words_of(term)) for term in asked]
        for place, lexeme, positions in connection.execute(_LEXEMES, {"texts": texts}):
            found[asked[place - 1]] += [(position, lexeme) for position in positions]
    return {term: tuple(lexeme for _, lexeme in sorted(parts)) for term, parts in found.items()}


def _holders(connection: sa.Connection, collection: int, lexemes: Iterable[str]) -> dict[str, _Terms]:
    """For each lexeme the chunks that hold it."""
    wanted = sorted(lexemes)
    given = {"collection": collection, "queries": [_quoted(lexeme) for lexeme in wanted]}
    return {
        wanted[place - 1]: _Terms(np.array(ids, np.int64), _times(np.array(ranks)), np.array(lengths, float))
        for place, ids, lengths, ranks in (connection.execute(_HOLDERS, given) if wanted else ())
    }


def _times(ranks: Scores) -> Scores:
    """How often a lexeme stands in chunks with these ranks.

    To unpack the positions costs 25 us a chunk, the rank 2 us, and it holds the same: of one lexeme with all weights 1
    it is the sum of 1 / j^2 over its 1 to 255 places j, over pi^2 / 6 (`calc_rank_or` in PostgreSQL's tsrank.c).
    """
    return np.searchsorted(_BETWEEN, ranks).astype(float) + 1.0


def _phrase(connection: sa.Connection, collection: int, parts: Sequence[str]) -> _Terms:
    """The chunks in which `parts` follow each other."""
    given = {"collection": collection, "phrase": " <-> ".join(map(_quoted, parts)), "lexemes": list(parts)}
    places: dict[int, dict[str, set[int]]] = defaultdict(dict)
    lengths: dict[int, int] = {}
    for chunk, length, lexeme, positions in connection.execute(_PHRASE, given):
        places[chunk][lexeme], lengths[chunk] = set(positions), length
    ids = sorted(places)
    times = [
        sum(
            all(start + at in places[chunk][part] for at, part in enumerate(parts)) for start in places[chunk][parts[0]]
        )
        for chunk in ids
    ]
    return _Terms(np.array(ids, np.int64), np.array(times, float), np.array([lengths[chunk] for chunk in ids], float))


def _weight(held: _Terms, mean_length: float) -> Scores:
    """The factor of BM25 that grows with how often a chunk holds a term
    (Robertson and Zaragoza 2009, doi 10.1561/1500000019, eq. 3.15 with the k1 + 1 of FTS5)."""
    return held.times * (K1 + 1) / (held.times + K1 * (1 - B + B * held.lengths / mean_length))


def _quoted(lexeme: str) -> str:
    """A lexeme as part of a tsquery, where it is never syntax."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
