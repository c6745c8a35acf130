"""The journal: what calls leave behind, in a file before it is in the tables. SQLite only.

A commit takes half a millisecond and wakes a thread, an append to a file takes some microseconds; and what `write(2)`
has taken survives kill -9 as well, because it is the kernel's. So a call is answered once its rows stand here; the
tables follow within 50 ms, many calls in one transaction (commit.py). What a killed process leaves is taken into the
tables by the next one, before it reads them (`adopt`). Nothing is synced: where power loss must cost nothing there is
no journal.

Two files take turns. While the rows of one are committed the other is appended to, and what is committed is cut off at
once, so that no deleted byte stays behind. A record holds the rows of one append: its length, a checksum, its number
and the rows. Whatever does not fit its checksum was never acknowledged, and ends the file.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from windlass.errors import LedgerError
from windlass.ledger import rows, schema
from windlass.ledger.db import Database
from windlass.ledger.intake import REPLY, SPENT, Pending
from windlass.stats.chance import Propensity

MOST_BYTES: Final = 32 * 1024 * 1024
"""With so much in one file that is in no table, appends wait for their commits again."""
MOST_RECORD_BYTES: Final = 256 * 1024
"""A larger one would keep the event loop from its other calls for too long."""
_HEAD: Final = struct.Struct("<IIQ")
"""Length, checksum and number of a record."""
_FIRST: Final = b"windlass journal 1\n"
_COLUMNS: Final[dict[sa.Table, tuple[str, ...]]] = {
    table: tuple(map(str, table.c.keys())) for table in (*rows.TABLES.values(), schema.contexts, schema.bodies)
} | {schema.spend: SPENT, schema.replies: REPLY}
_TABLES: Final = {str(table.name): table for table in _COLUMNS}
_NAMES: Final = {table: name for name, table in _TABLES.items()}
_LAYOUT: Final = {_NAMES[table]: names for table, names in _COLUMNS.items()}
_ZEROS: Final[dict[type, Any]] = {sa.Text: "", sa.Double: 0.0, sa.Boolean: False, sa.LargeBinary: b""}
Rows = list[tuple[str, list[Any]]]


def _plain(value: object) -> object:
    """What a row holds that is no plain value: a propensity that the writer has yet to work out."""
    if isinstance(value, Propensity):
        return value.parts
    raise TypeError(f"a row holds {value!r}")


_ENCODE = msgspec.msgpack.Encoder(enc_hook=_plain).encode
_DECODE = msgspec.msgpack.Decoder(Rows).decode


def record(pending: Sequence[Pending]) -> bytes:
    """The rows of one append, as `Journal.append` takes them."""
    return _ENCODE([(_NAMES[table], row) for table, row in pending])


class Journal:
    """The journal of one process beside the database file `path`. Made at the first append.

    `append`, `turn` and `close` are called under one lock; `done` by the thread that commits.
    """

    def __init__(self, path: Path):
        self._stem = f"{path.resolve()}.journal-{secrets.token_hex(8)}"
        self._files: tuple[int, ...] = ()
        self._empty = 0
        self._sizes = [0, 0]
        self._last = [0, 0]
        self._at = 0
        self._appended = 0
        self._committed = 0
        self._usable = True

    @property
    def waiting(self) -> bool:
        """Whether something is here that is in no table yet."""
        return self._committed < self._appended

    def append(self, data: bytes) -> bool:
        """Write a record; once it returns the rows survive kill -9. False, and nothing written, where it cannot be."""
        if not self._usable or len(data) > MOST_RECORD_BYTES or self._sizes[self._at] > MOST_BYTES:
            return False
        number = self._appended + 1
        whole = _HEAD.pack(len(data), zlib.crc32(data, number), number) + data
        try:
            if not self._files:
                self._files = self._made()
            if os.write(self._files[self._at], whole) != len(whole):
                raise OSError("a part was written")
        except OSError:
            self._undo()
            return False
        self._appended = self._last[self._at] = number
        self._sizes[self._at] += len(whole)
        return True

    def turn(self) -> None:
        """What is appended from now on goes to the other file, if that is empty: a commit begins."""
        if not self._sizes[1 - self._at]:
            self._at = 1 - self._at

    def done(self, count: int) -> None:
        """So many more records, the oldest, are in the tables: a file that holds no others is cut."""
        self._committed += count
        self._cut(1 - self._at)

    def rest(self) -> None:
        """Cut the file that is appended to as well, if all it holds is in the tables."""
        self._cut(self._at)

    def close(self) -> None:
        """Let go of the files, and delete them if all of it is in the tables."""
        if self._files and not self.waiting:
            _unlink(self._stem)
        for file in self._files:
            os.close(file)
        self._files, self._usable = (), False

    def _cut(self, which: int) -> None:
        if self._sizes[which] and self._committed >= self._last[which]:
            try:
                os.ftruncate(self._files[which], self._empty)
                self._sizes[which] = 0
            except OSError:  # what is committed is known again by its ids; but no more is to be written behind it
                self._usable = False

    def _made(self) -> tuple[int, ...]:
        """Both files, locked and with their first words; the one by which they are found appears last."""
        first = _FIRST + msgspec.json.encode(_LAYOUT) + b"\n"
        found: list[int] = []
        try:
            for place in (f"{self._stem}-1", f"{self._stem}-new"):
                found.append(os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600))
                if os.write(found[-1], first) != len(first):
                    raise OSError("a part was written")
            fcntl.flock(found[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(f"{self._stem}-new", f"{self._stem}-0")
        except OSError:
            for file in found:
                os.close(file)
            for end in ("-1", "-new"):
                with suppress(OSError):
                    os.unlink(self._stem + end)
            self._usable = False
            raise
        self._empty = len(first)
        return found[1], found[0]

    def _undo(self) -> None:
        """Take a record off again of which a part was written."""
        if self._files:
            try:
                os.ftruncate(self._files[self._at], self._empty + self._sizes[self._at])
            except OSError:
                self._usable = False


def adopt(db: Database, commit: Callable[[Sequence[Sequence[Pending]]], object]) -> int:
    """Take into the tables what processes that are gone have left; how many records there were.

    commit: commits those of the records that are not in the tables yet. LedgerError where it cannot, or where the files
    cannot be read; then they stay.
    """
    taken = 0
    for file in _files(db, "0"):
        try:
            taken += _adopted(str(file)[:-2], commit)
        except OSError as exc:
            raise LedgerError(f"{file} cannot be read: {exc}; give this user the rights to it") from exc
    return taken


def sync(db: Database) -> None:
    """Have on the disk what was cut: a power cut could bring deleted bytes back."""
    for file in (*_files(db, "0"), *_files(db, "1")):
        with suppress(FileNotFoundError):
            opened = os.open(file, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def _files(db: Database, end: str) -> list[Path]:
    """The journals beside a database; none where it is no file."""
    name = db.url.database if db.dialect == "sqlite" else ""
    if not name or name == ":memory:":
        return []
    path = Path(name).resolve()
    return sorted(path.parent.glob(f"{path.name}.journal-*-{end}"))


def _adopted(stem: str, commit: Callable[[Sequence[Sequence[Pending]]], object]) -> int:
    try:
        lock = os.open(f"{stem}-0", os.O_RDWR)
    except FileNotFoundError:
        return 0  # another process was first
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            return 0
        found = sorted(itertools.chain.from_iterable(_records(Path(f"{stem}-{end}")) for end in "01"), key=_number)
        if found:
            commit([pending for _, pending in found])
        _unlink(stem)
        return len(found)
    except BlockingIOError:
        return 0  # its process lives
    finally:
        os.close(lock)


def _number(one: tuple[int, list[Pending]]) -> int:
    return one[0]


def _unlink(stem: str) -> None:
    for end in "10":
        with suppress(FileNotFoundError):
            os.unlink(f"{stem}-{end}")


def _records(file: Path) -> Iterator[tuple[int, list[Pending]]]:
    """(number, rows) of every whole record of a file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return
    border = data.find(b"\n", len(_FIRST)) + 1
    if not data.startswith(_FIRST) or not border:
        return  # its process ended before it had written anything
    layout = msgspec.json.decode(data[len(_FIRST) : border], type=dict[str, list[str]])
    while border + _HEAD.size <= len(data):
        length, checksum, number = _HEAD.unpack_from(data, border)
        border += _HEAD.size
        held = data[border : border + length]
        if len(held) < length or zlib.crc32(held, number) != checksum:
            return
        yield number, [_pending(layout, name, row) for name, row in _DECODE(held)]
        border += length


def _pending(layout: dict[str, list[str]], name: str, row: list[Any]) -> Pending:
    """A row as it was given; one of an earlier release gets the columns that it lacks."""
    table = _TABLES[name]
    if tuple(layout[name]) != _COLUMNS[table]:
        there = dict(zip(layout[name], row, strict=True))
        row = [there.get(column, _zero(table, column)) for column in _COLUMNS[table]]
    if table is schema.decisions:
        place = _COLUMNS[table].index("propensity")
        if isinstance(row[place], list):
            row[place] = Propensity(*row[place])
    return table, row


def _zero(table: sa.Table, column: str) -> Any:
    """What stands for nothing in a column."""
    return _ZEROS.get(type(table.c[column].type), 0) if column in table.c else ""
