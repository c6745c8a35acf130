"""Memory: idempotent writes, one owner a row, vectors that match their collection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from windlass.errors import CollectionMismatch, EmbedderMissing, InputError, LedgerError, RecordInvalid
from windlass.ledger.db import Database
from windlass.memory import store
from windlass.memory.chunk import Passage
from windlass.memory.retrieval import search
from windlass.memory.schema import chunks, collections, vectors
from windlass.memory.store import Counts, Memory
from windlass.records import Scope

US, THEM = Scope("us"), Scope("them")
NAME = "talks"


def passages(*texts: str) -> list[Passage]:
    return [Passage(number, number, number, float(number), text) for number, text in enumerate(texts)]


def filled(db, embedder, items=(("a", "red apple", "green pear"), ("b", "blue plum"))) -> Memory:
    memory = Memory(db, embedder)
    for item, *texts in items:
        memory.put_text(US, NAME, item, passages(*texts))
    memory.put_vectors(US, NAME, memory.pending(US, NAME, 100)) if embedder else None
    return memory


def found(memory: Memory, query: str, scope: Scope = US) -> list[str]:
    return [hit.text for hit in search(memory, scope, NAME, query).hits if hit.bm25]


def test_what_is_put_in_is_counted_and_found(db, bag):
    memory = filled(db, bag)
    assert memory.counts(US, NAME) == Counts(items=2, chunks=3, vectors=3)
    assert found(memory, "pear") == ["green pear"]


def test_the_same_text_again_changes_nothing_and_keeps_its_vectors(db, bag):
    memory = filled(db, bag)
    before = memory.collection(US, NAME)
    memory.put_text(US, NAME, "a", passages("red apple", "green pear"))
    memory.put_text(US, NAME, "a", passages("red apple", "green pear")[::-1])
    assert memory.collection(US, NAME) == before
    assert memory.pending(US, NAME, 9) == ()


def test_new_text_replaces_the_old_with_its_words_and_vectors(db, bag):
    memory = filled(db, bag)
    memory.put_text(US, NAME, "a", passages("white cherry"))
    assert memory.counts(US, NAME) == Counts(items=2, chunks=2, vectors=1)
    assert found(memory, "apple pear") == []
    assert found(memory, "cherry") == ["white cherry"]
    memory.put_text(US, NAME, "a", [])
    assert memory.counts(US, NAME) == Counts(items=1, chunks=1, vectors=1)


def test_a_transaction_that_dies_half_way_leaves_everything_as_it_was(db, bag, monkeypatch):
    memory = filled(db, bag)
    monkeypatch.setattr(store.rows, "changed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        memory.put_text(US, NAME, "a", passages("white cherry"))
    with pytest.raises(KeyboardInterrupt):
        memory.remove(US, NAME, "b")
    with pytest.raises(KeyboardInterrupt):
        memory.put_text(THEM, "new", "a", passages("white cherry"))
    monkeypatch.undo()
    fresh = Memory(db, bag)
    assert fresh.counts(US, NAME) == Counts(items=2, chunks=3, vectors=3)
    assert sorted(found(fresh, "apple cherry plum")) == ["blue plum", "red apple"]
    assert fresh.counts(THEM, "new") == Counts(0, 0, 0)


def test_pending_is_what_has_no_vector_oldest_first_and_limited(db, bag):
    memory = filled(db, None)
    everything = memory.pending(US, NAME, 100)
    assert list(everything) == sorted(everything)
    assert memory.pending(US, NAME, 2) == everything[:2]
    embedding = Memory(db, bag)
    assert embedding.put_vectors(US, NAME, everything[:1]) == 1
    assert embedding.pending(US, NAME, 100) == everything[1:]


def test_vectors_are_stored_once_however_often_they_are_asked_for(db, bag):
    memory = filled(db, None)
    memory = Memory(db, bag)
    ids = memory.pending(US, NAME, 100)
    assert memory.put_vectors(US, NAME, [*ids, *ids, 10**9]) == 3
    assert memory.put_vectors(US, NAME, ids) == 0
    assert memory.counts(US, NAME).vectors == 3


def test_vectors_are_one_byte_a_dimension(db, bag):
    filled(db, bag)
    with db.read() as connection:
        assert set(connection.scalars(sa.select(sa.func.length(vectors.c.data)))) == {64}


def test_text_that_is_replaced_while_it_is_embedded_gets_no_stale_vector(db, bag):
    memory = filled(db, None)

    class Replacing(type(bag)):
        def embed(self, texts):
            memory.put_text(US, NAME, "a", passages("white cherry"))
            return super().embed(texts)

    slow = Memory(db, Replacing())
    assert slow.put_vectors(US, NAME, slow.pending(US, NAME, 100)) == 1
    assert memory.counts(US, NAME) == Counts(items=2, chunks=2, vectors=1)
    assert len(slow.pending(US, NAME, 100)) == 1


def test_removing_takes_everything_of_the_item_and_nothing_else(db, bag):
    memory = filled(db, bag)
    assert memory.remove(US, NAME, "a") == 2
    assert memory.remove(US, NAME, "a") == 0
    assert memory.counts(US, NAME) == Counts(items=1, chunks=1, vectors=1)
    assert found(memory, "apple pear plum") == ["blue plum"]


def test_what_another_process_changes_is_seen(db, bag):
    memory, other = filled(db, bag), Memory(db, bag)
    assert found(memory, "plum") == ["blue plum"]
    other.put_text(US, NAME, "c", passages("black fig"))
    assert search(memory, US, NAME, "fig").lexical_only
    other.put_vectors(US, NAME, other.pending(US, NAME, 9))
    results = search(memory, US, NAME, "fig")
    assert (results.hits[0].text, results.lexical_only) == ("black fig", False)
    other.remove(US, NAME, "c")
    assert "black fig" not in [hit.text for hit in search(memory, US, NAME, "fig").hits]


def test_an_item_that_comes_back_with_other_text_is_not_taken_for_the_old_one(db, bag):
    memory, other = filled(db, bag), Memory(db, bag)
    search(memory, US, NAME, "plum")
    other.remove(US, NAME, "b")
    other.put_text(US, NAME, "b", passages("yellow quince"))
    other.put_vectors(US, NAME, other.pending(US, NAME, 9))
    best = search(memory, US, NAME, "yellow quince").hits[0]
    assert best.text == "yellow quince"
    assert best.cosine == pytest.approx(1.0, abs=0.01)


def test_no_call_reads_or_touches_what_another_scope_owns(db, bag):
    memory = filled(db, bag)
    ids = [chunk.id for chunk in search(memory, US, NAME, "apple").hits and memory.chunks(US, NAME, range(99))]
    for scope in (THEM, Scope("us", "elsewhere")):
        assert memory.chunks(scope, NAME, ids) == ()
        assert search(memory, scope, NAME, "apple").hits == ()
        assert memory.pending(scope, NAME, 9) == ()
        assert memory.remove(scope, NAME, "a") == 0
        assert memory.put_vectors(scope, NAME, ids) == 0
        memory.put_text(scope, NAME, "a", passages("their apple"))
        assert found(memory, "apple", scope) == ["their apple"]
        assert memory.chunks(scope, NAME, ids) == ()
        assert search(memory, scope, NAME, "plum", item="b").hits == ()
        memory.remove(scope, NAME, "a")
    assert memory.counts(US, NAME) == Counts(items=2, chunks=3, vectors=3)
    assert found(memory, "apple") == ["red apple"]


def test_every_row_carries_its_owner(db, bag):
    filled(db, bag)
    with db.read() as connection:
        for table in (collections, chunks, vectors):
            owners = connection.execute(sa.select(table.c.tenant, table.c.workspace).distinct()).all()
            assert [tuple(owner) for owner in owners] == [("us", "default")]


def test_a_collection_remembers_its_embedder(db, bag):
    opened = Memory(db, bag).collection(US, NAME)
    assert (opened.embedder, opened.dimensions) == ("", 0)
    filled(db, bag)
    opened = Memory(db, None).collection(US, NAME)
    assert (opened.embedder, opened.dimensions, opened.scale) == ("bag-of-words", 64, 127.0)


@pytest.mark.parametrize(("name", "dimensions"), [("other", 64), ("bag-of-words", 32)])
def test_another_embedder_is_refused_with_both_values(db, bag, name, dimensions):
    filled(db, bag)
    other = Memory(db, type(bag)(name, dimensions))
    attempts = (
        lambda: other.collection(US, NAME),
        lambda: other.put_text(US, NAME, "c", passages("black fig")),
        lambda: other.put_vectors(US, NAME, [1]),
        lambda: search(other, US, NAME, "fig"),
    )
    for attempt in attempts:
        with pytest.raises(CollectionMismatch, match=rf"bag-of-words \(64 .*{name} \({dimensions} .*state folder"):
            attempt()
    assert other.remove(US, NAME, "a") == 2


def test_another_scale_is_refused(db, bag):
    memory = filled(db, bag)
    with db.write() as connection:
        connection.execute(sa.update(collections).values(scale=63.0))
    with pytest.raises(CollectionMismatch, match=r"scale 63.*scale 127"):
        memory.collection(US, NAME)


def test_without_an_embedder_text_works_and_vectors_say_what_is_missing(db):
    memory = filled(db, None)
    assert found(memory, "pear") == ["green pear"]
    with pytest.raises(EmbedderMissing, match="embeddings"):
        memory.put_vectors(US, NAME, memory.pending(US, NAME, 9))


def test_a_collection_that_is_not_there_is_empty(db, bag):
    memory = Memory(db, bag)
    assert memory.counts(US, "none") == Counts(0, 0, 0)
    assert memory.pending(US, "none", 9) == ()
    assert memory.remove(US, "none", "a") == 0
    assert memory.chunks(US, "none", [1]) == ()
    assert memory.view(US, "none", "x") is None


@pytest.mark.parametrize(
    "bad",
    [
        [Passage(0, 0, 0, 0.0, "a\x00b")],
        [Passage(0, 0, 0, 0.0, "half \ud83d")],
        [Passage(0, 0, 0, float("nan"), "text")],
        [Passage(0, 0, 0, float("inf"), "text")],
        [Passage(3, 0, 0, 0.0, "one"), Passage(3, 0, 0, 0.0, "two")],
    ],
)
def test_what_no_database_can_hold_is_refused(db, bag, bad):
    memory = filled(db, bag)
    with pytest.raises(InputError, match="'a'"):
        memory.put_text(US, NAME, "a", bad)
    assert memory.counts(US, NAME) == Counts(items=2, chunks=3, vectors=3)


def test_a_vector_of_the_wrong_length_is_named(db, bag):
    filled(db, bag)
    with db.write() as connection:
        connection.execute(sa.update(vectors).where(vectors.c.chunk == 2).values(data=b"short"))
    with pytest.raises(RecordInvalid, match="chunk 2 has 5 bytes"):
        search(Memory(db, bag), US, NAME, "apple")


def test_hostile_names_and_texts_go_in_and_come_out(db, bag):
    memory = Memory(db, bag)
    texts = ("'; DROP TABLE chunks; --", 'a "quoted" OR b', "🙂 東京", " ", "x" * 100_000)
    for name in ("", "'; --", "ü" * 1_000):
        memory.put_text(US, name, '" OR 1=1', passages(*texts))
        memory.put_vectors(US, name, memory.pending(US, name, 9))
        kept = memory.chunks(US, name, range(1, 99))
        assert tuple(chunk.text for chunk in kept) == texts
        assert memory.remove(US, name, '" OR 1=1') == len(texts)


def test_many_threads_write_and_search_at_once(db, bag):
    memory = filled(db, bag)

    def write(number: int) -> None:
        memory.put_text(US, NAME, f"item {number}", passages(f"fruit number{number}", "shared words"))
        memory.put_vectors(US, NAME, memory.pending(US, NAME, 4))

    def read(number: int) -> None:
        assert found(memory, "plum") == ["blue plum"]

    with ThreadPoolExecutor(6) as threads:
        waiting = [threads.submit(write if number % 2 else read, number) for number in range(24)]
        for done in waiting:
            done.result()
    memory.put_vectors(US, NAME, memory.pending(US, NAME, 100))
    assert memory.counts(US, NAME) == Counts(items=14, chunks=27, vectors=27)
    assert found(memory, "number7") == ["fruit number7"]


def test_only_so_many_collections_are_held_in_memory(db, bag, monkeypatch):
    monkeypatch.setattr(store, "COLLECTIONS_HELD", 2)
    memory = Memory(db, bag)
    for number in range(4):
        memory.put_text(US, f"c{number}", "a", passages(f"fruit number{number}"))
        memory.put_vectors(US, f"c{number}", memory.pending(US, f"c{number}", 9))
        search(memory, US, f"c{number}", "fruit")
    assert len(memory._held) == 2
    assert search(memory, US, "c0", "fruit").hits[0].text == "fruit number0"


def test_a_database_of_an_unknown_kind_is_refused(bag):
    class OracleDatabase(Database):
        def __init__(self):
            self.dialect = "oracle"

    with pytest.raises(LedgerError, match="oracle"):
        Memory(OracleDatabase(), bag)
