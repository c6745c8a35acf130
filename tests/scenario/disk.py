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


class MountRefused(Exception):
    """This machine lets us make no disk: no root, and no namespaces for users."""


class Disk:
    """A disk that programs see at `home`, and the test at `seen`, because it is mounted for the programs alone."""

    def __init__(self, holder: int, home: Path, owned: bool, owner: tuple[int, int] | None = None):
        self.home = home
        self.seen = Path(f"/proc/{holder}/root{home}")
        self._enter = ["nsenter", "-t", str(holder), "-m", *(() if owned else ("-U", "--preserve-credentials")), "--"]
        if owner is not None:
            uid, group = owner
            user = [f"--reuid={uid}", f"--regid={group}", "--clear-groups"] if owned else []
            self._enter += ["setpriv", *user, "--pdeathsig=KILL", "--"]
            # Whoever enters the namespace of a user is root there, which some programs refuse to be.
            self._enter += [] if owned else ["unshare", "--user", f"--map-user={uid}", "--"]

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
def disk(home: Path, size_bytes: int, owner: tuple[int, int] | None = None) -> Iterator[Disk]:
    """A file system of `size_bytes` at `home`; needs root, or a kernel that lets users make namespaces (MountRefused).

    owner: user and group whose it is, and who its programs are, where they must not be root.
    """
    home.mkdir(parents=True, exist_ok=True)
    owned = os.getuid() == 0
    mount = 'mount -t tmpfs -o "size=$1,mode=700,uid=$3,gid=$4" tmpfs "$2" && echo ready && exec sleep infinity'
    unshare = ["unshare", "--mount", *(() if owned else ("--user", "--map-root-user"))]
    arguments = [
        *unshare,
        "sh",
        "-c",
        mount,
        "disk",
        str(size_bytes),
        str(home),
        *map(str, (owner if owner and owned else (0, 0))),
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != "ready\n":
                raise MountRefused(holder.stderr.read())
            yield Disk(holder.pid, home, owned, owner)
        finally:
            holder.kill()
