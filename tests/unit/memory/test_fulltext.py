"""Words in, chunks out: ranking, weights of terms, and questions that try to be syntax."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from windlass.errors import LedgerError
from windlass.ledger.db import Database
from windlass.memory.fts5 import Fts5
from windlass.memory.fulltext import full_text
from windlass.memory.matches import MAX_TERMS, terms
from windlass.memory.tsvector import TsVector

TEXTS = {
    1: "The signet network signs blocks",
    2: "A testnet is reset now and then",
    3: "Signet was created because testnet was unreliable",
    4: "Nothing about networks",
    5: "NEAR and OR and NOT are words of boolean logic",
    6: "Über das naïve café: résumé",
    7: "東京 です 🙂 op_return",
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    """A database with one full-text index, that of collection 1."""
    db = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    db.migrate()
    with db.write() as made:
        Fts5().create(made, 1)
        Fts5().add(made, 1, list(TEXTS.items()))
        yield made
    db.close()


def found(connection: sa.Connection, query: str, collection: int = 1) -> list[int]:
    return Fts5().match(connection, collection, query, len(TEXTS)).ids.tolist()


def test_the_chunk_with_the_rare_words_scores_best(connection):
    matches = Fts5().match(connection, 1, "Why was signet created instead of testnet?", len(TEXTS))
    assert matches.ids.tolist() == [1, 2, 3]
    assert matches.ids[matches.scores.argmax()] == 3
    assert (matches.scores > 0).all()


def test_scores_are_those_of_one_disjunction(connection):
    matches = Fts5().match(connection, 1, "signet created testnet", len(TEXTS))
    query = "SELECT rowid, -bm25(fts_1) FROM fts_1 WHERE fts_1 MATCH ? ORDER BY rowid"
    whole = connection.exec_driver_sql(query, ('"signet" OR "created" OR "testnet"',)).fetchall()
    assert matches.ids.tolist() == [row[0] for row in whole]
    assert matches.scores.tolist() == pytest.approx([row[1] for row in whole])


def test_coverage_is_the_share_of_the_query_by_rarity(connection):
    matches = Fts5().match(connection, 1, "signet created testnet", len(TEXTS))
    coverage = dict(zip(matches.ids.tolist(), matches.coverage.tolist(), strict=True))
    assert coverage[3] == pytest.approx(1.0)
    assert 0 < coverage[1] < coverage[3]
    unknown = Fts5().match(connection, 1, "signet created testnet xylophone", len(TEXTS))
    assert unknown.coverage.max() < 0.75


def test_words_are_joined_by_their_stem_and_without_case_or_accents(connection):
    assert found(connection, "SIGNING networks") == [1, 4]
    assert found(connection, "cafe") == [6]
    assert found(connection, "re\u0301sume\u0301") == [6]


@pytest.mark.parametrize(
    "query",
    ["", "   ", "?!", "\x00", "🙂", '"', "'", "((", ")", "*", "^", "-", ":", "{}", "+", "\ud800", "\x00\x00 \ud83d"],
)
def test_a_query_without_words_finds_nothing(connection, query):
    assert found(connection, query) == []


@pytest.mark.parametrize(
    "query",
    [
        'signet" OR "testnet',
        "signet AND testnet",
        "signet NOT testnet",
        "NEAR(signet testnet, 2)",
        "text: signet testnet",
        "{text} : signet testnet",
        "signet* ^testnet",
        "sig\x00net signet testnet",
        "signet'; DROP TABLE fts_1; -- testnet",
        "(signet) \\ [testnet] \ud800",
    ],
)
def test_syntax_in_a_query_is_only_words(connection, query):
    assert {1, 2, 3} <= set(found(connection, query))
    assert len(found(connection, "signet")) == 2


def test_a_column_filter_is_no_filter_and_a_minus_excludes_nothing(connection):
    assert found(connection, "-signet") == found(connection, "signet") == [1, 3]
    assert found(connection, "sig*") == []


def test_only_function_words_are_looked_up_when_there_is_nothing_else(connection):
    assert found(connection, "what is then") == [2]
    assert found(connection, "what is signet") == [1, 3]


def test_words_of_other_scripts_are_found(connection):
    assert found(connection, "東京 へ") == [7]
    assert found(connection, "OP_RETURN") == [7]


def test_a_query_of_a_megabyte_is_cut_not_refused(connection):
    assert found(connection, "signet " * 150_000) == [1, 3]
    assert found(connection, "x" * 1_000_000) == []
    assert found(connection, "signet " + " ".join(f"word{n}" for n in range(100_000))) == [1, 3]


def test_terms_are_few_distinct_and_without_function_words():
    assert terms("The Signet, the signet; THE SIGNET!") == ("signet",)
    assert terms("to be or not to be") == ("to", "be", "or", "not")
    assert len(terms(" ".join(f"w{number}" for number in range(500)))) == MAX_TERMS
    assert terms("y" * 1_000) == ()


def test_what_is_removed_is_found_no_more_and_leaves_no_word_on_disk(connection):
    Fts5().remove(connection, 1, [(3, TEXTS[3])])
    assert found(connection, "signet created") == [1]
    blocks = connection.exec_driver_sql("SELECT block FROM fts_1_data").scalars().all()
    assert not any(re.search(b"unreli|reat", block) for block in blocks)


def test_collections_do_not_see_each_other(connection):
    Fts5().create(connection, 2)
    Fts5().add(connection, 2, [(number, "signet") for number in range(100, 160)])
    assert found(connection, "signet") == [1, 3]
    alone = Fts5().match(connection, 1, "signet", len(TEXTS)).scores
    Fts5().remove(connection, 2, [(number, "signet") for number in range(100, 160)])
    assert Fts5().match(connection, 1, "signet", len(TEXTS)).scores.tolist() == alone.tolist()
    assert found(connection, "signet", collection=2) == []


def test_a_dialect_without_full_text_is_named():
    assert isinstance(full_text("sqlite"), Fts5)
    assert isinstance(full_text("postgresql"), TsVector)
    with pytest.raises(LedgerError, match=r"mysql.*database_url"):
        full_text("mysql")
