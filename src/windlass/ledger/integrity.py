"""Is an SQLite file whole? Answered from the file alone, without opening the ledger on it or writing a byte."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

LISTED = 20
WAIT_S = 5.0


def damage(path: Path) -> str:
    """What SQLite's own check finds wrong with the file: its first words, and how many more; '' for a whole file.

    Reads every page and every index entry (https://www.sqlite.org/pragma.html#pragma_integrity_check). A file that is
    not there is whole; one that cannot be read is not.
    """
    if not path.exists():
        return ""
    words = ""
    for address in _addresses(path):
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=WAIT_S)) as connection:
                found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({LISTED})")]
        except sqlite3.OperationalError as exc:
            words = str(exc)
            continue
        except sqlite3.DatabaseError as exc:
            return str(exc)
        return "" if found == ["ok"] else _told(found)
    return words


def _addresses(path: Path) -> Iterator[str]:
    """As any reader; then, where a read-only folder forbids the shared memory of WAL mode, as a file at rest."""
    yield f"{path.resolve().as_uri()}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or not log.stat().st_size:
        yield f"{path.resolve().as_uri()}?immutable=1"


def _told(found: list[str]) -> str:
    first = found[0].replace("*** in database main ***\n", "").split("\n")[0]
    more = sum(entry.count("\n") + 1 for entry in found) - 1
    return f"{first}, and {more} more" if more > 0 else first
