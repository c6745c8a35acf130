"""Typed, time-ordered ids: `call_019ab3...`: 12 hex digits of milliseconds, 20 of chance (as UUIDv7, RFC 9562)."""

from __future__ import annotations

import os
import secrets

_POOL = 256
_chances: list[str] = []
os.register_at_fork(after_in_child=_chances.clear)


def new(kind: str, at: float) -> str:
    """An id of `kind` for something that happened at `at` (UTC seconds)."""
    return f"{kind}_{int(at * 1000):012x}{_chance()}"


def _chance() -> str:
    """20 hex digits. The system is asked for many at once: it is waited for without the interpreter, which under load
    took 50 us a call to come back."""
    try:
        return _chances.pop()  # in one step: no two threads get the same
    except IndexError:
        fresh = secrets.token_hex(10 * _POOL)
        _chances.extend(fresh[at : at + 20] for at in range(20, 20 * _POOL, 20))
        return fresh[:20]


PLAIN = 32
"""So many hex digits follow the kind; what follows them names the program that an imported record came from."""


def fixed(kind: str, at: float, digest: str) -> str:
    """An id of `kind` that follows from what it is of: whoever makes it makes the same. digest: hex, 20 digits count.

    >>> fixed("decision", 1.5, "ab" * 32)
    'decision_0000000005dcabababababababababab'
    """
    return f"{kind}_{int(at * 1000):012x}{digest[:20]}"


def imported(kind: str, at: float, digest: str, program: str) -> str:
    """An id of `kind` that is the same whenever the same is imported: `call_019ab3...-litellm`.

    digest: hex of what it was there, 20 digits are used.

    >>> imported("call", 1.5, "ab" * 32, "litellm")
    'call_0000000005dcabababababababababab-litellm'
    """
    return f"{fixed(kind, at, digest)}-{program}"


def is_imported(name: str) -> bool:
    """Whether the id `name` is of what another program logged, and Windlass neither decided nor paid.

    >>> name = "call_0000000005dcabababababababababab"
    >>> is_imported(f"{name}-litellm"), is_imported(name), is_imported(f"{name}-request")
    (True, False, True)
    """
    return name[name.find("_") + 1 + PLAIN :][:1] == "-"
