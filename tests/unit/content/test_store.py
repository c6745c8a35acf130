"""Where content lives: by scope, replaced as a whole, read back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from windlass.content.analysis import Chapter, KeyQuote
from windlass.content.store import Contents
from windlass.content.transcript import Transcript, Turn
from windlass.errors import InputError
from windlass.ledger.db import Database
from windlass.records import Scope

A, B = Scope("a", "one"), Scope("b", "one")
AT = 1_800_000_000.0


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('store') / 'ledger.db'}")
    db.migrate()
    yield db
    db.close()


@pytest.fixture
def contents(database: Database) -> Contents:
    return Contents(database)


def _transcript(*texts: str, **fields: Any) -> Transcript:
    turns = tuple(Turn("Guest", float(n), n + 1.0, text) for n, text in enumerate(texts))
    values: dict[str, Any] = {
        "title": "T", "date": "2024-01-08", "media": "https://x.example/a", "speakers": ("Guest",), "tags": ("t",),
        "timed": True, "headings": (), "warnings": ("w",),
    }  # fmt: skip
    return Transcript(turns=turns, **(values | fields))


def _chapter(title: str, *, made: bool = False) -> Chapter:
    return Chapter(title=title, start_s=1.0, end_s=2.0, first_turn=0, last_turn=1, made=made)


def test_a_source_is_kept_as_bytes_and_by_scope(contents: Contents) -> None:
    contents.put_source(A, "item_src", "talk.md", b"\x00\xffbytes", AT)
    assert contents.source(A, "item_src") == ("talk.md", b"\x00\xffbytes")
    with pytest.raises(InputError, match="ingest the file again"):
        contents.source(B, "item_src")


def test_the_same_source_again_takes_its_new_name(contents: Contents) -> None:
    for name in ("first.md", "second.md"):
        contents.put_source(A, "item_twice", name, b"x", AT)
    assert contents.source(A, "item_twice")[0] == "second.md"


def test_an_item_comes_back_as_it_was(contents: Contents) -> None:
    contents.put_item(A, "item_1", _transcript("One ⚓.", "Two.", title="Ä title"), AT)
    item = contents.items(A, ["item_1"])["item_1"]
    assert (item.title, item.speakers, item.tags, item.timed) == ("Ä title", ("Guest",), ("t",), True)
    assert (item.date, item.media, item.warnings) == ("2024-01-08", "https://x.example/a", ("w",))
    assert [(s.ordinal, s.text, s.start_s, s.end_s) for s in contents.segments(A, "item_1")] == [
        (0, "One ⚓.", 0.0, 1.0),
        (1, "Two.", 1.0, 2.0),
    ]


def test_an_item_again_replaces_what_was_there(contents: Contents) -> None:
    contents.put_item(A, "item_again", _transcript("One.", "Two.", "Three."), AT)
    contents.put_item(A, "item_again", _transcript("Only.", title="New"), AT)
    assert [segment.text for segment in contents.segments(A, "item_again")] == ["Only."]
    assert contents.items(A, ["item_again"])["item_again"].title == "New"


def test_segments_are_cut_out_by_place(contents: Contents) -> None:
    contents.put_item(A, "item_cut", _transcript(*"abcde"), AT)
    for first, last, texts in ((1, 3, "bcd"), (0, 0, "a"), (4, 99, "e"), (3, 2, ""), (9, None, ""), (3, None, "de")):
        assert "".join(s.text for s in contents.segments(A, "item_cut", first, last)) == texts


def test_another_scope_has_nothing_of_it(contents: Contents) -> None:
    contents.put_item(A, "item_mine", _transcript("Mine."), AT)
    contents.put_analysis(A, "item_mine", [_chapter("Mine")], [])
    for stranger in (B, Scope("a", "two"), Scope()):
        assert "item_mine" not in contents.items(stranger)
        assert contents.items(stranger, ["item_mine"]) == {}
        assert contents.segments(stranger, "item_mine") == ()
        assert contents.chapters(stranger, "item_mine") == ()
        assert contents.headings(stranger, ["item_mine"]) == ()


def test_an_analysis_is_replaced_as_a_whole(contents: Contents) -> None:
    quote = KeyQuote(text="q", speaker="Guest", start_s=3.0, turn=1, score=0.5)
    contents.put_analysis(A, "item_an", [_chapter("Old"), _chapter("Older")], [quote, quote])
    contents.put_analysis(A, "item_an", [_chapter("New", made=True)], [quote])
    assert contents.chapters(A, "item_an") == (_chapter("New", made=True),)
    assert contents.key_quotes(A, "item_an") == (quote,)
    contents.put_analysis(A, "item_an", [], [])
    assert contents.chapters(A, "item_an") == ()
    assert contents.key_quotes(A, "item_an") == ()


def test_headings_are_those_that_items_carry_themselves(contents: Contents) -> None:
    contents.put_analysis(A, "item_h1", [_chapter("One"), _chapter("Made", made=True), _chapter("Two")], [])
    contents.put_analysis(A, "item_h2", [_chapter("Three")], [])
    assert contents.headings(A, ["item_h1", "item_h2"]) == ("One", "Two", "Three")
    assert contents.headings(A, []) == ()


def test_items_come_oldest_first(contents: Contents) -> None:
    scope = Scope("order", "one")
    for number in (3, 1, 2):
        contents.put_item(scope, f"item_{number}", _transcript("x"), AT + number)
    assert list(contents.items(scope)) == ["item_1", "item_2", "item_3"]
