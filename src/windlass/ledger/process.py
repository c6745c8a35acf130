"""Which process of which machine this is: a mark that no other ever has, and by which neighbours see that it is gone.

Of a process on another machine, or in another container, nobody here can say whether it lives.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_STATE, _STARTED = 0, 19
"""Places of the state and of the start among what follows the name in /proc/<pid>/stat (proc(5))."""


def mark() -> str:
    """`machine.pid.start` of this process; '' on a system that tells no starts: there nobody is known to be gone."""
    machine, stat = _machine(), _stat(os.getpid())
    return f"{machine}.{os.getpid()}.{stat[_STARTED]}" if machine and stat else ""


def gone(marked: str) -> bool:
    """Whether the process of a mark has certainly ended: a number that another process has by now is not it."""
    machine, _, rest = marked.partition(".")
    pid, _, started = rest.partition(".")
    if not (pid.isascii() and pid.isdigit() and started) or machine != _machine():
        return False
    stat = _stat(int(pid))
    return not stat or stat[_STARTED] != started or stat[_STATE] in "ZX"


def _stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on; nothing where there is none."""
    try:
        said = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return said.rpartition(")")[2].split()  # the name before it may hold anything


def _machine() -> str:
    """This boot of this machine, seen from this space of process numbers; '' where the system does not tell."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        space = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b(f"{socket.gethostname()}\0{boot}\0{space}".encode(), digest_size=8).hexdigest()
