"""Is what is stored whole? Answered from the files alone, without opening the ledger on them or writing a byte."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

LISTED = 20
WAIT_S = 5.0
RESTORING = "restore.unfinished"
"""The file that says, while it is there, that a restore into its folder began and did not end."""


def half_restored(home: Path) -> str:
    """What is wrong with a state folder into which a restore was cut, with the remedy; '' for any other."""
    marker = home / RESTORING
    if not marker.exists():
        return ""
    return f"{home} is half of a restore; run `windlass db restore` with the archive again, to its end"


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
