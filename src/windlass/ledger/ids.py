"""Typed, time-ordered ids: `call_019ab3...`: 12 hex digits of milliseconds, 20 of chance (as UUIDv7, RFC 9562)."""

from __future__ import annotations

import secrets


def new(kind: str, at: float) -> str:
    """An id of `kind` for something that happened at `at` (UTC seconds)."""
    return f"{kind}_{int(at * 1000):012x}{secrets.token_hex(10)}"
