"""Nano-dollars as people read them: in dollars, to the last nano-dollar, and never with an exponent."""

from __future__ import annotations

from typing import Final

NUSD: Final = 1_000_000_000
"""In one US dollar."""


def dollars(nusd: int) -> str:
    """An amount in dollars, exact, without zeros behind it.

    >>> dollars(18_000), dollars(-1), dollars(12_500_000_000), dollars(0)
    ('0.000018', '-0.000000001', '12.5', '0')
    """
    whole, part = divmod(abs(nusd), NUSD)
    behind = f".{part:09}".rstrip("0") if part else ""
    return f"{'-' if nusd < 0 else ''}{whole}{behind}"
