"""How memory is taken from the system: what a server needs for a moment goes back at once (mallopt(3) of glibc).

By default each thread takes from an arena of its own, and large blocks come from them as soon as one was let go. The
folds run in whichever thread is free and build lists of megabytes: after 60,000 calls a server held 250 MB, so 200.
"""

from __future__ import annotations

import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 1 << 20
"""Blocks from this size on are the system's own."""


def settle() -> bool:
    """Set it for this process, before its threads begin; False where there is no glibc, whose ways these are."""
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    except (ImportError, OSError):  # a Python without libffi, or one that is linked statically
        return False
    if mallopt is None:
        return False
    return bool(mallopt(_M_ARENA_MAX, 1) and mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
