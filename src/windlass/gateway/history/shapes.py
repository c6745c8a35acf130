"""The shapes that the text of an export can have, each row by row: JSON Lines, one JSON value, a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from windlass.gateway.history.values import DECODER, Row

ROW_CHARS: Final = 16 * 1024 * 1024
CHUNK_CHARS: Final = 256 * 1024
ROWS_KEY: Final = "data"
SPACE: Final = " \t\r\n"
_UNENDED: Final = "it ends in the middle, or holds more than 16 million characters in one row"


class Found(NamedTuple):
    """One row, and the line on which it ends (of a JSON array: which element it is)."""

    line: int
    row: Row


class Broken(NamedTuple):
    """What is no row, and why. rest: nothing behind it in the file can be read."""

    line: int
    why: str
    rest: bool = False


Item: TypeAlias = Found | Broken


def _bounded(text: io.TextIOBase) -> Iterator[tuple[int, str]]:
    """(number, line), '' for one that is longer than a row may be."""
    number = 0
    while line := text.readline(ROW_CHARS):
        number += 1
        if len(line) == ROW_CHARS and not line.endswith("\n"):
            while line and not line.endswith("\n"):
                line = text.readline(CHUNK_CHARS)
            yield number, ""
        else:
            yield number, line


def lines(text: io.TextIOBase) -> Iterator[Item]:
    """JSON Lines. A line that wraps its rows (`{"data": [...]}`) stands for them."""
    for number, line in _bounded(text):
        said = line.strip(SPACE)
        if not said:
            if not line:
                yield Broken(number, "the line is longer than 16 million characters")
            continue
        try:
            value = DECODER.decode(said)
        except RecursionError:
            yield Broken(number, "nested too deeply")
        except ValueError as exc:
            yield Broken(number, f"no JSON: {str(exc)[:100]}")
        else:
            yield from _unwrapped(value, number)


def _unwrapped(value: Any, number: int) -> Iterator[Item]:
    if not isinstance(value, dict):
        yield Broken(number, f"a {type(value).__name__} where an object is due")
        return
    inner = value.get(ROWS_KEY)
    if isinstance(inner, dict):
        yield Found(number, inner)
    elif isinstance(inner, list) and value.get("object") in (None, "list") and "model" not in value:
        for one in inner:
            yield Found(number, one) if isinstance(one, dict) else Broken(number, "a row that is no object")
    else:
        yield Found(number, value)


def document(text: io.TextIOBase) -> Iterator[Item]:
    """One JSON value: an array of rows, an object that holds one under `data`, or a single row."""
    scan = _Scan(text)
    number = 0
    try:
        if scan.next() == "{":
            member: dict[str, Any] = {}
            for key in scan.members():
                if key == ROWS_KEY and scan.next() == "[":
                    break
                member[key] = scan.value()
            else:
                yield from _unwrapped(member, 1)
                return
        for value in scan.elements():
            number += 1
            yield Found(number, value) if isinstance(value, dict) else Broken(number, "a row that is no object")
    except RecursionError:
        yield Broken(number + 1, "nested too deeply; the rest of the file cannot be read", rest=True)
    except ValueError as exc:
        yield Broken(number + 1, f"no JSON: {str(exc)[:200]}; the rest of the file cannot be read", rest=True)


class _Scan:
    """Reads JSON values out of a stream, holding one at a time. ValueError where there is none."""

    def __init__(self, text: io.TextIOBase):
        self._text = text
        self._kept, self._at = "", 0

    def next(self) -> str:
        """The next character that is no space, which stays; '' at the end."""
        while True:
            while self._at < len(self._kept) and self._kept[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._kept):
                return self._kept[self._at]
            if not self._more(CHUNK_CHARS):
                return ""

    def value(self) -> Any:
        """The next value. What is cut off by the end of what was read is read on, twice as far each time."""
        if not self.next():
            raise ValueError(_UNENDED)
        while True:
            try:
                value, end = DECODER.raw_decode(self._kept, self._at)
            except json.JSONDecodeError:
                held = len(self._kept) - self._at
                if held >= ROW_CHARS or not self._more(max(CHUNK_CHARS, held)):
                    raise
                continue
            # A number may go on in what has not been read.
            if end < len(self._kept) or not self._more(CHUNK_CHARS):
                self._at = end
                return value

    def members(self) -> Iterator[str]:
        """The keys of an object; its values are to be read one by one."""
        for _ in self._parts("}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            self._take(":")
            yield key

    def elements(self) -> Iterator[Any]:
        """The values of an array."""
        for _ in self._parts("]"):
            yield self.value()

    def _parts(self, end: str) -> Iterator[None]:
        self._at += 1
        if self.next() == end:
            return
        while True:
            yield
            if self.next() == end:
                return
            self._take(",")

    def _take(self, mark: str) -> None:
        if self.next() != mark:
            raise ValueError(f"{mark!r} is missing before {self._kept[self._at : self._at + 20]!r}")
        self._at += 1

    def _more(self, chars: int) -> bool:
        found = self._text.read(chars)
        self._kept, self._at = self._kept[self._at :] + found, 0
        return bool(found)


def table(text: io.TextIOBase, delimiter: str) -> Iterator[Item]:
    """CSV with a head line; its fields may hold line ends, in quotes."""
    csv.field_size_limit(ROW_CHARS)
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for at, line in _bounded(text):
            number = at
            yield line

    reader = csv.reader(texts(), delimiter=delimiter)
    names: list[str] = []
    while True:
        try:
            row = next(reader, None)
        except csv.Error as exc:
            yield Broken(number, f"no CSV: {exc}")
            continue
        if row is None:
            return
        if not names:
            names = row
        elif len(row) != len(names):
            if row:
                yield Broken(number, f"{len(row)} fields where the head line has {len(names)}")
        else:
            yield Found(number, dict(zip(names, row, strict=True)))
