"""Memory and content on PostgreSQL: the same words, scores, vectors and tenancy as on SQLite."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.scenario.postgres import Postgres
from tests.scenario.program import windlass
from tests.unit.memory.conftest import BagOfWords
from windlass.content.analysis import Chapter, KeyQuote
from windlass.content.parse import parse
from windlass.content.store import Contents
from windlass.errors import CollectionMismatch, InputError
from windlass.ledger.db import Database
from windlass.memory.chunk import Passage
from windlass.memory.matches import Matches
from windlass.memory.retrieval import search
from windlass.memory.store import Counts, Memory
from windlass.memory.tsvector import MAX_WORDS, words_of
from windlass.records import Scope

pytestmark = pytest.mark.scenario
ACME, OTHER = Scope("acme", "one"), Scope("other", "one")
TEXTS = (
    "The signet network signs blocks",
    "A testnet is reset now and then",
    "Signet was created because testnet was unreliable, and signet stays",
    "Nothing about networks",
    "NEAR and OR and NOT are words of boolean logic",
    "Über das naïve café: résumé",
    "東京 です op_return and return op",
    "'quoted' back\\slash 1e5 0x1f 3.14 a@b.example https://example.org/a?b=c <b>bold</b> -7 v1.2.3",
)
QUERIES = (
    "Why was signet created instead of testnet?",
    "SIGNING networks",
    "cafe",
    "re\u0301sume\u0301",
    "OP_RETURN",
    "return op_return",
    "東京 へ",
    "what is then",
    "signet created testnet xylophone",
    "3.14 example.org v1",
    "1e5 0x1f",
    "-7 quoted backslash slash",
    'signet" OR "testnet',
    "signet & !testnet | (",
    "signet'; DROP TABLE search_chunks; -- :* <-> testnet",
    "sig\x00net signet \ud800",
    "%s %(x)s :name signet",
    "",
    "?!",
    "x" * 1_000_000,
    "signet " * 150_000,
    " ".join(f"word{number}" for number in range(3_000)),
)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def more(database_url: str, db: Database) -> Iterator[list[Database]]:
    """The databases of four more workers."""
    opened = [Database(database_url, connections=2) for _ in range(4)]
    yield opened
    for database in opened:
        database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "ledger.db")
    made.migrate()
    yield made
    made.close()


def _passages(*texts: str) -> list[Passage]:
    return [Passage(number, number, number, float(number), text) for number, text in enumerate(texts)]


def _matches(memory: Memory, scope: Scope, query: str) -> Matches:
    view = memory.view(scope, "talks", query)
    assert view is not None
    return view.matches


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: repr(query)[:30])
def test_both_databases_find_the_same_with_the_same_scores(db: Database, sqlite: Database, query: str) -> None:
    found = []
    for memory in (Memory(sqlite, None), Memory(db, None)):
        memory.put_text(ACME, "talks", "first", _passages(*TEXTS))
        found.append(_matches(memory, ACME, query))
    there, here = found
    assert here.ids.tolist() == there.ids.tolist()
    assert here.scores.tolist() == pytest.approx(there.scores.tolist())
    assert here.coverage.tolist() == pytest.approx(there.coverage.tolist())


def test_scores_count_every_occurrence(db: Database, sqlite: Database) -> None:
    texts = [("windlass " * times + "pawl " * (300 - times)).strip() for times in (1, 2, 3, 17, 100, 254, 255)]
    found = []
    for memory in (Memory(sqlite, None), Memory(db, None)):
        memory.put_text(ACME, "talks", "first", _passages(*texts, "none of it", "nor here", *["x"] * 9))
        found.append(_matches(memory, ACME, "windlass").scores.tolist())
    assert found[1] == pytest.approx(found[0])


def test_texts_of_any_size_and_kind_can_be_put_in(db: Database) -> None:
    memory = Memory(db, None)
    distinct = " ".join(f"{number:x}" * 20 for number in range(1, 60_000))
    memory.put_text(ACME, "talks", "big", _passages(distinct, "é" * 500_000, "same " * 400_000, "", "\u0300 \u3099"))
    assert memory.counts(ACME, "talks") == Counts(1, 5, 0)
    assert len(_matches(memory, ACME, "same").ids) == 1
    assert len(_matches(memory, ACME, "1" * 20).ids) == 1
    assert len(words_of("same " * 400_000)) == MAX_WORDS


def test_collections_and_tenants_stay_apart(db: Database) -> None:
    memory = Memory(db, None)
    memory.put_text(ACME, "talks", "first", _passages(*TEXTS))
    alone = _matches(memory, ACME, "signet")
    memory.put_text(OTHER, "talks", "first", _passages(*["signet"] * 50))
    memory.put_text(ACME, "more", "first", _passages(*["signet testnet"] * 50))
    again = _matches(memory, ACME, "signet")
    assert (again.ids.tolist(), again.scores.tolist()) == (alone.ids.tolist(), alone.scores.tolist())
    assert not search(memory, Scope("third", "one"), "talks", "signet").hits
    foreign = _matches(memory, OTHER, "signet").ids.tolist()
    assert not memory.chunks(ACME, "talks", foreign)
    assert not set(foreign) & set(alone.ids.tolist())


def test_what_is_replaced_or_removed_is_found_no_more(db: Database) -> None:
    memory = Memory(db, BagOfWords())
    memory.put_text(ACME, "talks", "first", _passages(*TEXTS))
    before = _matches(memory, ACME, "signet").scores.tolist()
    memory.put_text(ACME, "talks", "second", _passages("signet " * 20))
    assert memory.put_vectors(ACME, "talks", memory.pending(ACME, "talks", 100)) == len(TEXTS) + 1
    assert memory.remove(ACME, "talks", "second") == 1
    assert memory.remove(ACME, "talks", "second") == 0
    assert _matches(memory, ACME, "signet").scores.tolist() == pytest.approx(before)
    memory.put_text(ACME, "talks", "first", _passages("only this"))
    assert _matches(memory, ACME, "signet testnet").ids.tolist() == []
    assert memory.counts(ACME, "talks") == Counts(1, 1, 0)
    with db.read() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM search_chunks").scalar()
    assert kept == 1


def test_no_word_of_a_removed_text_is_left_in_the_files(db: Database, postgres: Postgres) -> None:
    secret, memory = "heliotrope", Memory(db, BagOfWords())
    texts = [f"{secret} {number} manuscript" for number in range(400)]
    memory.put_text(ACME, "talks", "first", _passages(*texts))
    memory.put_text(ACME, "talks", "second", _passages(*TEXTS))
    with db.bare() as connection:
        connection.exec_driver_sql("ANALYZE")
    memory.remove(ACME, "talks", "first")
    with db.bare() as connection:
        for table in ("chunks", "search_chunks"):
            connection.exec_driver_sql(f"VACUUM (FULL) {table}")
        number = connection.exec_driver_sql("SELECT oid FROM pg_database WHERE datname = current_database()").scalar()
    postgres.restart()
    kept = [path for path in (postgres.data / "base" / str(number)).iterdir() if b"heliotrop" in path.read_bytes()]
    assert kept == []
    assert len(_matches(memory, ACME, "signet").ids) == 2


def test_one_worker_sees_what_another_changed(db: Database, more: list[Database]) -> None:
    mine, theirs = Memory(db, BagOfWords()), Memory(more[0], BagOfWords())
    mine.put_text(ACME, "talks", "first", _passages(*TEXTS))
    mine.put_vectors(ACME, "talks", mine.pending(ACME, "talks", 100))
    seen = search(theirs, ACME, "talks", "signet network", k=3)
    assert (seen.hits[0].text, seen.lexical_only) == (TEXTS[0], False)
    mine.put_text(ACME, "talks", "first", _passages("A capstan stands upright", "A windlass lies"))
    assert search(theirs, ACME, "talks", "upright capstan").lexical_only
    mine.put_vectors(ACME, "talks", mine.pending(ACME, "talks", 100))
    again = search(theirs, ACME, "talks", "upright capstan")
    assert [hit.text for hit in again.hits] == ["A capstan stands upright", "A windlass lies"]
    assert not again.lexical_only
    view = theirs.view(ACME, "talks", "capstan")
    assert view is not None
    assert view.flat is not None
    assert len(view.flat) == 2
    with pytest.raises(CollectionMismatch, match="bag-of-words"):
        Memory(db, BagOfWords("another")).collection(ACME, "talks")


def test_workers_that_write_at_once_lose_and_double_nothing(more: list[Database]) -> None:
    workers = [Memory(database, BagOfWords()) for database in more]
    together = threading.Barrier(len(workers))

    def work(number: int) -> None:
        memory = workers[number]
        together.wait()
        for turn in range(5):
            memory.put_text(ACME, "talks", "shared", _passages(*(f"{text} {turn}" for text in TEXTS)))
            memory.put_text(ACME, "talks", f"own-{number}", _passages(*TEXTS))
            memory.put_vectors(ACME, "talks", memory.pending(ACME, "talks", 1_000))

    with ThreadPoolExecutor(len(workers)) as threads:
        list(threads.map(work, range(len(workers))))
    workers[0].put_vectors(ACME, "talks", workers[0].pending(ACME, "talks", 1_000))
    chunks = 5 * len(TEXTS)
    assert workers[1].counts(ACME, "talks") == Counts(5, chunks, chunks)
    results = [search(memory, ACME, "talks", "signet network", k=5) for memory in workers]
    assert all(result == results[0] for result in results)
    with more[0].read() as connection:
        kept = connection.exec_driver_sql("SELECT count(*), sum(length) FROM search_chunks").one()
        assert kept[0] == chunks
        assert kept[1] == connection.exec_driver_sql("SELECT words FROM search_sizes").scalar()


def test_what_no_database_can_hold_is_refused(db: Database) -> None:
    memory = Memory(db, None)
    for text in ("a\x00b", "half \ud83d"):
        with pytest.raises(InputError, match="NUL"):
            memory.put_text(ACME, "talks", "first", _passages(text))
    with pytest.raises(InputError, match="ordinal"):
        memory.put_text(ACME, "talks", "first", [*_passages("a"), *_passages("b")])
    assert memory.counts(ACME, "talks") == Counts(0, 0, 0)


def test_vectors_are_the_same_bytes_on_both_databases(db: Database, sqlite: Database) -> None:
    cosines = []
    for memory in (Memory(sqlite, BagOfWords()), Memory(db, BagOfWords())):
        memory.put_text(ACME, "talks", "first", _passages(*TEXTS))
        memory.put_vectors(ACME, "talks", memory.pending(ACME, "talks", 100))
        view = memory.view(ACME, "talks", "signet")
        assert view is not None
        assert view.flat is not None
        cosines.append(view.flat.cosines(BagOfWords().embed(["signet blocks"])[0])[1])
    assert np.array_equal(cosines[0], cosines[1])


def test_content_comes_back_as_it_was_stored(db: Database, sqlite: Database) -> None:
    told = b"Host: 00:00:01\n\nA pawl falls behind each tooth; that is why.\n\nGuest: 00:00:09\n\nNothing turns back.\n"
    transcript = parse("pawl.md", told)
    read = []
    for database in (sqlite, db):
        contents = Contents(database)
        for _ in range(2):
            contents.put_source(ACME, "item_1", "pawl.md", bytes(range(256)), 1.5)
            contents.put_item(ACME, "item_1", transcript, 1.5)
            contents.put_analysis(
                ACME,
                "item_1",
                [Chapter(title="Pawls %s :x", start_s=1.0, end_s=9.0, first_turn=0, last_turn=1, made=False)],
                [KeyQuote(text="Nothing turns back.", speaker="Guest", start_s=9.0, turn=1, score=1 / 3)],
            )
        read.append(
            (
                contents.source(ACME, "item_1"),
                contents.items(ACME),
                contents.segments(ACME, "item_1"),
                contents.chapters(ACME, "item_1"),
                contents.key_quotes(ACME, "item_1"),
                contents.headings(ACME, ["item_1", "item_2"]),
            )
        )
        assert contents.items(OTHER) == {}
        assert contents.segments(OTHER, "item_1") == ()
        with pytest.raises(InputError, match="item_1"):
            contents.source(OTHER, "item_1")
    assert read[0] == read[1]


def test_the_main_job_runs_on_postgresql(database_url: str, tmp_path: Path) -> None:
    ran = windlass(tmp_path, "run", "--exit", "--json", WINDLASS_STORAGE__DATABASE_URL=database_url)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout)
    assert not summary["ingest"]["failed"]
    assert all(answer["answered"] for answer in summary["answers"])
    assert len(summary["decisions"]) == 4
    assert not list(tmp_path.glob("*.db"))
    asked = windlass(tmp_path, "ask", "Why a pawl?", "--json", WINDLASS_STORAGE__DATABASE_URL=database_url)
    assert json.loads(asked.stdout)["answered"], asked.stderr
