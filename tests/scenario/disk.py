"""A small disk of its own for one program: a file system in a mount namespace, which ends with its holder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BALLAST = "ballast"


class Disk:
    """A disk that programs see at `home`, and the test at `seen`, because it is mounted for the programs alone."""

    def __init__(self, holder: int, home: Path, owned: bool):
        self.home = home
        self.seen = Path(f"/proc/{holder}/root{home}")
        self._enter = ["nsenter", "-t", str(holder), "-m", *(() if owned else ("-U", "--preserve-credentials")), "--"]

    def command(self, *arguments: str) -> Sequence[str]:
        """`arguments` as a command of a program that sees the disk."""
        return [*self._enter, *arguments]

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.seen / BALLAST).open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while ballast.write(bytes(size)) == size:
                        pass
                except OSError as full:
                    if full.errno != errno.ENOSPC:
                        raise

    def copy(self, name: str, to: Path) -> Path:
        """A file and its log copied to where SQLite can open it: it would follow `seen` to its own root."""
        for file in self.seen.glob(f"{name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, to)
        return to / name

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.seen / BALLAST).unlink()


@contextmanager
def disk(home: Path, size_bytes: int) -> Iterator[Disk]:
    """A file system of `size_bytes` at `home`; needs root, or a kernel that lets users make namespaces."""
    home.mkdir(parents=True, exist_ok=True)
    owned = os.getuid() == 0
    mount = 'mount -t tmpfs -o "size=$1,mode=700" tmpfs "$2" && echo ready && exec sleep infinity'
    unshare = ["unshare", "--mount", *(() if owned else ("--user", "--map-root-user"))]
    arguments = [*unshare, "sh", "-c", mount, "disk", str(size_bytes), str(home)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            assert holder.stdout.readline() == "ready\n", holder.stderr.read()
            yield Disk(holder.pid, home, owned)
        finally:
            holder.kill()
