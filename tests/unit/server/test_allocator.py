"""What a thread took for a moment is the system's again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from windlass.server import allocator

# Threads that live on, each of which takes and lets go a hundred blocks between which a small one stays.
PROGRAM = """
import ctypes, threading
from pathlib import Path
from windlass.server import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
if {settle}:
    assert allocator.settle()
went, done = threading.Barrier(5), threading.Event()

def work():
    blocks = []
    for _ in range(4):
        for size in (3 << 20, 64):
            blocks.append((size, libc.malloc(size)))
            ctypes.memset(blocks[-1][1], 1, size)
    # A large block that was let go raises glibc's own bound, and the next ones come from the arena.
    for _ in range(2):
        for at, (size, block) in enumerate(blocks):
            if size > 64:
                libc.free(block)
                blocks[at] = size, libc.malloc(size)
                ctypes.memset(blocks[at][1], 1, size)
    for size, block in blocks:
        if size > 64:
            libc.free(block)
    went.wait()
    done.wait()

before = resident()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
went.wait()
print(resident() - before)
done.set()
"""


def _kept_bytes(*, settle: bool) -> int:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(settle=settle)], capture_output=True, text=True, check=True, timeout=60
    )
    return int(found.stdout)


def test_what_threads_let_go_goes_back() -> None:
    settled, plain = _kept_bytes(settle=True), _kept_bytes(settle=False)
    assert settled < 6 << 20
    assert plain > 2 * settled


def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.settle() is False
