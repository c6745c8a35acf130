"""Is a file whole? Answered without writing to it, and without an exception whatever is in it."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from windlass.ledger.integrity import damage

PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database in WAL mode with an index, at rest."""
    path = tmp_path / "a b#?%.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (n INTEGER, words TEXT)")
        connection.execute("CREATE INDEX by_words ON t (words)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"word {n}" * 20) for n in range(2_000)])
        connection.commit()
    return path


def test_a_whole_file_and_a_missing_one_have_no_damage(file: Path) -> None:
    before = file.read_bytes()
    assert damage(file) == ""
    assert damage(file.with_name("missing.db")) == ""
    assert not file.with_name("missing.db").exists()
    assert file.read_bytes() == before


def test_a_file_that_is_open_elsewhere_is_read(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO t VALUES (1, 'x')")
        assert damage(file) == ""


def test_every_page_that_rots_is_found(file: Path) -> None:
    whole = file.read_bytes()
    rng = random.Random(3)
    for page in rng.sample(range(len(whole) // PAGE), 25):
        file.write_bytes(whole[: page * PAGE] + rng.randbytes(PAGE) + whole[(page + 1) * PAGE :])
        assert damage(file), f"page {page}"
        assert len(damage(file)) < 300


def test_an_index_that_misses_a_row_is_damage(file: Path) -> None:
    """Every page is well formed, and the file is wrong all the same."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX by_words ON t (n)' WHERE name = 'by_words'")
        connection.commit()
    assert "missing from index" in damage(file)
    assert "more" in damage(file)


@pytest.mark.parametrize("bytes_", [b"not a database\n" * 500, b"SQLite format 3\0" + b"\xff" * 5_000, b"\0" * 10_000])
def test_what_is_no_database_is_said(file: Path, bytes_: bytes) -> None:
    file.write_bytes(bytes_)
    assert damage(file)
    assert file.read_bytes() == bytes_


def test_a_cut_file_and_a_folder_are_said(file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[: 3 * PAGE])
    assert damage(file)
    assert "unable to open" in damage(tmp_path)
