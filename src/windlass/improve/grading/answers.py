"""Answers that are known to be right, by their questions: a file of JSON lines, or rows that came with a request."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from windlass.errors import InputError, SettingsError
from windlass.improve.grading.grader import digest, norm

MOST_BYTES: Final = 256 * 1024 * 1024


class Known(msgspec.Struct, frozen=True):
    """One row: a question, what is expected of the answer to it (a text, a number, a list), and tests of its code."""

    question: str
    expected: Any = None
    tests: str = ""

    def __post_init__(self) -> None:
        if self.expected is None and not self.tests:
            raise ValueError("a row has `expected` or `tests`")


class KnownAnswers:
    """Looks questions up; case, spaces and forms of letters do not count. A later row replaces an earlier."""

    def __init__(self, rows: Iterable[Known]):
        self._rows = {_key(row.question): row for row in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, question: str) -> Known | None:
        """The row of a question, None where it is not known."""
        return self._rows.get(_key(question))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The rows of a file. SettingsError where it cannot be read."""
        try:
            return cls(rows(path))
        except InputError as exc:
            raise SettingsError(str(exc)) from exc


def rows(path: Path) -> list[Known]:
    """The rows of a file of JSON lines; other fields are passed over. InputError names the line that is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} has more than {MOST_BYTES} bytes; split it")
        lines = path.read_bytes().split(b"\n")
    except OSError as exc:
        raise InputError(f"the answers in {path} cannot be read: {exc}") from exc
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=Known))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise InputError(f"{path}:{number}: {exc}; a row is {{'question': ..., 'expected': ...}}") from exc
    return found


def _key(question: str) -> bytes:
    return bytes.fromhex(digest(norm(question)))[:16]
