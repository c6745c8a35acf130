"""Who owns a state folder: one process at a time, by a lock that the kernel frees on any death."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from windlass.errors import FolderBusy, LedgerError
from windlass.ledger.db import make_folder

FILE: Final = "owner.lock"


@contextmanager
def owned(home: Path) -> Iterator[None]:
    """Own the state folder for a while. FolderBusy where another process does."""
    lock = own(home)
    try:
        yield
    finally:
        os.close(lock)


def own(home: Path) -> int:
    """The lock of the state folder, which is held until it is closed; FolderBusy where another process holds it."""
    make_folder(home)
    try:
        lock = os.open(home / FILE, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as exc:
        raise LedgerError(f"{home} cannot be written: {exc}; set WINDLASS_HOME to a folder of yours") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FolderBusy(f"another windlass process works on {home}; wait for it, or stop it") from None
    return lock
