"""A file of an export, row by row: CSV, JSON Lines, or JSON with one array; plain or gzip; UTF-8 or UTF-16.

Never more than one row, of at most `ROW_CHARS`, is in memory. What cannot be read is told with its line, and skipped;
in a JSON array what follows a broken row cannot be told from it, so there the rest of the file goes unread.
"""

from __future__ import annotations

import codecs
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from windlass.errors import InputError
from windlass.gateway.history import shapes
from windlass.gateway.history.shapes import SPACE, Broken, Item, document, lines, table
from windlass.gateway.history.values import DECODER

_MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class Export:
    """One file, which is opened more than once. InputError where it cannot be opened at all."""

    def __init__(self, path: Path):
        self.path = path
        try:
            known = path.stat()
            self.bytes = known.st_size
            if not stat.S_ISREG(known.st_mode):
                raise InputError(f"{path} is no file; write what comes from a pipe or a device to one first")
            with path.open("rb") as raw:
                self._packed = raw.read(2) == b"\x1f\x8b"
        except OSError as exc:
            raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
        self.position = 0

    def rows(self) -> Iterator[Item]:
        """All that is in it, in order. `position` tells how many bytes of the file have been read."""
        try:
            yield from self._rows()
        except (OSError, EOFError, zlib.error, UnicodeError) as exc:
            yield Broken(0, f"cannot be read any further: {exc}", rest=True)

    def _rows(self) -> Iterator[Item]:
        with self._open() as text:
            head = _line(text)
            begins = head.lstrip(SPACE)[:1]
            if begins == "{" and not head.endswith("\n"):
                head += text.readline(shapes.ROW_CHARS)
        if begins in ("{", "["):
            with self._open() as text:
                yield from lines(text) if begins == "{" and _ends_itself(head) else document(text)
        elif begins:
            with self._open() as text:
                yield from table(text, _delimiter(head))

    @contextmanager
    def _open(self) -> Iterator[io.TextIOBase]:
        with ExitStack() as stack:
            raw: IO[bytes] = stack.enter_context(self.path.open("rb"))
            data: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if self._packed else raw
            buffered = io.BufferedReader(data)
            head = buffered.peek(4)[:4]
            encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
            # A byte that is none of UTF-8 spoils the row that it stands in, not the file.
            errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
            text = io.TextIOWrapper(buffered, encoding, errors, newline="")
            yield _Metered(text, raw, self)

    def at(self, position: int) -> None:
        self.position = position


class _Metered(io.TextIOBase):
    """A text that tells its file how far it has been read."""

    def __init__(self, text: io.TextIOWrapper, raw: IO[bytes], export: Export):
        self._text, self._raw, self._export = text, raw, export

    def read(self, size: int | None = -1, /) -> str:
        self._export.at(self._raw.tell())
        return self._text.read(size)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        self._export.at(self._raw.tell())
        return self._text.readline(size)


def _line(text: io.TextIOBase) -> str:
    """The first line that is not empty, or as much of it as tells its kind."""
    while line := text.readline(shapes.CHUNK_CHARS):
        if line.strip(SPACE):
            return line
    return ""


def _ends_itself(head: str) -> bool:
    """Whether a first line is meant as a row, be it a broken one, and does not begin what further lines end."""
    try:
        return isinstance(DECODER.decode(head), dict)
    except (ValueError, RecursionError):
        return len(head) < shapes.ROW_CHARS and not head.rstrip(SPACE).endswith(("{", "[", ","))


def _delimiter(head: str) -> str:
    return max(",;\t", key=head.count)
